"""Trains the 2D prior: StyleGAN2 (arXiv 1912.04958) with ADA (arXiv 2006.06676), warm-started.

Phase A, the first `warmup_images`: an image encoder and G learn together as an autoencoder; then a
Gaussian is fitted to its codes and becomes the prior.
Phase B: non-saturating loss and lazy R1 on samples and reconstructions alike; a quarter of each
batch stays reconstructions, so that the training faces remain invertible. The warm start and the
reconstruction terms are our choice (not specified in the paper's available sources).

    python -m data_prep.priors.train_stylegan2 --data ~/.cache/dmgi/faces128 --minutes 130
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.adaptive_augmentation import AdaptiveAugmentation
from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import loop_config, parser
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.image_encoder import ImageEncoder, noisy_code
from data_prep.priors.stylegan2_measurements import grid_sampler, measure, set_mean_latent
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.generators.stylegan2_layers import FullyConnectedLayer
from dmgi_lib.training.loop import LoopConfig, LoopResult, batch_indices, run

Modules = dict[str, nn.Module]


@dataclass(frozen=True)
class Recipe:
    """Losses of the two phases; weights are our choice unless a paper is named.

    Args:
        warmup_images:   images of phase A
        ramp_images:     images over which phase B's adversarial weight rises to 1
        encoded_share:   share of phase B's batch that comes from the encoder
        code_noise:      σ of the noise on encoded z in phase A; a third of it in phase B
        prior_images, prior_ridge: of the Gaussian's fit
        offset_share:    share of encoded samples that use W+ offsets
        mixing:          probability of style mixing on sampled z (StyleGAN, Sec. 3.1)
        r1_gamma:        weight of R1
        r1_interval:     steps between two R1 steps (lazy regularisation, StyleGAN2 App. B)
        code_weight:     of the distance of the codes from the prior in phase B
        offset_weight:   of the mean square of the W+ offsets
        reconstruction_weight, feature_weight: of the pixel and the D-feature L1 in phase B
        bf16:            autocast; logits, R1 and styles stay fp32
    """

    warmup_images: int = 28_000
    ramp_images: int = 8_000
    encoded_share: float = 0.25
    code_noise: float = 0.1
    prior_images: int = 1024
    prior_ridge: float = 0.02
    offset_share: float = 0.5
    mixing: float = 0.5
    r1_gamma: float = 0.5
    r1_interval: int = 16
    code_weight: float = 0.02
    offset_weight: float = 0.1
    reconstruction_weight: float = 2.0
    feature_weight: float = 1.0
    bf16: bool = True


def pyramid_loss(image: Tensor, target: Tensor, weights: tuple[float, ...]) -> Tensor:
    """L1 of colours and of their horizontal and vertical differences, from fine to coarse."""
    difference, loss = image - target, image.new_zeros([])
    for weight in weights:
        edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()
        loss = loss + weight * (difference.abs().mean() + edges)
        difference = F.avg_pool2d(difference, 2)
    return loss


class StyleGAN2Step:
    """One optimisation step of the phase that `step` falls into.

    Args:
        images:  uint8 (N, 3, H, W) training images
        modules: generator, encoder, discriminator, augmentation
        optimizers: generator (with the encoder) and discriminator
    """

    fine_to_coarse_a = (1.0, 1.0, 1.0, 1.0, 1.0)
    fine_to_coarse_b = (0.25, 0.5, 1.0, 1.0, 1.0)  # fine detail is D's to judge

    def __init__(
        self,
        images: Tensor,
        modules: Modules,
        optimizers: dict[str, torch.optim.Optimizer],
        recipe: Recipe,
        config: LoopConfig,
    ) -> None:
        self.images, self.recipe, self.config = images, recipe, config
        self.G = cast(StyleGAN2Generator, modules["generator"])
        self.D = cast(Discriminator, modules["discriminator"])
        self.encoder = cast(ImageEncoder, modules["encoder"])
        self.augmentation = cast(AdaptiveAugmentation, modules["augmentation"])
        self.opt_G, self.opt_D = optimizers["generator"], optimizers["discriminator"]
        self.noise_maps = [b for n, b in self.G.named_buffers() if n.endswith("noise_const")]

    def __call__(self, step: int, rng: torch.Generator) -> dict[str, float]:
        batch_size = self.config.batch_size
        indices = batch_indices(len(self.images), batch_size, step, self.config.seed)
        real = to_float(self.images[indices])
        mirrored = torch.rand(batch_size, generator=rng) < 0.5
        real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        for noise in self.noise_maps:  # fresh noise each step, shared by the batch: fast
            noise.normal_(generator=rng)
        seen = step * batch_size - self.recipe.warmup_images
        if seen < 0:
            return self.reconstruct(real, rng)
        if seen < batch_size:  # the first step of phase B
            first_layer = cast(FullyConnectedLayer, self.G.mapping.fc0)
            images = to_float(self.images[: self.recipe.prior_images])
            self.encoder.fit_prior(images, first_layer, self.recipe.prior_ridge)
        return self.play(real, step, min(1.0, seen / self.recipe.ramp_images), rng)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16)

    def encode(
        self, real: Tensor, sigma: float, code_weight: float, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images → ws, and the loss that keeps codes near the prior and offsets small."""
        with self.autocast():
            z, offsets = self.encoder(real)
        used = torch.rand(len(z), 1, 1, generator=rng) < self.recipe.offset_share
        ws = self.G.mapping(noisy_code(z, sigma, rng)) + offsets * used
        loss = self.recipe.offset_weight * offsets.square().mean()
        if code_weight:
            loss = loss + code_weight * self.encoder.code_distance(z, rng)
        return ws, loss

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """ws of `count` random z, some with style mixing."""
        num_ws = self.G.num_ws
        z = torch.randn(2 * count, self.G.config.z_dim, generator=rng)
        first, second = self.G.mapping(z).chunk(2)
        crossover = torch.randint(1, num_ws, (count, 1, 1), generator=rng)
        mixed = torch.rand(count, 1, 1, generator=rng) < self.recipe.mixing
        late = torch.arange(num_ws)[:, None] >= crossover
        return torch.where(late & mixed, second, first)

    def reconstruct(self, real: Tensor, rng: torch.Generator) -> dict[str, float]:
        """Phase A: autoencoder."""
        _set_beta1(self.opt_G, 0.9)
        ws, code_loss = self.encode(real, self.recipe.code_noise, 0.0, rng)
        with self.autocast():
            image = self.G.synthesis(ws)
        loss = pyramid_loss(image, real, self.fine_to_coarse_a)
        self.opt_G.zero_grad(set_to_none=True)
        (loss + code_loss).backward()
        self.opt_G.step()
        return {"reconstruction": loss.item(), "code": code_loss.item()}

    def play(
        self, real: Tensor, step: int, adversarial_weight: float, rng: torch.Generator
    ) -> dict[str, float]:
        """Phase B: D's step, every `r1_interval` steps R1, then G's step on the same fakes."""
        recipe, batch = self.recipe, len(real)
        _set_beta1(self.opt_G, 0.0)
        count = max(1, int(batch * recipe.encoded_share))
        ws, code_loss = self.encode(real[:count], recipe.code_noise / 3, recipe.code_weight, rng)
        with self.autocast():
            fake = self.G.synthesis(torch.cat([ws, self.sample(batch - count, rng)]))

        self.D.requires_grad_(True)
        augmented = self.augmentation(real, self.augmentation.draw(batch, rng))
        with self.autocast():
            logits_real = self.D(augmented)
            logits_fake = self.D(self._augment(fake.detach(), rng))
        loss_D = F.softplus(logits_fake).mean() + F.softplus(-logits_real).mean()
        self.opt_D.zero_grad(set_to_none=True)
        loss_D.backward()
        self.opt_D.step()
        self.augmentation.observe(logits_real.detach(), step)
        log = {"D": loss_D.item(), "ada_p": self.augmentation.p.item()}
        log["sign_real"] = logits_real.detach().sign().mean().item()
        if step % recipe.r1_interval == 0:
            log["r1"] = self._r1_step(augmented[: batch // 2])

        self.D.requires_grad_(False)
        draw = self.augmentation.draw(batch, rng)
        with self.autocast():
            features = self.D.features(self.augmentation(fake, draw))
            logits = self.D.head(features)
            with torch.no_grad():
                wanted = self.D.features(self.augmentation(real[:count], draw.first(count)))
        loss_G = F.softplus(-logits).mean()
        pixels = pyramid_loss(fake[:count], real[:count], self.fine_to_coarse_b)
        pairs = zip(features, wanted, strict=True)
        matching = torch.stack([F.l1_loss(f[:count].float(), w.float()) for f, w in pairs]).sum()
        loss = adversarial_weight * loss_G + code_loss
        loss = loss + recipe.reconstruction_weight * pixels + recipe.feature_weight * matching
        self.opt_G.zero_grad(set_to_none=True)
        loss.backward()
        self.opt_G.step()
        log |= {"G": loss_G.item(), "reconstruction": pixels.item(), "matching": matching.item()}
        return log | {"code": code_loss.item()}

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


def build(recipe: Recipe, config: LoopConfig) -> tuple[Modules, dict[str, torch.optim.Optimizer]]:
    """Networks of the mini preset and their Adams (β2 corrected for lazy R1, StyleGAN2 App. B)."""
    torch.manual_seed(config.seed)
    G = StyleGAN2Generator(
        z_dim=128,
        c_dim=0,
        w_dim=128,
        img_resolution=128,
        mapping_layers=4,
        channel_base=2048,
        channel_max=128,
    )
    modules: Modules = {
        "generator": G,
        "encoder": ImageEncoder(128, G.num_ws, 128, 128),
        "discriminator": Discriminator(128, 3, channel_base=2048, channel_max=128),
        "augmentation": AdaptiveAugmentation(),
    }
    lazy = recipe.r1_interval / (recipe.r1_interval + 1)
    parameters_G = [*G.parameters(), *modules["encoder"].parameters()]
    parameters_D = modules["discriminator"].parameters()
    rate = config.learning_rate
    optimizers: dict[str, torch.optim.Optimizer] = {
        "generator": torch.optim.Adam(parameters_G, rate, (0.9, 0.99), fused=True),
        "discriminator": torch.optim.Adam(parameters_D, rate * lazy, (0.0, 0.99**lazy), fused=True),
    }
    return modules, optimizers


def main(arguments: list[str] | None = None) -> LoopResult:
    cli = parser(__doc__ or "", "stylegan2", minutes=130, batch_size=16)
    cli.add_argument("--out", type=Path, help="folder of the exported G; default WEIGHTS/generator")
    cli.add_argument("--learning-rate", type=float, default=0.002, help="of G and D")
    cli.add_argument(
        "--warmup-images", type=int, default=Recipe.warmup_images, help="images of phase A"
    )
    cli.add_argument("--r1-gamma", type=float, default=Recipe.r1_gamma, help="weight of R1")
    cli.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    given = cli.parse_args(arguments)
    if given.batch_size < 8 or given.batch_size % 8:
        cli.error(f"--batch-size came as {given.batch_size}; expected a multiple of 8")
    config = loop_config(
        given,
        learning_rate=given.learning_rate,
        ema_half_life_steps=500,
        warmup_steps=100,
        cooldown=0.1,
    )
    recipe = Recipe(given.warmup_images, r1_gamma=given.r1_gamma, bf16=not given.fp32)
    train, test = FaceDataset(given.data, "train"), FaceDataset(given.data, "test")
    modules, optimizers = build(recipe, config)
    step_fn = StyleGAN2Step(train.images, modules, optimizers, recipe, config)
    sample_fn = grid_sampler(test.images)
    averages = ("generator", "encoder")
    result = run(config, modules, optimizers, step_fn, ema=averages, sample_fn=sample_fn)

    G = cast(StyleGAN2Generator, result.ema["generator"])
    set_mean_latent(G)
    G = G.half().float()  # what is shipped is what is measured
    measurements = measure(G, result.ema["encoder"], train.images, test.images)
    out = given.out or given.weights / "generator"
    save_whole(out, lambda folder: G.half().save_pretrained(folder))
    write_card(
        out,
        title="StyleGAN2 generator of the mini world",
        description="`StyleGAN2Generator`: z (B, 128) to ws (B, 12, 128) to images "
        "(B, 3, 128, 128) in [-1, 1]. Averaged weights. The first "
        f"{recipe.warmup_images} images were the autoencoder warm start. SWD is the sliced "
        "Wasserstein distance of 7x7 Laplacian-pyramid patches; lower is better.",
        command=command_line("data_prep.priors.train_stylegan2", arguments),
        seed=config.seed,
        result=result,
        batch_size=config.batch_size,
        training_images=len(train),
        measurements=measurements,
    )
    return result


if __name__ == "__main__":
    main()
