"""One optimisation step of the 2D prior's two phases; see `stylegan2`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.adaptive_augmentation import AdaptiveAugmentation
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.face_parts import FEATURES, region
from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.latent_prior import PriorFit, fit_prior
from data_prep.priors.recipe import Recipe, Settings
from data_prep.priors.stylegan2_measurements import set_mean_latent
from dmgi_lib.devices import moved
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.critics import FeatureDiscriminator, adversarial_losses
from dmgi_lib.training.losses import ParsingLoss, PerceptualLoss, SharedFeatures
from dmgi_lib.training.run_files import Logged

FINE_TO_COARSE_A = (1.0, 1.0, 1.0, 1.0, 1.0)
FINE_TO_COARSE_B = (0.25, 0.5, 1.0, 1.0, 1.0)  # fine detail is D's to judge


@dataclass(frozen=True)
class StyleGAN2Settings(Settings):
    """Sizes, and losses of the two phases; weights are our choice unless a paper is named.

    Args:
        generator: arguments of StyleGAN2Generator
        warmup_images: images of phase A
        growth: (resolution, share of phase A until which it is trained), the rest is trained in
            full; as in progressive growing (arXiv 1710.10196), on skip outputs
        warmup_rate: factor on the learning rate in phase A
        ramp_images: images over which phase B's adversarial weight rises to 1
        encoded_share: share of phase B's batch that comes from the encoder
        code_noise: σ of the noise on encoded z in phase A; a third of it in phase B
        prior_images: whose codes the mapping network learns to draw
        prior: how it learns that
        truncated_share: share of phase B's samples that are pulled towards the mean latent: an
            encoder that is unsure writes such codes
        lowest_psi: how far they are pulled at most
        part_weight: weight of pixels of eyes, brows and mouth; others have 1
        offset_share: share of encoded samples that use W+ offsets
        mixing: probability of style mixing on sampled z (StyleGAN, Sec. 3.1)
        r1_gamma: weight of R1
        r1_interval: steps between two R1 steps (lazy regularisation, StyleGAN2 App. B)
        offset_weight: of the mean square of the W+ offsets in phase A
        reconstruction_weight: of the pixel L1 in phase B
        feature_weight: of the D-feature L1 in phase B
        perceptual_weight: of the loss network's feature distance, on reconstructions
        parsing_weight: of its parsing's cross-entropy, on reconstructions
    """

    minutes: float = 130.0
    batch_size: int = 16
    learning_rate: float = 0.002
    cooldown: float = 0.1
    generator: Suppress[dict[str, Any]] = field(
        default_factory=lambda: {
            "z_dim": 128,
            "w_dim": 128,
            "img_resolution": 128,
            "mapping_layers": 4,
            "channel_base": 2048,
            "channel_max": 128,
        }
    )
    warmup_images: int = 128_000
    growth: Suppress[tuple[tuple[int, float], ...]] = ((32, 0.28), (64, 0.56))
    warmup_rate: float = 3.0
    ramp_images: int = 8_000
    encoded_share: float = 0.5
    code_noise: float = 0.1
    prior_images: int = 6000
    prior: Suppress[PriorFit] = field(default_factory=PriorFit)
    truncated_share: float = 0.5
    lowest_psi: float = 0.4
    part_weight: float = 4.0
    offset_share: float = 0.5
    mixing: float = 0.5
    r1_gamma: float = 0.5
    r1_interval: int = 16
    offset_weight: float = 0.1
    reconstruction_weight: float = 2.0
    feature_weight: float = 1.0
    perceptual_weight: float = 1.0
    parsing_weight: float = 0.2

    def __post_init__(self) -> None:
        if self.batch_size < 8 or self.batch_size % 8:
            raise ValueError(
                f"--batch-size came as {self.batch_size}; expected a multiple of 8, for halves and"
                " groups of four."
            )


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


class StyleGAN2Phases(Recipe[StyleGAN2Settings]):
    """The step of the phase that its number falls into; `stylegan2` builds the networks."""

    G: Any  # a StyleGAN2Generator, or what has its mapping
    encoder: ImageEncoder
    D: Discriminator
    feature_D: FeatureDiscriminator
    augmentation: AdaptiveAugmentation
    loss_net: Recognizer
    perceptual: PerceptualLoss
    parsing: ParsingLoss
    opt_G: torch.optim.Optimizer  # of the encoder, too
    opt_D: torch.optim.Optimizer

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, rows = self.settings, self.rows(len(self.train_set), step)
        mirrored = torch.rand(len(rows), generator=rng) < 0.5
        real, mask = self.mirrored_pictures(rows, mirrored)
        for name, noise in self.G.named_buffers():
            if name.endswith("noise_const"):  # fresh each step, shared by the batch: fast
                noise.copy_(moved(torch.randn(noise.shape, generator=rng), noise.device))
        seen = step * settings.batch_size - settings.warmup_images
        if seen < 0:
            resolution = self.warmup_resolution(step * settings.batch_size)
            return self.reconstruct(real, mask, resolution, rng)
        if seen < settings.batch_size:  # the first step of phase B
            images = self.train_set.images[: settings.prior_images]
            fit_prior(self.G.mapping, self.encoder, images, rng, settings.prior)
            self.agree(self.G.mapping)
            set_mean_latent(self.G)
        # A few images a step are too few to move the encoder: its codes fell together in trials.
        # The mapping network left the codes when it played, and G drew what it had never learnt.
        self.encoder.requires_grad_(False)
        self.G.mapping.requires_grad_(False)
        return self.play(real, mask, step, min(1.0, seen / settings.ramp_images), rng)

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
        _set_beta1(self.opt_G, 0.9)
        for group in self.opt_G.param_groups:
            group["lr"] *= self.settings.warmup_rate
        log: dict[str, Tensor] = {}
        for part, part_mask in zip(real.chunk(2), mask.chunk(2), strict=True):
            ws, offsets = self.encode(part, self.settings.code_noise, rng)
            offset_loss = self.settings.offset_weight * offsets.square().mean()
            with self.autocast():
                image = self.G.synthesis(ws, resolution=resolution)
            target = F.avg_pool2d(part, part.shape[-1] // resolution)
            weights = FINE_TO_COARSE_A[: resolution.bit_length() - 3]  # down to 8 pixels
            places = F.avg_pool2d(self.places(part_mask), part.shape[-1] // resolution)
            pixels = pyramid_loss(image, target, weights, places)
            log |= {"reconstruction": pixels.detach(), "offsets": offset_loss.detach()}
            loss = pixels + offset_loss
            if resolution == part.shape[-1]:
                seen, seen_log = self.recognised(image, part, part_mask)
                loss, log = loss + seen, log | seen_log
            self.update(loss, optimizer=self.opt_G)
        return log

    def warmup_resolution(self, seen: int) -> int:
        """Where phase A reconstructs after that many images: it grows as faces take shape."""
        share, final = seen / self.settings.warmup_images, self.G.synthesis.resolutions[-1]
        for resolution, until in self.settings.growth:
            if share < until and resolution < final:
                return resolution
        return final

    def play(
        self,
        real: Tensor,
        mask: Tensor,
        step: int,
        adversarial_weight: float,
        rng: torch.Generator,
    ) -> Logged:
        """Phase B: D's step, every `r1_interval` steps R1, then G's step on the same fakes."""
        settings, batch = self.settings, len(real)
        _set_beta1(self.opt_G, 0.0)
        count = max(1, int(batch * settings.encoded_share))
        ws, _ = self.encode(real[:count], settings.code_noise / 3, rng)
        with self.autocast():
            fake = self.G.synthesis(torch.cat([ws, self.draw_codes(batch - count, rng)]))

        log = self.discriminate(real, fake, step, rng)
        judged, judged_log = self.judge(fake, real, count, adversarial_weight, rng)
        places = self.places(mask[:count])
        pixels = pyramid_loss(fake[:count], real[:count], FINE_TO_COARSE_B, places)
        seen, seen_log = self.recognised(fake[:count], real[:count], mask[:count])
        loss = judged + seen + settings.reconstruction_weight * pixels
        self.update(loss, optimizer=self.opt_G)
        return log | judged_log | {"reconstruction": pixels.detach()} | seen_log

    def discriminate(
        self,
        real: Tensor,
        fake: Tensor,
        step: int,
        rng: torch.Generator,
        c: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """A step of both discriminators and, every `r1_interval` steps, R1; numbers to log.

        Args:
            real, fake: (B, 3 or more, H, W), of which the loss network reads the first three
            c: (B, c_dim), of both
        """
        settings, batch = self.settings, len(real)
        self.D.requires_grad_(True)
        self.feature_D.requires_grad_(True)
        augmented, generated = self._augment(real, rng), self._augment(fake.detach(), rng)
        with self.autocast():
            logits_real, logits_fake = self.D(augmented, c), self.D(generated, c)
            with torch.no_grad():
                real_features = self.loss_net.features(augmented[:, :3].float())[1:]
                fake_features = self.loss_net.features(generated[:, :3].float())[1:]
            places_real, places_fake = self.feature_D(real_features), self.feature_D(fake_features)
        loss_D = adversarial_losses(logits_real, logits_fake)
        loss_features = adversarial_losses(places_real, places_fake)
        self.update(loss_D + loss_features, optimizer=self.opt_D)
        self.augmentation.observe(logits_real.detach(), step)
        log = {"D": loss_D.detach(), "D_features": loss_features.detach()}
        log["ada_p"] = self.augmentation.p.clone()  # it moves before the log is read
        log["sign_real"] = logits_real.detach().sign().mean()
        if step % settings.r1_interval == 0:
            log["r1"] = self._r1_step(
                augmented[: batch // 2], None if c is None else c[: batch // 2]
            )
        return log

    def judge(
        self,
        fake: Tensor,
        real: Tensor,
        count: int,
        adversarial_weight: float,
        rng: torch.Generator,
        c: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What both discriminators find wrong with fakes: weighted loss, numbers to log.

        Args:
            count: of the first fakes, that are reconstructions of the first of `real`
        """
        self.D.requires_grad_(False)
        self.feature_D.requires_grad_(False)
        draw = self.augmentation.draw(len(fake), rng)
        with self.autocast():
            generated = self.augmentation(fake, draw)
            features = self.D.features(generated)
            logits = self.D.head(features, c)
            places = self.feature_D(self.loss_net.features(generated[:, :3].float())[1:])
            with torch.no_grad():
                wanted = self.D.features(self.augmentation(real[:count], draw.first(count)))
        loss_G, loss_places = F.softplus(-logits).mean(), F.softplus(-places).mean()
        pairs = zip(features, wanted, strict=True)
        matching = torch.stack([F.l1_loss(f[:count].float(), w.float()) for f, w in pairs]).sum()
        loss = adversarial_weight * (loss_G + loss_places) + self.settings.feature_weight * matching
        log = {"G": loss_G.detach(), "G_features": loss_places.detach()}
        return loss, log | {"matching": matching.detach()}

    def _augment(self, image: Tensor, rng: torch.Generator) -> Tensor:
        return self.augmentation(image, self.augmentation.draw(len(image), rng))

    def _r1_step(self, real: Tensor, c: Tensor | None) -> Tensor:
        """γ/2 E‖∇D(real)‖² in fp32, on half the batch, weighted by the interval."""
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.D(real, c).sum(), real, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        weight = self.settings.r1_gamma / 2 * self.settings.r1_interval
        self.update(penalty * weight, optimizer=self.opt_D)
        return penalty.detach()


def _set_beta1(optimizer: torch.optim.Optimizer, beta1: float) -> None:
    for group in optimizer.param_groups:
        group["betas"] = (beta1, group["betas"][1])
