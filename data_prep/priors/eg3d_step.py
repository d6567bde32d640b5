"""One optimisation step of the 3D prior's two phases; see `eg3d`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.budget_clock import BudgetClock
from data_prep.priors.camera_faces import CameraFaces, Seen, joined
from data_prep.priors.latent_prior import fit_prior
from data_prep.priors.stylegan2_measurements import set_mean_latent
from data_prep.priors.stylegan2_step import (
    FINE_TO_COARSE_A,
    FINE_TO_COARSE_B,
    StyleGAN2Phases,
    StyleGAN2Settings,
    _set_beta1,
    pyramid_loss,
)
from dmgi_lib.devices import moved
from dmgi_lib.generators.eg3d.planes import sample_planes
from dmgi_lib.training.loop import batch_indices
from dmgi_lib.training.run_files import Logged

POINTS = 1000  # of a head, whose densities are compared with those beside them


@dataclass(frozen=True)
class EG3DSettings(StyleGAN2Settings):
    """Those of the 2D prior, and what three dimensions add.

    Args:
        generator: arguments of TriPlaneGenerator
        growth: (side of rendered pictures, share of phase A until which they are taught alone,
            without super-resolution)
        taught: share of the budget, by the clock, that is phase A
        view_share: share of the reconstructions that are pairs of views of one person, of whom the
            code knows the first view alone
        held_out: last people of the split with several views that are measured, not trained on
        alpha_weight: of the L1 between opacity and the mask's foreground
        depth_weight: of the L1 of the depth on the head, in world units
        raw_weight: of the pixels of the rendered picture beside those of the super-resolved one
        density_weight: of the total variation of density (EG3D, supplement)
        density_interval: steps between two uses of it
        density_distance: deviation of the distance between its points, in world units
        blur: deviation in pixels of the blur that D sees through as phase B begins
        blur_images: images over which the blur fades (EG3D, supplement)
    """

    minutes: float = 720.0
    warmup_images: Suppress[int] = 0  # phase A ends by the clock instead
    warmup_rate: float = 2.0
    growth: Suppress[tuple[tuple[int, float], ...]] = ((32, 0.4), (64, 0.6))
    generator: Suppress[dict[str, Any]] = field(
        default_factory=lambda: {
            "z_dim": 128,
            "w_dim": 128,
            "img_resolution": 128,
            "mapping_layers": 4,
            "channel_base": 2048,
            "channel_max": 128,
            "plane_resolution": 64,
            "plane_channels": 16,
            "decoder_hidden": 64,
            "feature_channels": 16,
            "neural_rendering_resolution": 64,
            "sr_channels": (64, 32),
            "third_plane": "yz",
            "backdrop_resolution": 64,
            "pose_range": {"yaw": (-45.0, 45.0), "pitch": (-15.0, 15.0)},
            "rendering": {"depth_resolution": 16, "depth_resolution_importance": 16},
        }
    )
    taught: float = 0.6
    view_share: float = 0.75
    held_out: int = 64
    alpha_weight: float = 1.0
    depth_weight: float = 3.0
    raw_weight: float = 0.5
    r1_gamma: float = 0.3
    density_weight: float = 0.25
    density_interval: int = 4
    density_distance: float = 0.004
    blur: float = 2.0
    blur_images: int = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("taught", "view_share"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise ValueError(
                    f"--{name.replace('_', '-')} came as {share}; expected a share, 0 … 1."
                )


@dataclass(frozen=True)
class Lesson:
    """Pictures (B) to reconstruct from the codes (C) of some of them.

    sources: (C, 3, H, W), what the encoder reads     code: (B,) whose code draws each picture
    """

    seen: Seen
    sources: Tensor
    code: Tensor


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


def shrunk(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) → (B, C, side, side), each pixel the mean of those that it covers."""
    return F.avg_pool2d(x, x.shape[-1] // side)


class EG3DPhases(StyleGAN2Phases):
    """The step of the phase that the clock has come to; `eg3d` builds the networks."""

    settings: EG3DSettings  # type: ignore[assignment]
    clock: BudgetClock
    refined = False  # whether super-resolution is trained; for sample pictures
    singles: CameraFaces
    views: CameraFaces
    single_rows: Tensor
    people: list[Tensor]

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, clock = self.settings, self.clock
        used = clock.used(step, settings, self.accelerator)
        if used < settings.taught and clock.begun < 0:
            return self.teach(step, used / settings.taught, rng)
        if clock.begun < 0:
            images = self.train_set.images[: settings.prior_images]
            fit_prior(self.G.backbone.mapping, self.encoder, images, rng, settings.prior)
            self.agree(self.G.backbone.mapping)
            set_mean_latent(self.G)
            clock.begun.fill_(step)
        # as in the 2D prior: see there
        self.encoder.requires_grad_(False)
        self.G.backbone.mapping.requires_grad_(False)
        self.refined = True
        images_seen = (step - int(clock.begun)) * settings.batch_size
        return self.play_in_3d(step, images_seen, rng)

    @property
    def batch(self) -> int:
        """Pictures of this process in a batch."""
        return self.settings.batch_size // self.accelerator.num_processes

    def stage(self, share: float) -> tuple[int, bool]:
        """Side of rendered pictures, and whether super-resolution follows, in phase A."""
        final = self.G.neural_rendering_resolution
        for side, until in self.settings.growth:
            if share < until and side <= final:
                return side, False
        return final, True

    def lesson(self, count: int, step: int, rng: torch.Generator) -> Lesson:
        """Pairs of views of people, then single pictures, `count` in all; some mirrored."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes

        def drawn(n: int, total: int) -> Tensor:
            return batch_indices(total, n * processes, step, self.settings.seed)[rank::processes]

        pairs = min(count // 2, round(count * self.settings.view_share / 2))
        singles = count - 2 * pairs
        people = [self.people[k] for k in drawn(pairs, len(self.people)).tolist()]
        both = [rows[torch.randperm(len(rows), generator=rng)[:2]] for rows in people]
        mirrored = torch.rand(pairs + singles, generator=rng) < 0.5
        parts = []
        if pairs:
            rows = torch.stack(both, dim=1).flatten()  # all first views, then all second ones
            parts.append(self.views.batch(rows, mirrored[:pairs].repeat(2)))
        if singles:
            rows = self.single_rows[drawn(singles, len(self.single_rows))]
            parts.append(self.singles.batch(rows, mirrored[pairs:]))
        seen = joined(parts)
        first, alone = torch.arange(pairs), pairs + torch.arange(singles)
        sources = torch.cat([seen.image[:pairs], seen.image[2 * pairs :]])
        return Lesson(seen, sources, moved(torch.cat([first, first, alone]), self.device))

    def anyone(self, count: int, rng: torch.Generator) -> Seen:
        """Pictures of both kinds, for their cameras and for D."""
        total = torch.cat([*self.people]), self.single_rows
        picked = torch.rand(count, generator=rng) < self.settings.view_share
        parts = []
        for faces, rows, n in zip(
            (self.views, self.singles),
            total,
            (int(picked.sum()), int((~picked).sum())),
            strict=True,
        ):
            if n:
                chosen = rows[torch.randint(len(rows), (n,), generator=rng)]
                parts.append(faces.batch(chosen, torch.rand(n, generator=rng) < 0.5))
        return joined(parts)

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
        foreground = shrunk((seen.mask > 0).float()[:, None], side)
        opacity = F.l1_loss(alpha, foreground)
        known = shrunk((seen.depth > 0).float()[:, None], side)
        inside = (known == 1).float()
        error = (depth - shrunk(seen.depth[:, None], side)).abs() * inside
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
        settings, (side, self.refined) = self.settings, self.stage(share)
        _set_beta1(self.opt_G, 0.9)
        for group in self.opt_G.param_groups:
            group["lr"] *= settings.warmup_rate
        lesson = self.lesson(self.batch, step, rng)
        seen, code = lesson.seen, lesson.code
        ws, offsets = self.encode(lesson.sources, settings.code_noise, rng)
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
        elif side >= 64:
            with self.autocast():
                found = self.perceptual(features[:, :3], shrunk(seen.image, side)).mean()
            loss = loss + settings.perceptual_weight * found
            log["perceptual"] = found.detach()
        self.update(loss, optimizer=self.opt_G)
        return log

    def dual(self, image: Tensor, raw: Tensor, sigma: float) -> Tensor:
        """What D sees (EG3D, Sec. 4.3): the image, and beside it the rendered one of its size."""
        large = F.interpolate(raw.float(), image.shape[-2:], mode="bilinear")
        return blurred(torch.cat([image.float(), large], dim=1), sigma)

    def play_in_3d(self, step: int, images_seen: int, rng: torch.Generator) -> Logged:
        """Phase B: reconstructions of one part of the batch, heads from random codes beside."""
        settings, side = self.settings, self.G.neural_rendering_resolution
        _set_beta1(self.opt_G, 0.0)
        batch = self.batch
        count = min(batch - 1, max(1, int(batch * settings.encoded_share)))
        lesson = self.lesson(count, step, rng)
        seen = joined([lesson.seen, self.anyone(batch - count, rng)])
        ws, _ = self.encode(lesson.sources, settings.code_noise / 3, rng)
        drawn = len(ws) + torch.arange(batch - count)
        code = torch.cat([lesson.code, moved(drawn, self.device)])
        ws = torch.cat([ws, self.draw_codes(batch - count, rng)])
        with self.autocast():
            features, depth, alpha, planes = self.view(ws, code, seen.camera, side, rng)
            image = self.G.superresolution(features, features[:, :3], ws[code])
        sigma = settings.blur * max(0.0, 1.0 - images_seen / max(1, settings.blur_images))
        fake = self.dual(image, features[:, :3], sigma)
        real = self.dual(seen.image, shrunk(seen.image, side), sigma)
        weight = min(1.0, images_seen / max(1, settings.ramp_images))
        log = self.discriminate(real, fake, step, rng, seen.camera)
        judged, judged_log = self.judge(fake, real, count, weight, rng, seen.camera)
        known = seen[:count]
        truth, truth_log = self.truth_loss(
            features[:count], depth[:count], alpha[:count], known, FINE_TO_COARSE_B
        )
        places = self.places(known.mask)
        pixels = pyramid_loss(image[:count], known.image, FINE_TO_COARSE_B, places)
        found, found_log = self.recognised(image[:count].float(), known.image, known.mask)
        loss = judged + found + settings.reconstruction_weight * pixels + truth
        loss = loss + self.density_loss(planes, step, rng)
        self.update(loss, optimizer=self.opt_G)
        return log | judged_log | truth_log | found_log | {"reconstruction": pixels.detach()}
