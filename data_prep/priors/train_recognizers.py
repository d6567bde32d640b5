"""Train the loss network and the three judges of the evaluation protocol, one at a time.

    python -m data_prep.priors.train_recognizers --which judge_parser --minutes 9

The loss network and the judges never share weights, architecture or seed. Losses, weights and
schedules are our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers.models.modeling_utils import ModelMixin

from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import loop_config, parser
from data_prep.priors.recognizer_augmentation import augment
from data_prep.priors.recognizer_losses import (
    Losses,
    Targets,
    attribute_losses,
    identity_losses,
    loss_net_losses,
    parser_losses,
)
from data_prep.priors.recognizer_measurements import MEASURE, hair_color_names, measure_hair_pixels
from data_prep.priors.start import add_start, start_from
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import autocast
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.recognizers import AttributeJudge, IdentityJudge, ParserJudge, Recognizer
from dmgi_lib.training.loop import LoopConfig, LoopResult, batch_indices, run


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        build:        makes the network.
        losses:       (network, images, masks, rows of the training set, targets) → named losses.
        seed:         of weights, batches and augmentation; another one for each network.
        color_jitter: see `augment`; 0 where hair or skin colour is a label.
        weight_decay: of AdamW.
        minutes:      default time budget.
    """

    build: Callable[[], ModelMixin]
    losses: Callable[..., Losses]
    seed: int
    color_jitter: float = 0.0
    weight_decay: float = 0.02
    minutes: float = 9.0


RECIPES: dict[str, Recipe] = {
    "loss_net": Recipe(Recognizer, loss_net_losses, seed=10, minutes=24.0),
    "judge_parser": Recipe(ParserJudge, parser_losses, seed=21, color_jitter=0.15),
    "judge_attributes": Recipe(AttributeJudge, attribute_losses, seed=32, minutes=60.0),
    "judge_identity": Recipe(IdentityJudge, identity_losses, seed=43, weight_decay=0.05),
}


def make_step(
    recipe: Recipe,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    targets: Targets,
    batch_size: int,
    seed: int,
) -> Callable[[int, torch.Generator], dict[str, float]]:
    """The step function for `dmgi_lib.training.loop.run`."""
    images, masks = targets.dataset.images, targets.dataset.masks

    def step_fn(step: int, rng: torch.Generator) -> dict[str, float]:
        rows = batch_indices(len(images), batch_size, step, seed)
        x, m = augment(images[rows], masks[rows], rng, recipe.color_jitter)
        network.train()
        with autocast("cpu"):
            losses = recipe.losses(
                network, x.contiguous(memory_format=torch.channels_last), m, rows, targets
            )
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    return step_fn


def build(
    recipe: Recipe, seed: int, learning_rate: float
) -> tuple[ModelMixin, torch.optim.Optimizer]:
    """Network with weights drawn from `seed`, and its optimizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = recipe.build()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    return network, optimizer


def train(
    which: str,
    dataset: FaceDataset,
    config: LoopConfig,
    recipe: Recipe | None = None,
    start: Path | None = None,
) -> tuple[torch.nn.Module, LoopResult]:
    """Train or resume one network, from `start` or from nothing; its averaged copy, for eval."""
    recipe = recipe or RECIPES[which]
    network, optimizer = build(recipe, config.seed, config.learning_rate)
    start_from(network, start)
    step_fn = make_step(
        recipe, network, optimizer, Targets(dataset), config.batch_size, config.seed
    )
    result = run(config, {which: network}, {which: optimizer}, step_fn, ema=(which,))
    return result.ema[which], result


DESCRIPTIONS: dict[str, tuple[str, str]] = {
    "loss_net": (
        "Loss network of the mini world",
        "`Recognizer`: images (B, 3, 128, 128) in [-1, 1] to features, identity, parsing (64 px), "
        "attributes. Used in training losses, never in evaluation. Its parsing is measured "
        "enlarged to 128 px.",
    ),
    "judge_parser": (
        "Parser judge of the mini world",
        "`ParserJudge`: images (B, 3, 128, 128) in [-1, 1] to 19-class maps at 128 px. Used in "
        "evaluation, never in losses.",
    ),
    "judge_attributes": (
        "Attribute judge of the mini world",
        "`AttributeJudge`: images (B, 3, 128, 128) in [-1, 1] to 43 attributes and the hair "
        "colour. Used in evaluation, never in losses. `hair_colors.json` holds the reference "
        "colours of `hair_color_by_pixels`, measured on the training "
        "images. White hair counts as gray.",
    ),
    "judge_identity": (
        "Identity judge of the mini world",
        "`IdentityJudge`: images (B, 3, 128, 128) in [-1, 1] to the head shape (48) and skin tone "
        "(1). Used in evaluation, never in losses. Different pairs: a first and a second view.",
    ),
}


def export(
    which: str,
    network: torch.nn.Module,
    result: LoopResult,
    config: LoopConfig,
    train_set: FaceDataset,
    test_set: FaceDataset,
    out: Path,
    command: str,
) -> dict[str, float]:
    """Write fp16 weights and the card; what is shipped is what is measured."""
    network.half().float()
    found = MEASURE[which](network, test_set)
    halved = cast(ModelMixin, network.half())
    save_whole(out, halved.save_pretrained)
    if which == "judge_attributes":
        reference = HairColorReference.fit(
            to_float(train_set.images), train_set.masks, hair_color_names(train_set)
        )
        reference.save(out / "hair_colors.json")
        found |= measure_hair_pixels(reference, test_set)
    title, description = DESCRIPTIONS[which]
    write_card(
        out,
        title=title,
        description=description,
        command=command,
        seed=config.seed,
        result=result,
        batch_size=config.batch_size,
        training_images=len(train_set),
        measurements={f"{name} (test)": value for name, value in found.items()},
    )
    return found


def main(arguments: list[str] | None = None) -> LoopResult:
    """Train or resume one network, then export it."""
    cli = parser(__doc__ or "", "<which>", minutes=9, batch_size=32)
    cli.add_argument("--which", choices=RECIPES, required=True, help="the network to train")
    cli.add_argument("--out", type=Path, help="weight folder; default: <which> in --weights")
    add_start(cli)
    cli.set_defaults(seed=None, minutes=None, run_dir=None)  # each network has its own
    given = cli.parse_args(arguments)
    recipe = RECIPES[given.which]
    given.seed = recipe.seed if given.seed is None else given.seed
    given.minutes = recipe.minutes if given.minutes is None else given.minutes
    given.run_dir = given.run_dir or Path("~/.cache/dmgi/runs") / given.which
    config = loop_config(
        given, learning_rate=2e-3, ema_half_life_steps=100, warmup_steps=100, cooldown=0.5
    )
    train_set, test_set = FaceDataset(given.data, "train"), FaceDataset(given.data, "test")
    network, result = train(given.which, train_set, config, recipe, given.start)
    command = command_line("data_prep.priors.train_recognizers", arguments)
    out = given.out or given.weights / given.which
    export(given.which, network, result, config, train_set, test_set, out, command)
    print(f"exported to {out}")
    return result


if __name__ == "__main__":
    main()
