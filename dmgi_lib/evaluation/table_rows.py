"""The rows of the mini world's Table 1: ceilings, floors, baselines and the method, one by one.

All are drawn for the same masks (or scribbles), captions and noise. Which rows stand here is the
kit's design (not specified in the paper's available sources).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel

from dmgi_lib.evaluation import swaps
from dmgi_lib.evaluation.baselines import MaskEncoder, optimise_for_text, text_similarity
from dmgi_lib.evaluation.earlier_stages import EarlierModel
from dmgi_lib.evaluation.goals import Finding
from dmgi_lib.evaluation.inversion import InversionConfig, invert
from dmgi_lib.evaluation.protocol import GroundTruth, draw, judged_size, random_faces, read
from dmgi_lib.evaluation.reading import Reading
from dmgi_lib.evaluation.row_files import FinishedRow, RowFiles
from dmgi_lib.evaluation.speed import seconds_a_face
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.recognizers import Judges
from dmgi_lib.style_modulation import truncate_detail
from dmgi_lib.weight_folder import CALL_DEFAULTS


@dataclass(frozen=True)
class TableConfig:
    """What the table covers.

    Attributes:
        condition:        "mask" or "scribble", the kind of x.
        exit_steps:       of the full method, besides the first and the last; empty: the middle.
        controlnet_steps: of the row that is ControlNet alone.
        n_inversion:      test identities of the W+ ceiling, the dearest row.
        inversion_steps:  of its optimiser.
        text_steps:       of the text optimisation after the mask encoder.
        batch_size:       images drawn at once; the noise of W+ optimisation depends on it.
        seed:             image i starts from noise of seed + i in every row.
    """

    condition: str = "mask"
    exit_steps: tuple[int, ...] = ()
    controlnet_steps: int = 50
    n_inversion: int = 500
    inversion_steps: int = 200
    text_steps: int = 60
    batch_size: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.condition not in ("mask", "scribble"):
            raise ValueError(f"condition came as {self.condition!r}; expected mask or scribble.")
        if self.n_inversion < 2:
            raise ValueError(f"n_inversion came as {self.n_inversion}; expected at least 2.")


@dataclass(frozen=True)
class Row:
    """A row to draw.

    Attributes:
        key:       short name, of letters, digits and underscores.
        name:      as printed.
        draw:      makes some of its pictures (n, 3, 128, 128).
        count:     of its pictures: all N, or fewer where they are dear.
        made_from: what they depend on besides weights, test samples and seed.
    """

    key: str
    name: str
    draw: Callable[[slice], Tensor]
    count: int
    made_from: dict[str, Any] = field(default_factory=dict)


class Table:
    """Draws and reads the rows.

    Args:
        pipe:         the model, with its last M and T.
        truth:        test samples.
        clip:         text-image encoder of the CLIP score.
        files:        where finished rows are kept.
        mask_encoder: baseline; None leaves its rows out, as scribbles do.
        perceptual:   distance that the W+ optimisation minimises beside L1; None: L1 alone.
        earlier:      the model after earlier stages, or other models to compare with.
        multi_step:   whether M and T come out of stage 3, for the rows' names.
        made_from:    hashes of what only rows of "x", the one of "controlnet" alone, and those of
                      the "mask_encoder" depend on.
    """

    def __init__(
        self,
        pipe: DMGIPipeline,
        truth: GroundTruth,
        judges: Judges,
        clip: CLIPModel,
        config: TableConfig,
        files: RowFiles,
        mask_encoder: MaskEncoder | None = None,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        earlier: list[EarlierModel] | None = None,
        multi_step: bool = True,
        made_from: Mapping[str, str] | None = None,
    ) -> None:
        self.pipe, self.truth, self.judges, self.clip = pipe, truth, judges, clip
        self.config, self.files, self.perceptual = config, files, perceptual
        self.mask_encoder, self.earlier = mask_encoder, earlier or []
        self.multi_step = multi_step
        self.made_from = made_from or {}
        self.last = pipe.config.num_inference_steps - 1
        between = config.exit_steps or (self.last // 2,)
        self.exits = tuple(sorted({0, self.last, *between}))
        if self.exits[0] < 0 or self.exits[-1] > self.last:
            raise ValueError(
                f"exit_steps came as {config.exit_steps}; expected steps of 0 to {self.last}."
            )

    def rows(self) -> Iterator[Row]:
        """Every row, in the table's order."""
        config, n = self.config, len(self.truth.images)
        defaults = self.defaults
        x: dict[str, Any] = self.of_x | defaults
        encoder: dict[str, Any] = {
            "encoder": self.made_from.get("mask_encoder", ""),
            "detail_psi": defaults["detail_psi"],
        }
        controlnet: dict[str, Any] = {
            "condition": config.condition,
            "networks": self.made_from.get("controlnet"),
            "guidance_scale": defaults["guidance_scale"],
        }
        count, steps = min(config.n_inversion, n), config.inversion_steps
        own = self.truth.images.__getitem__
        yield Row("ground_truth", "ground truth (ceiling of the judges)", own, n)
        yield Row(
            "inversion",
            "W+ optimisation (ceiling of G)",
            self.inverted,
            count,
            {
                "count": count,
                "steps": steps,
                "perceptual": self.perceptual is not None,
                "batch_size": config.batch_size,
            },
        )
        floor = functools.partial(random_faces, self.pipe, n, config.seed)
        yield Row("random", "random face (floor)", floor, n)
        order = np.random.default_rng(config.seed).permutation(n)
        moved = self.truth.taken(np.roll(order, 1)[np.argsort(order)])
        others = functools.partial(self.drawn, truth=moved)
        yield Row("shuffled", "others' inputs (floor)", others, n, x)
        yield Row(
            "controlnet",
            f"ControlNet alone, {config.controlnet_steps} steps",
            self.controlnet_alone,
            n,
            controlnet | {"steps": config.controlnet_steps},
        )
        if self.mask_encoder is not None and config.condition == "mask":
            yield Row("encoder", "mask encoder (pSp style)", self.drawn_by_encoder, n, encoder)
            yield Row(
                "encoder_text",
                "mask encoder + text optimisation (TediGAN style)",
                functools.partial(self.drawn_by_encoder, text_steps=config.text_steps),
                n,
                encoder | {"steps": config.text_steps},
            )
        for model in self.earlier:
            of = functools.partial(self.drawn, pipe=model.pipe)
            yield Row(model.key, model.name, of, n, x | {"model": model.made_from})
        for step in self.exits:
            name = f"DMGI{', multi-step' * self.multi_step}, exit step {step} of {self.last}"
            yield Row(f"exit_{step}", name, functools.partial(self.drawn, exit_step=step), n, x)

    @property
    def of_x(self) -> dict[str, Any]:
        """What rows drawn from x are made from."""
        return {"condition": self.config.condition, "networks": self.made_from.get("x", "")}

    @property
    def defaults(self) -> dict[str, Any]:
        """Settings that rows drawn from x are made with."""
        return {name: self.pipe.config[name] for name in CALL_DEFAULTS}

    def finished(self, row: Row, against: GroundTruth | None = None) -> FinishedRow:
        """The row, drawn and read against samples (its own ones), or as its file holds it."""
        truth = against or self.truth.taken(np.arange(row.count))
        read, at_once = functools.partial(self.read, truth=truth), self.config.batch_size
        return self.files.row(
            row.key, row.name, row.draw, read, row.count, at_once, **row.made_from
        )

    def seconds(self) -> dict[str, float]:
        """Of one face at batch 1: each exit, and ControlNet alone. See `seconds_a_face`."""
        steps, condition = self.config.controlnet_steps, self.config.condition
        x = self.inputs(self.truth)[0]
        return self.files.numbers(
            "seconds",
            lambda: seconds_a_face(
                self.pipe, self.truth.prompts[0], x, condition, self.exits, steps
            ),
            **self.of_x,
            steps=[*self.exits, steps],
        )

    def swaps(self, own: Reading) -> list[Finding]:
        """What exchanged captions and masks change; own: of the exit at the last step."""
        mixed = swaps.exchanged(self.truth, self.config.seed)
        # of what it is drawn, against what it is read
        plan = {
            "both": (self.truth, mixed["both"]),
            "text": (mixed["text"], mixed["text"]),
            "mask": (mixed["mask"], mixed["mask"]),
        }
        readings, count = {}, len(self.truth.images)
        for name, (drawn_for, against) in plan.items():
            of = functools.partial(self.drawn, truth=drawn_for)
            row = Row(f"swap_{name}", f"swap_{name}", of, count, self.of_x | self.defaults)
            readings[name] = self.finished(row, against).reading
        giver = self.truth.taken(swaps.givers(self.truth, self.config.seed)).attributes
        return swaps.findings(own, giver=giver, seed=self.config.seed, **readings)

    def read(self, images: Tensor, truth: GroundTruth) -> Reading:
        """The judges' reading of pictures against samples."""
        return read(images, truth, self.judges, self.config.seed, self.clip, self.pipe.tokenizer)

    def drawn(
        self,
        part: slice,
        exit_step: int = -1,
        truth: GroundTruth | None = None,
        pipe: DMGIPipeline | None = None,
    ) -> Tensor:
        """I' of a model, by default this one, for some samples, by default the own ones."""
        return self._draw(part, exit_step, truth, pipe)[0]

    def controlnet_alone(self, part: slice) -> Tensor:
        """The diffusion model's own I_0^d, of as many steps as the config says."""
        denoised = self._draw(part, -1, steps=self.config.controlnet_steps)[1]
        assert denoised is not None  # the process ran to its end
        return denoised

    def inverted(self, part: slice) -> Tensor:
        """W+ optimisation on images themselves."""
        config = InversionConfig(steps=self.config.inversion_steps)
        images = self.truth.images[part]
        found = invert(self.pipe.generator, images, config, perceptual=self.perceptual)
        return judged_size(found.images)

    def drawn_by_encoder(self, part: slice, text_steps: int = 0) -> Tensor:
        """G of the mask encoder's codes, moved towards the captions for `text_steps`.

        They are truncated before that, as those of M and T are: `detail_psi`.
        """
        assert self.mask_encoder is not None
        G = self.pipe.generator
        with torch.no_grad():
            codes = self.mask_encoder(self.truth.masks[part])
            codes = truncate_detail(codes, G.mean_latent, self.pipe.config.detail_psi)
        if text_steps:
            likes = text_similarity(self.clip, self.pipe.tokenizer, self.truth.prompts[part])
            codes = optimise_for_text(G, codes, likes, text_steps)
        with torch.no_grad():
            return judged_size(G.synthesis(codes, noise_mode="const"))

    def inputs(self, truth: GroundTruth) -> Tensor:
        """x of samples, (N, 128, 128) class ids or strokes."""
        return truth.masks if self.config.condition == "mask" else truth.scribbles

    def _draw(
        self,
        part: slice,
        exit_step: int,
        truth: GroundTruth | None = None,
        pipe: DMGIPipeline | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        pipe, truth, config = pipe or self.pipe, truth or self.truth, self.config
        prompts, inputs = truth.prompts[part], self.inputs(truth)[part]
        batch = (config.seed + part.start, config.batch_size, config.condition)
        return draw(pipe, prompts, inputs, exit_step, *batch, steps)
