"""The 2D prior: StyleGAN2 (arXiv 1912.04958), warm-started, with OASIS's D (arXiv 2012.04781).

Phase A, the first `warmup_images`: an image encoder and G learn together as an autoencoder, at 32
and 64 pixels first, judged by pixels and, at full size, by the loss network's features and parsing;
then the mapping network learns to draw codes like the encoder's (`latent_prior`) and is held still.
Phase B: D parses pictures, true ones as their masks say, G's as made up (`parsing_discriminator`);
G is to draw what is parsed as true, in reconstructions as the mask says. Half of each batch stays
reconstructions, so that the training faces remain invertible; half of the samples are truncated, so
that codes near the mean draw sharp faces too. The warm start, the reconstruction terms and the
truncated samples are our choice (not specified in the paper's available sources).

    python -m data_prep.priors.trainer stylegan2 --minutes 130

A training goes on from what it exported, or from G alone, whose encoder is then learnt in phase A
while G stays as it is. Codes keep their meaning, so what was trained to write them stays of use. A
narrower G goes on too, widened by channels that nothing reads yet. With `--no-keep-codes` G and
encoder learn on as an autoencoder, and what was trained to write codes has to be trained anew:

    python -m data_prep.priors.trainer stylegan2 --start WEIGHTS --out NEW/generator --minutes 90
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.latent_prior import ImageEncoder, PriorFit, fit_prior
from data_prep.priors.recipe import FEATURES, Recipe, Settings, Ship, frozen, region, start_from
from data_prep.priors.stylegan2_measurements import (
    measure,
    sample_grid,
    set_mean_latent,
    set_typical_latent,
)
from dmgi_lib.devices import moved
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator, StyleMapping
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.losses import ParsingLoss, PerceptualLoss, SharedFeatures
from dmgi_lib.training.parsing_discriminator import ParsingDiscriminator, classes_of, realness
from dmgi_lib.training.run_files import Logged

SIZES: dict[str, Any] = {
    "z_dim": 128,
    "w_dim": 128,
    "img_resolution": 128,
    "mapping_layers": 4,
    "channel_base": 4096,
    "channel_max": 256,
}
STARTS = ("generator", "encoder", "discriminator")  # what a training goes on from
FINE_TO_COARSE_A = (1.0, 1.0, 1.0, 1.0, 1.0)
FINE_TO_COARSE_B = (0.25, 0.5, 1.0, 1.0, 1.0)  # fine detail is D's to judge


@dataclass(frozen=True)
class StyleGAN2Settings(Settings):
    """Sizes, and losses of the two phases; weights are our choice unless a paper is named."""

    minutes: float = 130.0
    batch_size: int = 16
    learning_rate: float = 0.002
    cooldown: float = 0.1
    # folder with `generator`, and of `encoder` and `discriminator` what it holds, to go on from
    start: Path | None = None
    # the codes of `start` stay as they are; else phase A teaches its G and encoder on, at full size
    keep_codes: bool = True
    # arguments of StyleGAN2Generator
    generator: Suppress[dict[str, Any]] = field(default_factory=lambda: SIZES)
    # images of phase A; none if training goes on from an encoder and keeps its codes
    warmup_images: int = 128_000
    # (resolution, share of phase A until which it is trained), the rest is trained in full; as in
    # progressive growing (arXiv 1710.10196), on skip outputs
    growth: Suppress[tuple[tuple[int, float], ...]] = ((32, 0.28), (64, 0.56))
    warmup_rate: float = 3.0  # factor on the learning rate in phase A
    ramp_images: int = 4_000  # images over which phase B's adversarial weight rises to 1
    # factors on the learning rate in phase B
    playing_rate: float = 0.5
    discriminator_rate: float = 0.25
    encoded_share: float = 0.5  # share of phase B's batch that comes from the encoder
    code_noise: float = 0.1  # σ of the noise on encoded z in phase A; a third of it in phase B
    prior_images: int = 6000  # whose codes the mapping network learns to draw
    prior: Suppress[PriorFit] = field(default_factory=PriorFit)  # how it learns that
    # share of phase B's samples that are pulled towards the mean latent: an encoder that is unsure
    # writes such codes
    truncated_share: float = 0.5
    lowest_psi: float = 0.4  # how far they are pulled at most
    part_weight: float = 4.0  # weight of pixels of eyes, brows and mouth; others have 1
    offset_share: float = 0.5  # share of encoded samples that use W+ offsets
    mixing: float = 0.5  # probability of style mixing on sampled z (StyleGAN, Sec. 3.1)
    r1_gamma: float = 0.5  # weight of R1
    r1_interval: int = 16  # steps between two R1 steps (lazy regularisation, StyleGAN2 App. B)
    offset_weight: float = 0.1  # of the mean square of the W+ offsets in phase A
    reconstruction_weight: float = 2.0  # of the pixel L1 in phase B
    perceptual_weight: float = 1.0  # of the loss network's feature distance, on reconstructions
    parsing_weight: float = 0.2  # of its parsing's cross-entropy, in phase A

    def __post_init__(self) -> None:
        if self.batch_size < 8 or self.batch_size % 8:
            raise ValueError(
                f"--batch-size came as {self.batch_size}; expected a multiple of 8, for halves and"
                " groups of four."
            )


class StyleGAN2(Recipe[StyleGAN2Settings]):
    """The generator G that the method inverts, trained against a discriminator."""

    name = "stylegan2"
    averaged = ("generator", "encoder")
    network: type[Any] = StyleGAN2Generator

    def build(self) -> None:
        settings, sizes = self.settings, self.settings.generator
        loss_net = self.folders.weights / "loss_net"
        self.loss_net = frozen(Recognizer, loss_net, "loss_net", self.device)
        self.perceptual, self.parsing = PerceptualLoss(self.loss_net), ParsingLoss(self.loss_net)
        side = sizes["img_resolution"]
        z_dim, w_dim, layers = (sizes[k] for k in ("z_dim", "w_dim", "mapping_layers"))
        with self.seeded():
            self.G = self.network(c_dim=0, **sizes)
            self.encoder = ImageEncoder(z_dim, self.G.num_ws, w_dim, side, layers)
            self.D = ParsingDiscriminator(self.loss_net.config.channels)
        self.D.begin_as(self.loss_net)
        self.modules = {
            "generator": self.G,
            "encoder": self.encoder,
            "discriminator": self.D,
        }
        self.read_before = self.started_from(settings.start)
        for module in self.modules.values():
            module.to(self.device)
        parameters_G = [*self.G.parameters(), *self.encoder.parameters()]
        rate, betas = settings.learning_rate, (0.0, 0.99)
        self.opt_G = torch.optim.Adam(parameters_G, rate, betas, fused=True)
        rate *= settings.discriminator_rate
        self.opt_D = torch.optim.Adam(self.D.parameters(), rate, betas, fused=True)
        self.optimizers = {"generator": self.opt_G, "discriminator": self.opt_D}

    def started_from(self, folder: Path | None) -> tuple[str, ...]:
        """Reads what an earlier training exported; names of the networks."""
        if folder is None:
            return ()
        found = tuple(n for n in STARTS if n == "generator" or (folder / n).is_dir())
        for name in found:
            start_from(self.modules[name], folder / name, widened)
        if "encoder" not in found:
            self.encoder.mapping.load_state_dict(mapping_of(self.G).state_dict())
        return found

    @property
    def keeps_codes(self) -> bool:
        """Whether G and its codes are those of an earlier training."""
        return bool(self.read_before) and self.settings.keep_codes

    @property
    def warmup_images(self) -> int:
        """Of phase A."""
        learnt = self.keeps_codes and "encoder" in self.read_before
        return 0 if learnt else self.settings.warmup_images

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, rows = self.settings, self.rows(len(self.train_set), step)
        real, mask = self.pictures_of(rows, rng)
        for name, noise in self.G.named_buffers():
            if name.endswith("noise_const"):  # fresh each step, shared by the batch: fast
                noise.copy_(moved(torch.randn(noise.shape, generator=rng), noise.device))
        seen = step * settings.batch_size - self.warmup_images
        if seen < 0:
            share = step * settings.batch_size / self.warmup_images
            resolution, _ = self.stage(share, self.G.synthesis.resolutions[-1])
            return self.reconstruct(real, mask, resolution, rng)
        self.hold_codes(seen < settings.batch_size, rng)
        return self.play(real, mask, step, min(1.0, seen / settings.ramp_images), rng)

    def hold_codes(self, first: bool, rng: torch.Generator) -> None:
        """As phase B begins, mapping network and mean latent follow the encoder; then both rest.

        A few images a step are too few to move the encoder: its codes fell together in trials. The
        mapping network left the codes when it played, and G drew what it had never learnt.
        """
        mapping = mapping_of(self.G)
        if first and not self.keeps_codes:
            images = self.train_set.images[: self.settings.prior_images]
            fit_prior(mapping, self.encoder, images, rng, self.settings.prior)
            self.agree(mapping)
            set_mean_latent(self.G)
        self.G.requires_grad_(True)
        self.encoder.requires_grad_(False)
        mapping.requires_grad_(False)

    def pace(self, beta1: float, factor: float = 1.0) -> None:
        """Sets G's β1 and scales its learning rate for this step."""
        for group in self.opt_G.param_groups:
            group["betas"] = (beta1, group["betas"][1])
            group["lr"] *= factor

    def places(self, mask: Tensor) -> Tensor:
        """(B, H, W) class ids → (B, 1, H, W) weights of pixels."""
        return 1.0 + (self.settings.part_weight - 1.0) * region(mask, FEATURES)

    def encode(self, real: Tensor, sigma: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images → ws (from z with noise σ) and the W+ offsets that some of them carry."""
        with self.autocast():
            ws, offsets = self.encoder(real, sigma, rng)
        used = torch.rand(len(ws), 1, 1, generator=rng) < self.settings.offset_share
        return ws + offsets * moved(used, ws.device), offsets

    def draw_codes(self, count: int, rng: torch.Generator) -> Tensor:
        """ws of `count` random z, some with style mixing, some truncated."""
        num_ws, settings = self.G.num_ws, self.settings
        z = moved(torch.randn(2 * count, self.G.config.z_dim, generator=rng), self.device)
        first, second = self.G.mapping(z).chunk(2)
        crossover = torch.randint(1, num_ws, (count, 1, 1), generator=rng)
        mixed = torch.rand(count, 1, 1, generator=rng) < settings.mixing
        late = torch.arange(num_ws)[:, None] >= crossover
        ws = torch.where(moved(late & mixed, self.device), second, first)
        psi = 1.0 - (1.0 - settings.lowest_psi) * torch.rand(count, 1, 1, generator=rng)
        pulled = torch.rand(count, 1, 1, generator=rng) < settings.truncated_share
        truncated = self.G.mean_latent.lerp(ws, moved(psi, self.device).to(ws))
        return torch.where(moved(pulled, self.device), truncated, ws)

    def recognised(
        self, image: Tensor, real: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the loss network finds missing in reconstructions: weighted loss, numbers to log."""
        with self.autocast(), SharedFeatures(self.loss_net):
            perceptual = self.perceptual(image, real).mean()
            parsing = self.parsing(image, mask).mean()
        loss = self.settings.perceptual_weight * perceptual + self.settings.parsing_weight * parsing
        return loss, {"perceptual": perceptual.detach(), "parsing": parsing.detach()}

    def reconstruct(
        self, real: Tensor, mask: Tensor, resolution: int, rng: torch.Generator
    ) -> Logged:
        """Phase A: autoencoder, in two updates a batch, for updates are what it lacks."""
        self.pace(0.9, self.settings.warmup_rate)
        self.G.requires_grad_(not self.keeps_codes)
        log: dict[str, Tensor] = {}
        for part, part_mask in zip(real.chunk(2), mask.chunk(2), strict=True):
            ws, offsets = self.encode(part, self.settings.code_noise, rng)
            offset_loss = self.settings.offset_weight * offsets.square().mean()
            with self.autocast():
                image = self.G.synthesis(ws, resolution=resolution)
            target, places = shrunk(part, resolution), shrunk(self.places(part_mask), resolution)
            weights = FINE_TO_COARSE_A[: resolution.bit_length() - 3]  # down to 8 pixels
            pixels = pyramid_loss(image, target, weights, places)
            log |= {"reconstruction": pixels.detach(), "offsets": offset_loss.detach()}
            loss = pixels + offset_loss
            if resolution == part.shape[-1]:
                seen, seen_log = self.recognised(image, part, part_mask)
                loss, log = loss + seen, log | seen_log
            self.update(loss, optimizer=self.opt_G)
        return log

    def stage(self, share: float, final: int) -> tuple[int, bool]:
        """Side of the pictures at a share of phase A, for they grow, and whether it is the last."""
        for side, until in () if "encoder" in self.read_before else self.settings.growth:
            if share < until and side <= final:
                return side, False
        return final, True

    def play(
        self, real: Tensor, mask: Tensor, step: int, weight: float, rng: torch.Generator
    ) -> Logged:
        """Phase B: D's step, every `r1_interval` steps R1, then G's step on the same fakes."""
        self.pace(0.0, self.settings.playing_rate)
        count = min(len(real) - 1, max(1, int(len(real) * self.settings.encoded_share)))
        ws, _ = self.encode(real[:count], self.settings.code_noise / 3, rng)
        with self.autocast():
            fake = self.G.synthesis(torch.cat([ws, self.draw_codes(len(real) - count, rng)]))
        loss, log = self.contend(real, mask, fake, count, step, weight)
        self.update(loss, optimizer=self.opt_G)
        return log

    def contend(
        self, real: Tensor, mask: Tensor, fake: Tensor, count: int, step: int, weight: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """D's step, then what G's pictures lack: weighted loss, numbers to log.

        Args:
            real, mask, fake: (B, 3, H, W), (B, H, W), (B, 3, H, W)
            count:  the first that many fakes are reconstructions
            weight: of the adversarial part
        """
        log, settings = self.discriminate(real, mask, fake, step), self.settings
        self.D.requires_grad_(False)
        with self.autocast():
            logits = self.D.logits(fake)
            perceptual = self.perceptual(fake[:count], real[:count]).mean()
        read = F.cross_entropy(logits[:count], classes_of(mask[:count], logits))
        found = F.softplus(-realness(logits[count:])).mean()
        pixels = pyramid_loss(
            fake[:count], real[:count], FINE_TO_COARSE_B, self.places(mask[:count])
        )
        loss = weight * (read + found) + settings.perceptual_weight * perceptual
        log |= {"G": found.detach(), "G_parsing": read.detach()}
        log |= {"perceptual": perceptual.detach(), "reconstruction": pixels.detach()}
        return loss + settings.reconstruction_weight * pixels, log

    def discriminate(
        self, real: Tensor, mask: Tensor, fake: Tensor, step: int
    ) -> dict[str, Tensor]:
        """A step of D and, every `r1_interval` steps, R1 (StyleGAN2, App. B); numbers to log."""
        self.D.requires_grad_(True)
        with self.autocast():
            logits = self.D.logits(torch.cat([real, fake.detach()]))
        true, made_up = logits.chunk(2)
        wanted = torch.full_like(classes_of(mask, logits), logits.shape[1] - 1)
        loss = F.cross_entropy(true, classes_of(mask, true)) + F.cross_entropy(made_up, wanted)
        self.update(loss, optimizer=self.opt_D)
        log = {"D": loss.detach(), "real_found": (realness(true) > 0).float().mean()}
        log["fake_found"] = (realness(made_up) < 0).float().mean()
        if step % self.settings.r1_interval == 0:
            log["r1"] = self.punish(lambda x: self.D(x).mean(1), real)
        return log

    def punish(self, read: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
        """γ/2 E‖∇ read(real)‖² in fp32, on half the batch, weighted by the interval; the square."""
        real = real[: len(real) // 2].detach().requires_grad_(True)
        with torch.autocast(real.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(read(real).sum(), real, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        weight = self.settings.r1_gamma / 2 * self.settings.r1_interval
        self.update(penalty * weight, optimizer=self.opt_D)
        return penalty.detach()

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        return sample_grid(averaged["generator"], averaged["encoder"], self.test_set.images[:8])

    def export(self, result: LoopResult, ship: Ship) -> None:
        G, pictures = self.finished(result), (self.train_set.images, self.test_set.images)
        encoder, home, size = result.ema["encoder"], self.home("generator"), G.img_resolution
        images = f"images (B, 3, {size}, {size}) in [-1, 1]"
        onward = " A training goes on from it with `--start`."
        measured = measure(G, encoder, self.loss_net, *pictures)
        ship(
            home,
            G,
            "StyleGAN2 generator of the mini world",
            f"`StyleGAN2Generator`: z (B, {G.z_dim}) to ws (B, {G.num_ws}, {G.w_dim}) to {images}."
            f" Averaged weights. The first {self.warmup_images} images were the autoencoder warm"
            " start.",
            measured,
        )
        said = f"`ImageEncoder`: {images} to ws and their W+ offsets.{onward}"
        found = {name: value for name, value in measured.items() if "encoder" in name}
        ship(home.parent / "encoder", encoder, "Image encoder of the 2D prior", said, found)
        said = f"`ParsingDiscriminator`: {images} to logits of classes and of made up.{onward}"
        found = {"parameters (million)": sum(p.numel() for p in self.D.parameters()) / 1e6}
        ship(home.parent / "discriminator", self.D, "Discriminator of the 2D prior", said, found)

    def finished(self, result: LoopResult) -> Any:
        """The averaged G as it ships: its own mapping network, a typical code as w_avg.

        The average holds a trace of what the mapping network was before it was fitted and frozen.
        """
        G = result.ema["generator"]
        mapping_of(G).load_state_dict(mapping_of(self.G).state_dict())
        if not self.keeps_codes:
            set_typical_latent(G)
        return G.half().float()  # what is shipped is what is measured


def mapping_of(G: Any) -> StyleMapping:
    """The mapping network of a generator of pictures or of heads."""
    return getattr(G, "backbone", G).mapping


def widened(state: dict[str, Tensor], G: Any) -> dict[str, Tensor]:
    """The weights of a narrower generator as those of a wider one that draws the same pictures.

    More channels keep the values that G was built with; what was there before does not read them
    yet (our choice, after Net2Net, arXiv 1511.05641). Other networks' weights stay as they are.

    Args:
        state: a generator's weights
        G:     the wider generator, as it was built
    """
    if not isinstance(G, StyleGAN2Generator):
        return state
    wide = {name: value.clone() for name, value in G.state_dict().items()}
    for name, value in state.items():
        into = wide.get(name)
        if (
            into is None
            or into.ndim != value.ndim
            or any(more < few for more, few in zip(into.shape, value.shape, strict=True))
        ):
            return state  # loading it says what does not fit
        if value.ndim == 4:
            into[: len(value), value.shape[1] :] = 0
            if "torgb" in name:  # not demodulated, and its gain falls with the number of channels
                value = value * (into.shape[1] / value.shape[1]) ** 0.5
        into[tuple(map(slice, value.shape))] = value
    return wide


def shrunk(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) → (B, C, side, side), each pixel the mean of those that it covers."""
    return F.avg_pool2d(x, x.shape[-1] // side)


def pyramid_loss(
    image: Tensor, target: Tensor, weights: tuple[float, ...], places: Tensor
) -> Tensor:
    """L1 of colours and of their horizontal and vertical differences, from fine to coarse.

    Args:
        places: (B, 1, H, W) weights of the pixels
    """
    difference, loss = (image - target) * places / places.mean(), image.new_zeros([])
    for weight in weights:
        edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()
        loss = loss + weight * (difference.abs().mean() + edges)
        difference = F.avg_pool2d(difference, 2)
    return loss
