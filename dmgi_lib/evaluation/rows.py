"""The rows of Table 1: each is one function of this module.

    scene = Scene(pipe=pipe, truth=truth, clip=clip, config=TableConfig())
    for row in scene.rows():
        row.draw(slice(0, row.count))

To add a row, write a function that yields `Row(key, name, draw, made_from, samples)` and put `@row`
above it. All are drawn for the same masks (or scribbles), captions and noise. Which rows stand here
is the kit's design (not specified in the paper's available sources).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor
from transformers import CLIPModel

from dmgi_lib.evaluation.baselines import MaskEncoder, optimise_for_text, text_similarity
from dmgi_lib.evaluation.draw import Row, draw, judged_size, random_faces
from dmgi_lib.evaluation.earlier_stages import OtherModel
from dmgi_lib.evaluation.inversion import InversionConfig, invert
from dmgi_lib.evaluation.samples import GroundTruth, exchanged, others
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.style_modulation import truncate_detail
from dmgi_lib.weight_folder import CALL_DEFAULTS


@dataclass(frozen=True)
class TableConfig:
    """What the table covers.

    Attributes:
        exit_steps:       of the full method, besides the first and the last; empty: the middle.
        controlnet_steps: of the row that is ControlNet alone.
        n_inversion:      test identities of the W+ ceiling, the dearest row.
        inversion_steps:  of its optimiser.
        text_steps:       of the text optimisation after the mask encoder.
        batch_size:       images drawn at once; the noise of W+ optimisation depends on it.
        seed:             image i starts from noise of seed + i in every row.
        condition:        "mask" or "scribble", the kind of x.
    """

    exit_steps: tuple[int, ...] = ()
    controlnet_steps: int = 50
    n_inversion: int = 500
    inversion_steps: int = 200
    text_steps: int = 60
    batch_size: int = 25
    seed: int = 0
    condition: Annotated[str, tyro.conf.Suppress] = "mask"  # each command asks for it itself

    def __post_init__(self) -> None:
        if self.condition not in ("mask", "scribble"):
            raise ValueError(f"condition came as {self.condition!r}; expected mask or scribble.")
        if self.n_inversion < 2:
            raise ValueError(f"n_inversion came as {self.n_inversion}; expected at least 2.")


@dataclass(kw_only=True)
class Scene:
    """What the rows are drawn with.

    Attributes:
        pipe:         the model, with its last M and T.
        truth:        test samples.
        clip:         text-image encoder, which the text optimisation climbs.
        mask_encoder: baseline; None leaves its rows out, as scribbles do.
        perceptual:   distance that the W+ optimisation minimises beside L1; None: L1 alone.
        others:       the model after earlier stages, and other models to compare with.
        multi_step:   whether M and T come out of stage 3, for the rows' names.
        made_from:    hashes of what only rows of "x", the one of "controlnet" alone, and those of
                      the "mask_encoder" depend on.
    """

    pipe: DMGIPipeline
    truth: GroundTruth
    clip: CLIPModel
    config: TableConfig
    mask_encoder: MaskEncoder | None = None
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    others: Sequence[OtherModel] = ()
    multi_step: bool = True
    made_from: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last = self.pipe.config.num_inference_steps - 1
        self.exits = tuple(sorted({0, self.last, *(self.config.exit_steps or (self.last // 2,))}))
        if self.exits[0] < 0 or self.exits[-1] > self.last:
            raise ValueError(
                f"exit_steps came as {self.config.exit_steps}; expected steps of 0 to {self.last}."
            )

    def rows(self) -> Iterator[Row]:
        """Every row, in the table's order."""
        for function in ROWS:
            yield from function(self)

    def drawn(
        self,
        part: slice,
        exit_step: int = -1,
        truth: GroundTruth | None = None,
        pipe: DMGIPipeline | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """I' and I_0^d of a model, by default this one, for some samples, by default the own."""
        config, truth = self.config, truth or self.truth
        batch = (config.seed + part.start, config.batch_size, config.condition)
        prompts, inputs = truth.prompts[part], self.inputs(truth)[part]
        return draw(pipe or self.pipe, prompts, inputs, exit_step, *batch, steps)

    def inputs(self, truth: GroundTruth) -> Tensor:
        """x of samples, (N, 128, 128) class ids or strokes."""
        return truth.masks if self.config.condition == "mask" else truth.scribbles

    @property
    def of_x(self) -> dict[str, Any]:
        """What rows drawn from x by M and T are made from."""
        networks = {"condition": self.config.condition, "networks": self.made_from.get("x", "")}
        return networks | {name: self.pipe.config[name] for name in CALL_DEFAULTS}


ROWS: list[Callable[[Scene], Iterator[Row]]] = []


def row(function: Callable[[Scene], Iterator[Row]]) -> Callable[[Scene], Iterator[Row]]:
    """Puts a function's rows into the table, below those before."""
    ROWS.append(function)
    return function


@row
def ground_truth(scene: Scene) -> Iterator[Row]:
    """The samples' own pictures."""
    name = "ground truth (ceiling of the judges)"
    yield Row("ground_truth", name, scene.truth.images.__getitem__, {}, scene.truth)


@row
def w_plus_optimisation(scene: Scene) -> Iterator[Row]:
    """Inversion of the pictures themselves."""
    config, G = scene.config, scene.pipe.generator
    against = scene.truth
    if config.n_inversion < len(against):
        against = against.taken(np.arange(config.n_inversion))
    made_from = {
        "count": len(against),
        "steps": config.inversion_steps,
        "perceptual": scene.perceptual is not None,
        "batch_size": config.batch_size,
    }

    def draw(part: slice) -> Tensor:
        optimiser = InversionConfig(steps=config.inversion_steps)
        found = invert(G, against.images[part], optimiser, perceptual=scene.perceptual)
        return judged_size(found.images)

    yield Row("inversion", "W+ optimisation (ceiling of G)", draw, made_from, against)


@row
def random_face(scene: Scene) -> Iterator[Row]:
    """Faces of G that know nothing."""

    def draw(part: slice) -> Tensor:
        return random_faces(scene.pipe, len(scene.truth), scene.config.seed, part)

    yield Row("random", "random face (floor)", draw, {}, scene.truth)


@row
def others_inputs(scene: Scene) -> Iterator[Row]:
    """Caption and mask of one and the same other person."""
    moved = scene.truth.taken(others(len(scene.truth), scene.config.seed))

    def draw(part: slice) -> Tensor:
        return scene.drawn(part, truth=moved)[0]

    yield Row("shuffled", "others' inputs (floor)", draw, scene.of_x, scene.truth)


@row
def controlnet_alone(scene: Scene) -> Iterator[Row]:
    """The diffusion model's own I_0^d, of as many steps as the config says."""
    steps = scene.config.controlnet_steps
    made_from = {
        "condition": scene.config.condition,
        "networks": scene.made_from.get("controlnet"),
        "guidance_scale": scene.pipe.config.guidance_scale,
        "steps": steps,
    }

    def draw(part: slice) -> Tensor:
        denoised = scene.drawn(part, steps=steps)[1]
        assert denoised is not None  # the process ran to its end
        return denoised

    name = f"ControlNet alone, {steps} steps"
    yield Row("controlnet", name, draw, made_from, scene.truth)


@row
def mask_encoder(scene: Scene) -> Iterator[Row]:
    """G of the mask encoder's codes; then of these, moved towards the captions.

    They are truncated first, as those of M and T are: `detail_psi`.
    """
    encoder, truth, pipe = scene.mask_encoder, scene.truth, scene.pipe
    if encoder is None or scene.config.condition != "mask":
        return
    G, psi, steps = pipe.generator, pipe.config.detail_psi, scene.config.text_steps
    made_from = {"encoder": scene.made_from.get("mask_encoder", ""), "detail_psi": psi}

    @torch.no_grad()
    def codes(part: slice) -> Tensor:
        found = encoder(truth.masks[part].to(encoder.device)).float()
        return truncate_detail(found, G.mean_latent.float(), psi)

    @torch.no_grad()
    def synthesised(w: Tensor) -> Tensor:
        return judged_size(G.synthesis(w.to(G.dtype), noise_mode="const"))

    def moved(part: slice) -> Tensor:
        likes = text_similarity(scene.clip, pipe.tokenizer, truth.prompts[part])
        return synthesised(optimise_for_text(G, codes(part), likes, steps))

    name = "mask encoder (pSp style)"
    yield Row("encoder", name, lambda part: synthesised(codes(part)), made_from, truth)
    name = "mask encoder + text optimisation (TediGAN style)"
    yield Row("encoder_text", name, moved, made_from | {"steps": steps}, truth)


@row
def other_models(scene: Scene) -> Iterator[Row]:
    """The model after earlier stages, and other models, at their last exit."""
    for model in scene.others:

        def draw(part: slice, model: OtherModel = model) -> Tensor:
            return scene.drawn(part, pipe=model.pipe)[0]

        made_from = scene.of_x | {"model": model.made_from}
        yield Row(model.key, model.name, draw, made_from, scene.truth)


@row
def exits(scene: Scene) -> Iterator[Row]:
    """The full method at its exits."""
    for step in scene.exits:

        def draw(part: slice, step: int = step) -> Tensor:
            return scene.drawn(part, step)[0]

        name = f"DMGI{', multi-step' * scene.multi_step}, exit step {step} of {scene.last}"
        yield Row(f"exit_{step}", name, draw, scene.of_x, scene.truth)


def swap_rows(scene: Scene) -> Iterator[Row]:
    """Rows behind the findings on exchanged captions and masks; see `goals.swap_findings`."""
    mixed = exchanged(scene.truth, scene.config.seed)
    # of what it is drawn, against what it is read
    plan = {
        "both": (scene.truth, mixed["both"]),
        "text": (mixed["text"], mixed["text"]),
        "mask": (mixed["mask"], mixed["mask"]),
    }
    for name, (drawn_for, against) in plan.items():

        def draw(part: slice, truth: GroundTruth = drawn_for) -> Tensor:
            return scene.drawn(part, truth=truth)[0]

        yield Row(f"swap_{name}", f"swap_{name}", draw, scene.of_x, against)
