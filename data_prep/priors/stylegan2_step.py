"""One optimisation step of the 2D prior's two phases; see `train_stylegan2`."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.adaptive_augmentation import AdaptiveAugmentation
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.face_parts import FEATURES, region
from data_prep.priors.feature_discriminator import FeatureDiscriminator, adversarial_losses
from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.latent_prior import fit_prior
from data_prep.priors.stylegan2_measurements import set_mean_latent
from data_prep.priors.stylegan2_recipe import Recipe
from dmgi_lib.dataset import to_float
from dmgi_lib.devices import autocast
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.masks import flip_mask
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopConfig, batch_indices
from dmgi_lib.training.losses import ParsingLoss, PerceptualLoss, SharedFeatures

Modules = dict[str, nn.Module]


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


class StyleGAN2Step:
    """One optimisation step of the phase that `step` falls into.

    Args:
        images:  uint8 (N, 3, H, W) training images
        masks:   uint8 (N, H, W) their class ids
        loss_net: frozen Recognizer behind the perceptual and the parsing loss
        modules: generator, encoder, discriminator, augmentation
        optimizers: generator (with the encoder) and discriminator
    """

    fine_to_coarse_a = (1.0, 1.0, 1.0, 1.0, 1.0)
    fine_to_coarse_b = (0.25, 0.5, 1.0, 1.0, 1.0)  # fine detail is D's to judge

    def __init__(
        self,
        images: Tensor,
        masks: Tensor,
        loss_net: Recognizer,
        modules: Modules,
        optimizers: dict[str, torch.optim.Optimizer],
        recipe: Recipe,
        config: LoopConfig,
    ) -> None:
        self.images, self.masks, self.recipe, self.config = images, masks, recipe, config
        self.loss_net = loss_net.eval().requires_grad_(False)
        self.perceptual, self.parsing = PerceptualLoss(loss_net), ParsingLoss(loss_net)
        self.G = cast(StyleGAN2Generator, modules["generator"])
        self.D = cast(Discriminator, modules["discriminator"])
        self.encoder = cast(ImageEncoder, modules["encoder"])
        self.feature_D = cast(FeatureDiscriminator, modules["feature_discriminator"])
        self.augmentation = cast(AdaptiveAugmentation, modules["augmentation"])
        self.opt_G, self.opt_D = optimizers["generator"], optimizers["discriminator"]
        self.noise_maps = [b for n, b in self.G.named_buffers() if n.endswith("noise_const")]

    def __call__(self, step: int, rng: torch.Generator) -> dict[str, float]:
        batch_size = self.config.batch_size
        indices = batch_indices(len(self.images), batch_size, step, self.config.seed)
        real = to_float(self.images[indices])
        mirrored = torch.rand(batch_size, generator=rng) < 0.5
        real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        mask = self.masks[indices]
        mask = torch.where(mirrored[:, None, None], flip_mask(mask), mask)
        for noise in self.noise_maps:  # fresh noise each step, shared by the batch: fast
            noise.normal_(generator=rng)
        seen = step * batch_size - self.recipe.warmup_images
        if seen < 0:
            resolution = self.warmup_resolution(step * batch_size)
            return self.reconstruct(real, mask, resolution, rng)
        if seen < batch_size:  # the first step of phase B
            images = self.images[: self.recipe.prior_images]
            fit_prior(self.G.mapping, self.encoder, images, rng, self.recipe.prior)
            set_mean_latent(self.G)
        # A few images a step are too few to move the encoder: its codes fell together in trials.
        # The mapping network left the codes when it played, and G drew what it had never learnt.
        self.encoder.requires_grad_(False)
        self.G.mapping.requires_grad_(False)
        return self.play(real, mask, step, min(1.0, seen / self.recipe.ramp_images), rng)

    def places(self, mask: Tensor) -> Tensor:
        """(B, H, W) class ids → (B, 1, H, W) weights of pixels."""
        return 1.0 + (self.recipe.part_weight - 1.0) * region(mask, FEATURES)

    def autocast(self) -> torch.autocast:
        return autocast("cpu", enabled=self.recipe.bf16)

    def encode(self, real: Tensor, sigma: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images → ws (from z with noise σ) and the W+ offsets that some of them carry."""
        with self.autocast():
            ws, offsets = self.encoder(real, sigma, rng)
        used = torch.rand(len(ws), 1, 1, generator=rng) < self.recipe.offset_share
        return ws + offsets * used, offsets

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """ws of `count` random z, some with style mixing, some truncated."""
        num_ws = self.G.num_ws
        z = torch.randn(2 * count, self.G.config.z_dim, generator=rng)
        first, second = self.G.mapping(z).chunk(2)
        crossover = torch.randint(1, num_ws, (count, 1, 1), generator=rng)
        mixed = torch.rand(count, 1, 1, generator=rng) < self.recipe.mixing
        late = torch.arange(num_ws)[:, None] >= crossover
        ws = torch.where(late & mixed, second, first)
        psi = 1.0 - (1.0 - self.recipe.lowest_psi) * torch.rand(count, 1, 1, generator=rng)
        pulled = torch.rand(count, 1, 1, generator=rng) < self.recipe.truncated_share
        return torch.where(pulled, self.G.mean_latent.lerp(ws, psi), ws)

    def recognised(
        self, image: Tensor, real: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """What the loss network finds missing in reconstructions: weighted loss, numbers to log."""
        with self.autocast(), SharedFeatures(self.loss_net):
            perceptual = self.perceptual(image, real).mean()
            parsing = self.parsing(image, mask).mean()
        loss = self.recipe.perceptual_weight * perceptual + self.recipe.parsing_weight * parsing
        return loss, {"perceptual": perceptual.item(), "parsing": parsing.item()}

    def reconstruct(
        self, real: Tensor, mask: Tensor, resolution: int, rng: torch.Generator
    ) -> dict[str, float]:
        """Phase A: autoencoder, in two updates a batch, for updates are what it lacks."""
        _set_beta1(self.opt_G, 0.9)
        for group in self.opt_G.param_groups:
            group["lr"] *= self.recipe.warmup_rate
        log: dict[str, float] = {}
        for part, part_mask in zip(real.chunk(2), mask.chunk(2), strict=True):
            ws, offsets = self.encode(part, self.recipe.code_noise, rng)
            offset_loss = self.recipe.offset_weight * offsets.square().mean()
            with self.autocast():
                image = self.G.synthesis(ws, resolution=resolution)
            target = F.avg_pool2d(part, part.shape[-1] // resolution)
            weights = self.fine_to_coarse_a[: resolution.bit_length() - 3]  # down to 8 pixels
            places = F.avg_pool2d(self.places(part_mask), part.shape[-1] // resolution)
            pixels = pyramid_loss(image, target, weights, places)
            log |= {"reconstruction": pixels.item(), "offsets": offset_loss.item()}
            loss = pixels + offset_loss
            if resolution == part.shape[-1]:
                seen, seen_log = self.recognised(image, part, part_mask)
                loss, log = loss + seen, log | seen_log
            self.opt_G.zero_grad(set_to_none=True)
            loss.backward()
            self.opt_G.step()
        return log

    def warmup_resolution(self, seen: int) -> int:
        """Where phase A reconstructs after that many images: it grows as faces take shape."""
        share, final = seen / self.recipe.warmup_images, self.G.synthesis.resolutions[-1]
        for resolution, until in self.recipe.growth:
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
    ) -> dict[str, float]:
        """Phase B: D's step, every `r1_interval` steps R1, then G's step on the same fakes."""
        recipe, batch = self.recipe, len(real)
        _set_beta1(self.opt_G, 0.0)
        count = max(1, int(batch * recipe.encoded_share))
        ws, _ = self.encode(real[:count], recipe.code_noise / 3, rng)
        with self.autocast():
            fake = self.G.synthesis(torch.cat([ws, self.sample(batch - count, rng)]))

        self.D.requires_grad_(True)
        self.feature_D.requires_grad_(True)
        augmented, generated = self._augment(real, rng), self._augment(fake.detach(), rng)
        with self.autocast():
            logits_real, logits_fake = self.D(augmented), self.D(generated)
            with torch.no_grad():
                real_features = self.loss_net.features(augmented.float())[1:]
                fake_features = self.loss_net.features(generated.float())[1:]
            places_real, places_fake = self.feature_D(real_features), self.feature_D(fake_features)
        loss_D = adversarial_losses(logits_real, logits_fake)
        loss_features = adversarial_losses(places_real, places_fake)
        self.opt_D.zero_grad(set_to_none=True)
        (loss_D + loss_features).backward()
        self.opt_D.step()
        self.augmentation.observe(logits_real.detach(), step)
        log = {"D": loss_D.item(), "D_features": loss_features.item()}
        log["ada_p"] = self.augmentation.p.item()
        log["sign_real"] = logits_real.detach().sign().mean().item()
        if step % recipe.r1_interval == 0:
            log["r1"] = self._r1_step(augmented[: batch // 2])

        self.D.requires_grad_(False)
        self.feature_D.requires_grad_(False)
        draw = self.augmentation.draw(batch, rng)
        with self.autocast():
            generated = self.augmentation(fake, draw)
            features = self.D.features(generated)
            logits = self.D.head(features)
            places = self.feature_D(self.loss_net.features(generated.float())[1:])
            with torch.no_grad():
                wanted = self.D.features(self.augmentation(real[:count], draw.first(count)))
        loss_G, loss_places = F.softplus(-logits).mean(), F.softplus(-places).mean()
        places = self.places(mask[:count])
        pixels = pyramid_loss(fake[:count], real[:count], self.fine_to_coarse_b, places)
        pairs = zip(features, wanted, strict=True)
        matching = torch.stack([F.l1_loss(f[:count].float(), w.float()) for f, w in pairs]).sum()
        seen, seen_log = self.recognised(fake[:count], real[:count], mask[:count])
        loss = adversarial_weight * (loss_G + loss_places) + seen
        loss = loss + recipe.reconstruction_weight * pixels + recipe.feature_weight * matching
        self.opt_G.zero_grad(set_to_none=True)
        loss.backward()
        self.opt_G.step()
        log |= {"G": loss_G.item(), "G_features": loss_places.item()}
        log |= {"reconstruction": pixels.item(), "matching": matching.item()}
        return log | seen_log

    def _augment(self, image: Tensor, rng: torch.Generator) -> Tensor:
        return self.augmentation(image, self.augmentation.draw(len(image), rng))

    def _r1_step(self, real: Tensor) -> float:
        """γ/2 E‖∇D(real)‖² in fp32, on half the batch, weighted by the interval."""
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.D(real).sum(), real, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        self.opt_D.zero_grad(set_to_none=True)
        (penalty * (self.recipe.r1_gamma / 2 * self.recipe.r1_interval)).backward()
        self.opt_D.step()
        return penalty.item()


def _set_beta1(optimizer: torch.optim.Optimizer, beta1: float) -> None:
    for group in optimizer.param_groups:
        group["betas"] = (beta1, group["betas"][1])
