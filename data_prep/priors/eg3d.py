"""The 3D prior: EG3D (arXiv 2112.07945), taught by views and depth before it plays.

The rendered world knows cameras and depth, so geometry need not be found by adversarial luck.
Phase A, a share of the budget: an image encoder reads one picture, and its code must draw that
picture and, from another camera, another one of the same person; opacity is taught by the mask and
depth by the renderer's. Super-resolution, which joins after a while, takes rendered pictures of 32
pixels to four times that side, as in EG3D.
Phase B: the mapping network learns to draw such codes (`latent_prior`); then heads from random
codes play against the 2D prior's discriminator and against one that knows the camera and sees each
picture beside its rendered one (Sec. 4.3), while reconstructions go on in half of the batch. All
but the parts whose section is named is our choice. The heads that ship met an earlier pair.

    python -m data_prep.faces128.build --train-views 1500
    python -m data_prep.priors.trainer eg3d --minutes 720
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tyro.conf import Suppress

from data_prep.priors.adaptive_augmentation import AdaptiveAugmentation
from data_prep.priors.camera_faces import CameraFaces, Seen, joined, rows_of_people, seen_in
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.eg3d_measurements import measure, pairs_of, sample_picture
from data_prep.priors.recipe import Ship
from data_prep.priors.stylegan2 import (
    FINE_TO_COARSE_A,
    FINE_TO_COARSE_B,
    SIZES,
    StyleGAN2,
    StyleGAN2Settings,
    pyramid_loss,
    shrunk,
)
from data_prep.priors.stylegan2_measurements import set_mean_latent
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import moved
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import CAMERA_DIM
from dmgi_lib.generators.eg3d.planes import sample_planes
from dmgi_lib.training.critics import adversarial_losses
from dmgi_lib.training.loop import LoopResult, batch_indices
from dmgi_lib.training.run_files import Logged

SPLIT = "train_views"
MAKER = "python -m data_prep.faces128.build --train-views 1500"
SIZES_3D: dict[str, Any] = {
    **SIZES,
    "channel_base": 2048,
    "channel_max": 128,
    "plane_resolution": 64,
    "plane_channels": 16,
    "decoder_hidden": 64,
    "feature_channels": 16,
    "neural_rendering_resolution": 32,
    "sr_channels": (64, 32),
    "third_plane": "yz",
    "backdrop_resolution": 64,
    "pose_range": {"yaw": (-45.0, 45.0), "pitch": (-15.0, 15.0)},
    "rendering": {"depth_resolution": 12, "depth_resolution_importance": 12},
}
POINTS = 1000  # of a head, whose densities are compared with those beside them


@dataclass(frozen=True)
class EG3DSettings(StyleGAN2Settings):
    """Those of the 2D prior, and what three dimensions add."""

    minutes: float = 720.0
    warmup_images: Suppress[int] = 0  # phase A ends by the clock instead
    warmup_rate: float = 2.0  # factor on the learning rate in phase A
    # (side of rendered pictures, share of phase A until which they have it), if they are to grow
    growth: Suppress[tuple[tuple[int, float], ...]] = ()
    refined: float = 0.25  # share of phase A after which super-resolution is trained
    # arguments of TriPlaneGenerator
    generator: Suppress[dict[str, Any]] = field(default_factory=lambda: SIZES_3D)
    taught: float = 0.6  # share of the budget, by the clock, that is phase A
    # share of the reconstructions that are pairs of views of one person, of whom the code knows the
    # first view alone
    view_share: float = 0.75
    # last people of the split with several views that are measured, not trained on
    held_out: int = 64
    alpha_weight: float = 1.0  # of the L1 between opacity and the mask's foreground
    depth_weight: float = 12.0  # of the L1 of the depth on the head, in world units
    # of the pixels of the rendered picture beside those of the super-resolved one
    raw_weight: float = 0.5
    r1_gamma: float = 0.3  # weight of R1
    density_weight: float = 0.25  # of the total variation of density (EG3D, supplement)
    density_interval: int = 4  # steps between two uses of it
    density_distance: float = 0.004  # deviation of the distance between its points, in world units
    # whether phase B trains super-resolution alone, which is several times as fast: planes, decoder
    # and encoder stay as phase A left them, and D sees no rendered pictures
    frozen_planes: bool = False
    blur: float = 2.0  # deviation in pixels of the blur that D sees through as phase B begins
    blur_images: int = 20_000  # images over which the blur fades (EG3D, supplement)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("taught", "refined", "view_share"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise ValueError(
                    f"--{name.replace('_', '-')} came as {share}; expected a share, 0 … 1."
                )


class Clock(nn.Module):
    """When phase B began. A module only because checkpoints hold modules."""

    begun: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("begun", torch.tensor(-1))  # the phase's first step


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, mirrored at the border. image: (B, C, H, W); sigma: pixels, below 0.1 none."""
    if sigma < 0.1:
        return image
    radius = min(int(3 * sigma + 0.5), image.shape[-1] - 1)
    x = torch.arange(-radius, radius + 1, device=image.device) / sigma
    kernel = torch.exp(-x.square() / 2)
    kernel = (kernel / kernel.sum()).to(image.dtype).expand(image.shape[1], 1, 1, -1)
    for axis in (kernel, kernel.mT):
        pad = (axis.shape[3] // 2,) * 2 + (axis.shape[2] // 2,) * 2
        image = F.conv2d(F.pad(image, pad, mode="reflect"), axis, groups=len(axis))
    return image


class EG3D(StyleGAN2):
    """The generator G of heads in three dimensions, taught by views and depth."""

    name = "eg3d"
    network = TriPlaneGenerator
    settings: EG3DSettings  # type: ignore[assignment]
    refined = False  # whether super-resolution is trained; for sample pictures

    def build(self) -> None:
        super().build()
        folder = self.folders.data / SPLIT
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no {folder}: the 3D prior learns from people seen by several cameras. Render them"
                f" with `{MAKER}`, or name another data set with --data."
            )
        self.views = CameraFaces(FaceDataset(self.folders.data, SPLIT), self.device)
        self.singles = CameraFaces(self.train_set, self.device)
        people, held_out = rows_of_people(self.views.dataset), self.settings.held_out
        if any(len(rows) < 2 for rows in people) or not 0 < held_out < len(people):
            raise ValueError(
                f"{folder} holds {len(people)} people, some may have one view, and --held-out came"
                f" as {held_out}; expected people with two views or more, and more of them than are"
                " held out, at least 1."
            )
        self.people, self.unseen = people[:-held_out], people[-held_out:]
        numbers = self.views.dataset.identities[torch.stack([rows[0] for rows in self.unseen])]
        # The two splits number the same people alike.
        kept = ~torch.isin(self.train_set.identities, numbers)
        self.single_rows = kept.nonzero()[:, 0]
        self.training_images = len(self.single_rows) + sum(map(len, self.people))
        self.clock, self.augmentation = Clock(), AdaptiveAugmentation()
        sizes, rate = self.settings.generator, self.settings.learning_rate
        widths = (sizes["channel_base"], sizes["channel_max"])
        with self.seeded():
            self.camera_D = Discriminator(self.G.img_resolution, 6, *widths, c_dim=CAMERA_DIM)
        own = {"camera_discriminator": self.camera_D, "augmentation": self.augmentation}
        for module in own.values():
            module.to(self.device)
        self.modules = {**self.modules, **own, "clock": self.clock}
        self.opt_D.add_param_group({"params": list(self.camera_D.parameters()), "lr": rate})

    @property
    def keeps_codes(self) -> bool:
        """Whether they are those of `start`, for phase A is left out."""
        return "encoder" in self.read_before and not self.settings.taught

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, clock = self.settings, self.clock
        if self.used < settings.taught and clock.begun < 0:
            return self.teach(step, self.used / settings.taught, rng)
        begins = bool(clock.begun < 0)
        self.hold_codes(begins, rng)
        if begins:
            clock.begun.fill_(step)
        self.refined = True
        return self.play_in_3d(step, (step - int(clock.begun)) * settings.batch_size, rng)

    @property
    def batch(self) -> int:
        """Pictures of this process in a batch."""
        return self.settings.batch_size // self.accelerator.num_processes

    def lesson(self, count: int, step: int, rng: torch.Generator) -> tuple[Seen, Tensor, Tensor]:
        """Pairs of views of people, then single pictures, `count` in all; some mirrored.

        Returns:
            seen: pictures (B) to reconstruct from the codes (C) of some of them
            sources: (C, 3, H, W), what the encoder reads
            code: (B,) whose code draws each picture
        """
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes

        def drawn(n: int, total: int) -> Tensor:
            if not n:
                return torch.arange(0)
            return batch_indices(total, n * processes, step, self.settings.seed)[rank::processes]

        pairs = min(count // 2, round(count * self.settings.view_share / 2))
        singles = count - 2 * pairs
        people = [self.people[k] for k in drawn(pairs, len(self.people)).tolist()]
        both = [rows[torch.randperm(len(rows), generator=rng)[:2]].tolist() for rows in people]
        mirrored = torch.rand(pairs + singles, generator=rng) < 0.5
        rows = [pair[k] for k in range(2) for pair in both]  # all first views, then all second ones
        alone = self.single_rows[drawn(singles, len(self.single_rows))]
        seen = seen_in(
            (self.views, torch.tensor(rows).long(), mirrored[:pairs].repeat(2)),
            (self.singles, alone, mirrored[pairs:]),
        )
        sources = torch.cat([seen.image[:pairs], seen.image[2 * pairs :]])
        code = torch.cat([torch.arange(pairs), torch.arange(pairs + singles)])
        return seen, sources, moved(code, self.device)

    def anyone(self, count: int, rng: torch.Generator) -> Seen:
        """Pictures of both kinds, for their cameras and for D."""
        n = int((torch.rand(count, generator=rng) < self.settings.view_share).sum())
        parts = []
        for faces, rows, size in (
            (self.views, torch.cat(self.people), n),
            (self.singles, self.single_rows, count - n),
        ):
            chosen = rows[torch.randint(len(rows), (size,), generator=rng)]
            parts.append((faces, chosen, torch.rand(size, generator=rng) < 0.5))
        return seen_in(*parts)

    def view(
        self, ws: Tensor, code: Tensor, camera: Tensor, side: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, depth, alpha of each camera's code, jittered rays; and the planes.

        Args:
            ws: (C, num_ws, w_dim); code: (B,) rows of ws; camera: (B, 25)
        """
        planes, wall = self.G.planes(ws), self.G.wall(ws)
        wall = None if wall is None else wall[code]
        if self.device.type == "cuda":  # noise of a GPU's own, see `devices.normal`
            seed = int(torch.randint(2**62, (), generator=rng))
            rng = torch.Generator(self.device).manual_seed(seed)
        rendered = self.G.render(planes[code], camera, side, wall, False, rng, None)
        return *rendered, planes

    def truth_loss(
        self, features: Tensor, depth: Tensor, alpha: Tensor, seen: Seen, fine_to_coarse: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Rendered pictures, depth and opacity against what is known: loss, numbers to log."""
        settings, side = self.settings, features.shape[-1]
        places = shrunk(self.places(seen.mask), side)
        weights = fine_to_coarse[: max(1, side.bit_length() - 3)]  # down to 8 pixels
        pixels = pyramid_loss(features[:, :3], shrunk(seen.image, side), weights, places)
        foreground, wanted, inside = seen.rendered(side)
        opacity = F.l1_loss(alpha, foreground)
        error = (depth - wanted).abs() * inside
        error = error.sum() / inside.sum().clamp_min(1.0)
        loss = settings.alpha_weight * opacity + settings.depth_weight * error
        log = {"raw": pixels.detach(), "alpha": opacity.detach(), "depth": error.detach()}
        return loss + settings.raw_weight * pixels, log

    def density_loss(self, planes: Tensor, step: int, rng: torch.Generator) -> Tensor:
        """Total variation of density, weighted by its interval; 0 in other steps."""
        settings = self.settings
        if step % settings.density_interval:
            return planes.new_zeros([])
        points = torch.rand(len(planes), POINTS, 3, generator=rng) - 0.5
        points = points * self.G.rendering.box_warp
        nudged = torch.randn(points.shape, generator=rng) * settings.density_distance
        both = moved(torch.cat([points, points + nudged], dim=1), self.device)
        features = sample_planes(planes, both, self.G.rendering.box_warp, self.G.axes)
        one, other = self.G.decoder(features)[1].chunk(2, dim=1)
        return settings.density_weight * settings.density_interval * F.l1_loss(one, other)

    def teach(self, step: int, share: float, rng: torch.Generator) -> Logged:
        """Phase A: one code draws the picture that it was read from, and the other view of it."""
        settings, final = self.settings, self.G.neural_rendering_resolution
        side, self.refined = self.stage(share, final)[0], share >= settings.refined
        self.pace(0.9, settings.warmup_rate)
        seen, sources, code = self.lesson(self.batch, step, rng)
        ws, offsets = self.encode(sources, settings.code_noise, rng)
        with self.autocast():
            features, depth, alpha, planes = self.view(ws, code, seen.camera, side, rng)
        loss, log = self.truth_loss(features, depth, alpha, seen, FINE_TO_COARSE_A)
        loss = loss + settings.offset_weight * offsets.square().mean()
        loss = loss + self.density_loss(planes, step, rng)
        if self.refined:
            with self.autocast():
                image = self.G.superresolution(features, features[:, :3], ws[code])
            pixels = pyramid_loss(image, seen.image, FINE_TO_COARSE_A, self.places(seen.mask))
            found, found_log = self.recognised(image, seen.image, seen.mask)
            loss, log = loss + pixels + found, log | found_log
            log["reconstruction"] = pixels.detach()
        self.update(loss, optimizer=self.opt_G)
        return log

    def dual(self, image: Tensor, raw: Tensor, sigma: float) -> Tensor:
        """What D sees (EG3D, Sec. 4.3): the image, and beside it the rendered one of its size."""
        large = F.interpolate(raw.float(), image.shape[-2:], mode="bilinear")
        return blurred(torch.cat([image.float(), large], dim=1), sigma)

    def play_in_3d(self, step: int, images_seen: int, rng: torch.Generator) -> Logged:
        """Phase B: reconstructions of one part of the batch, heads from random codes beside."""
        settings, side, batch = self.settings, self.G.neural_rendering_resolution, self.batch
        self.pace(0.0, settings.playing_rate)
        count = min(batch - 1, max(1, int(batch * settings.encoded_share)))
        known, sources, code = self.lesson(count, step, rng)
        seen = joined(known, self.anyone(batch - count, rng))
        with torch.set_grad_enabled(not settings.frozen_planes):
            ws, _ = self.encode(sources, settings.code_noise / 3, rng)
            drawn = len(ws) + torch.arange(batch - count)
            code = torch.cat([code, moved(drawn, self.device)])
            ws = torch.cat([ws, self.draw_codes(batch - count, rng)])
            with self.autocast():
                features, depth, alpha, planes = self.view(ws, code, seen.camera, side, rng)
        with self.autocast():
            image = self.G.superresolution(features, features[:, :3], ws[code])
        sigma = settings.blur * max(0.0, 1.0 - images_seen / max(1, settings.blur_images))
        raw = shrunk(image.float(), side) if settings.frozen_planes else features[:, :3]
        real = self.dual(seen.image, shrunk(seen.image, side), sigma)
        fake = self.dual(image, raw, sigma)
        weight = min(1.0, images_seen / max(1, settings.ramp_images))
        loss, log = self.contend(seen.image, seen.mask, image.float(), count, step, weight)
        placed, placed_log = self.contend_by_camera(real, fake, seen.camera, step, rng)
        loss, log = loss + weight * placed, log | placed_log
        if not settings.frozen_planes:
            rendered = features[:count], depth[:count], alpha[:count]
            truth, truth_log = self.truth_loss(*rendered, known, FINE_TO_COARSE_B)
            loss, log = loss + truth + self.density_loss(planes, step, rng), log | truth_log
        self.update(loss, optimizer=self.opt_G)
        return log

    def contend_by_camera(
        self, real: Tensor, fake: Tensor, c: Tensor, step: int, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A step of the D that knows the camera (EG3D, Sec. 4.3), then what G's pictures lack.

        real, fake: (B, 6, H, W), see `dual`; c: (B, 25), of both
        """
        self.camera_D.requires_grad_(True)
        draws = [self.augmentation.draw(len(real), rng) for _ in range(3)]
        true, made_up = map(self.augmentation, (real, fake.detach()), draws[:2])
        with self.autocast():
            logits_real, logits_fake = self.camera_D(true, c), self.camera_D(made_up, c)
        loss_D = adversarial_losses(logits_real, logits_fake)
        self.update(loss_D, optimizer=self.opt_D)
        self.augmentation.observe(logits_real.detach(), step)
        log = {"D_camera": loss_D.detach()}
        log["ada_p"] = self.augmentation.p.clone()  # it moves before the log is read
        if step % self.settings.r1_interval == 0:
            half = c[: len(c) // 2]
            log["r1_camera"] = self.punish(lambda x: self.camera_D(x, half), true)
        self.camera_D.requires_grad_(False)
        with self.autocast():
            loss = F.softplus(-self.camera_D(self.augmentation(fake, draws[2]), c)).mean()
        return loss, log | {"G_camera": loss.detach()}

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        G, encoder = averaged["generator"], averaged["encoder"]
        if self.clock.begun >= 0:
            set_mean_latent(G)
        shown = pairs_of(self.views, self.unseen[:8])
        return sample_picture(G, encoder, *shown, refined=self.refined)

    def export(self, result: LoopResult, ship: Ship) -> None:
        G, encoder = self.finished(result), result.ema["encoder"]
        size = G.img_resolution
        measured = measure(G, encoder, self.loss_net, *pairs_of(self.views, self.unseen))
        ship(
            self.home("3d/generator"),
            G,
            "EG3D generator of the mini world",
            f"`TriPlaneGenerator`: z (B, {G.z_dim}) to ws (B, {G.num_ws}, {G.w_dim}), and with"
            f" cameras (B, {CAMERA_DIM}) to images (B, 3, {size}, {size}) in [-1, 1], rendered"
            f" images, depth and alpha. Averaged weights. The first {self.settings.taught:.0%} of"
            " the budget were taught by views and depth. Measured on the"
            f" {len(self.unseen)} last people of `{SPLIT}`, who were not trained on, through the"
            " encoder's W of one view; depth errors stand beside those of each picture's mean depth"
            " (flat disc) and of the mean latent's head.",
            measured,
        )
        ship(
            self.home("3d/generator").parent / "encoder",
            encoder,
            "Image encoder of the 3D prior",
            f"`ImageEncoder`: images (B, 3, {size}, {size}) in [-1, 1] to ws and their W+ offsets,"
            " which the generator beside it was taught with. A training goes on from both with"
            " `--start`.",
            {name: value for name, value in measured.items() if "the view that was read" in name},
        )
