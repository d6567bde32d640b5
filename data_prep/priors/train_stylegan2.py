"""Trains the 2D prior: StyleGAN2 (arXiv 1912.04958) with ADA (arXiv 2006.06676), warm-started.

Phase A, the first `warmup_images`: an image encoder and G learn together as an autoencoder, at 32
and 64 pixels first, judged by pixels and, at full size, by the loss network's features and parsing;
then the mapping network learns to draw codes like the encoder's (`latent_prior`) and is held still.
Phase B: non-saturating loss and lazy R1 on samples and reconstructions alike, by a discriminator of
pixels and by one of the loss network's features (arXiv 2111.01007). Half of each batch stays
reconstructions, so that the training faces remain invertible; half of the samples are truncated, so
that codes near the mean draw sharp faces too. The warm start, the reconstruction terms and the
truncated samples are our choice (not specified in the paper's available sources).

    python -m data_prep.priors.train_stylegan2 --data ~/.cache/dmgi/faces128 --minutes 130
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from data_prep.priors.adaptive_augmentation import AdaptiveAugmentation
from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import loop_config, parser
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.feature_discriminator import FeatureDiscriminator
from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.stylegan2_measurements import grid_sampler, measure, set_typical_latent
from data_prep.priors.stylegan2_recipe import Recipe
from data_prep.priors.stylegan2_step import Modules, StyleGAN2Step
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.training.loop import LoopConfig, LoopResult, run
from dmgi_lib.weight_folder import required_part


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
        "encoder": ImageEncoder(128, G.num_ws, 128, 128, 4),
        "discriminator": Discriminator(128, 3, channel_base=2048, channel_max=128),
        "feature_discriminator": FeatureDiscriminator(),
        "augmentation": AdaptiveAugmentation(),
    }
    lazy = recipe.r1_interval / (recipe.r1_interval + 1)
    parameters_G = [*G.parameters(), *modules["encoder"].parameters()]
    rate = config.learning_rate
    parameters_D = [
        {"params": list(modules["discriminator"].parameters()), "lr": rate * lazy},
        {"params": list(modules["feature_discriminator"].parameters()), "lr": rate / 8},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "generator": torch.optim.Adam(parameters_G, rate, (0.9, 0.99), fused=True),
        "discriminator": torch.optim.Adam(parameters_D, rate, (0.0, 0.99**lazy), fused=True),
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
    loss_net = required_part(given.weights, "loss_net", "data_prep.priors.train_recognizers")
    networks = (modules, optimizers, recipe, config)
    step_fn = StyleGAN2Step(train.images, train.masks, loss_net, *networks)
    sample_fn = grid_sampler(test.images)
    averages = ("generator", "encoder")
    result = run(config, modules, optimizers, step_fn, ema=averages, sample_fn=sample_fn)

    G, trained = (cast(StyleGAN2Generator, x["generator"]) for x in (result.ema, modules))
    # The average holds a trace of what the mapping network was before it was fitted, then frozen.
    G.mapping.load_state_dict(trained.mapping.state_dict())
    set_typical_latent(G)
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
