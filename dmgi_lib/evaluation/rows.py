"""The rows of Table 1: each is one function of this module.

    scene = Scene(pipe=pipe, truth=truth, clip=clip, config=TableConfig())
    for row in scene.rows():
        row.draw(slice(0, row.count))

To add a row, write a function that yields `Row(key, name, draw, made_from, samples)` and enter it
in ROWS. All are drawn for the same masks (or scribbles), captions and noise. Which rows stand here
is the kit's design (not specified in the paper's available sources).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor
from transformers import CLIPModel

from dmgi_lib.checks import one_of
from dmgi_lib.evaluation.baselines import optimise_for_text, text_similarity
from dmgi_lib.evaluation.draw import Row, draw, judged_size, random_faces, synthesised
from dmgi_lib.evaluation.inversion import InversionConfig, invert
from dmgi_lib.evaluation.samples import GroundTruth, exchanged, others
from dmgi_lib.files import file_hash, state_hash
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.mask_encoder import MaskEncoder
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.style_modulation import StyleModulationNetwork, truncate_detail
from dmgi_lib.weight_folder import CALL_DEFAULTS, part_name

RUNS = Path("~/.cache/dmgi/runs").expanduser()
DRAWS = 8  # of one person, see `diverse_rows`
CONDITIONS = ("mask", "scribble")


class OtherModel(NamedTuple):
    """A model whose last exit is a row: an earlier stage, or one to compare with."""

    key: str
    name: str
    pipe: DMGIPipeline
    made_from: str  # hash of its weights; "" if they are those of the table's model


@dataclass(frozen=True)
class TableConfig:
    """What the table covers."""

    # of the full method, besides the first and the last; empty: the middle
    exit_steps: tuple[int, ...] = ()
    controlnet_steps: int = 50  # of the row that is ControlNet alone
    n_inversion: int = 500  # test identities of the W+ ceiling, the dearest row
    inversion_steps: int = 200  # of its optimiser
    psi: float = 0.7  # of the random faces that are truncated
    n_diverse: int = 50  # test identities that are drawn DRAWS times
    only: tuple[str, ...] = ()  # keys of the rows to make, without what compares them; none: all
    text_steps: int = 60  # of the text optimisation after the mask encoder
    batch_size: int = 25  # images drawn at once; the noise of W+ optimisation depends on it
    seed: int = 0  # image i starts from noise of seed + i in every row
    # of CONDITIONS, the kind of x; each command asks for it itself
    condition: Annotated[str, tyro.conf.Suppress] = "mask"

    def __post_init__(self) -> None:
        one_of("condition", self.condition, CONDITIONS)
        if self.n_inversion < 2:
            raise ValueError(f"n_inversion came as {self.n_inversion}; expected at least 2.")


@dataclass(kw_only=True)
class Scene:
    """What the rows are drawn with."""

    pipe: DMGIPipeline  # the model, with its last M and T
    truth: GroundTruth  # test samples
    clip: CLIPModel  # text-image encoder, which the text optimisation climbs
    config: TableConfig
    mask_encoder: MaskEncoder | None = None  # baseline; None leaves its rows out, as scribbles do
    # distance that the W+ optimisation minimises beside L1; None: L1 alone
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    # (N, 3, 128, 128) of training people, the floor of Fréchet distances; None leaves its row out
    training: Tensor | None = None
    # the model after earlier stages, and other models to compare with
    others: Sequence[OtherModel] = ()
    multi_step: bool = True  # whether M and T come out of stage 3, for the rows' names
    # hashes of what only rows of "x", those of "controlnet" alone, of the "mask_encoder" and of
    # "training" pictures depend on
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
        """I' and I_0^d of a model, by default this one, for some samples, by default the own.

        Heads are seen by the samples' own cameras.
        """
        config, truth = self.config, truth or self.truth
        batch = (config.seed + part.start, config.batch_size, config.condition)
        prompts, inputs = truth.prompts[part], self.inputs(truth)[part]
        pipe, cameras = pipe or self.pipe, None
        if isinstance(pipe.generator, TriPlaneGenerator):
            cameras = torch.tensor([record["camera"] for record in truth.records[part]])
        return draw(pipe, prompts, inputs, exit_step, *batch, steps, cameras)

    def method(
        self, key: str, name: str, against: GroundTruth | None = None, **options: Any
    ) -> Row:
        """A row of I', by M and T; options: of `drawn`."""
        made_from = {"condition": self.config.condition, "networks": self.made_from.get("x", "")}
        made_from |= {name: self.pipe.config[name] for name in CALL_DEFAULTS}

        def draw(part: slice) -> Tensor:
            return self.drawn(part, **options)[0]

        return Row(key, name, draw, made_from, against or self.truth)

    def inputs(self, truth: GroundTruth) -> Tensor:
        """x of samples, (N, 128, 128) class ids or strokes."""
        return getattr(truth, f"{self.config.condition}s")


def ground_truth(scene: Scene) -> Iterator[Row]:
    """The samples' own pictures."""
    name = "ground truth (ceiling of the judges)"
    yield Row("ground_truth", name, scene.truth.images.__getitem__, {}, scene.truth)


def w_plus_optimisation(scene: Scene) -> Iterator[Row]:
    """Inversion of the pictures themselves."""
    config, loss = scene.config, scene.perceptual
    against = scene.truth.first(config.n_inversion)
    optimiser = InversionConfig(steps=config.inversion_steps)
    made_from = {"count": len(against), "steps": config.inversion_steps}
    made_from |= {"perceptual": loss is not None, "batch_size": config.batch_size}

    def draw(part: slice) -> Tensor:
        found = invert(scene.pipe.generator, against.images[part], optimiser, perceptual=loss)
        return judged_size(found.images)

    yield Row("inversion", "W+ optimisation (ceiling of G)", draw, made_from, against)


def floors(scene: Scene) -> Iterator[Row]:
    """Other people's pictures; faces of G that know nothing; others' caption and mask."""
    truth, seed, psi = scene.truth, scene.config.seed, scene.config.psi
    if scene.training is not None:
        name, made_from = "training pictures (floor of FID)", scene.made_from.get("training")
        against, draw = truth.first(len(scene.training)), scene.training.__getitem__
        yield Row("training", name, draw, {"pictures": made_from}, against)

    def faces(psi: float) -> Callable[[slice], Tensor]:
        return lambda part: random_faces(scene.pipe, len(truth), seed, part, psi)

    yield Row("random", "random face (floor)", faces(1.0), {}, truth)
    yield Row("random_psi", f"random face, ψ = {psi:g}", faces(psi), {"psi": psi}, truth)
    moved = truth.taken(others(len(truth), seed))
    yield scene.method("shuffled", "others' inputs (floor)", truth=moved)


def controlnet_alone(
    scene: Scene, key: str = "controlnet", against: GroundTruth | None = None
) -> Iterator[Row]:
    """The diffusion model's own I_0^d, of as many steps as the config says."""
    steps, against = scene.config.controlnet_steps, against or scene.truth
    made_from = {
        "condition": scene.config.condition,
        "networks": scene.made_from.get("controlnet"),
        "guidance_scale": scene.pipe.config.guidance_scale,
        "guide_condition": scene.pipe.config.guide_condition,
        "steps": steps,
    }

    def draw(part: slice) -> Tensor:
        denoised = scene.drawn(part, truth=against, steps=steps)[1]
        assert denoised is not None  # the process ran to its end
        return denoised

    yield Row(key, f"ControlNet alone, {steps} steps", draw, made_from, against)


def mask_encoder(scene: Scene) -> Iterator[Row]:
    """G of the mask encoder's codes, truncated as those of M and T; then moved towards captions."""
    encoder, truth, pipe = scene.mask_encoder, scene.truth, scene.pipe
    if encoder is None or scene.config.condition != "mask":
        return
    G, psi, steps = pipe.generator, pipe.config.detail_psi, scene.config.text_steps
    made_from = {"encoder": scene.made_from.get("mask_encoder", ""), "detail_psi": psi}

    @torch.no_grad()
    def codes(part: slice) -> Tensor:
        found = encoder(truth.masks[part].to(encoder.device)).float()
        return truncate_detail(found, G.mean_latent.float(), psi)

    def moved(part: slice) -> Tensor:
        likes = text_similarity(scene.clip, pipe.tokenizer, truth.prompts[part])
        return synthesised(G, optimise_for_text(G, codes(part), likes, steps))

    name = "mask encoder (pSp style)"
    yield Row("encoder", name, lambda part: synthesised(G, codes(part)), made_from, truth)
    name = "mask encoder + text optimisation (TediGAN style)"
    yield Row("encoder_text", name, moved, made_from | {"steps": steps}, truth)


def other_models(scene: Scene) -> Iterator[Row]:
    """The model after earlier stages, and other models, at their last exit."""
    for one in scene.others:
        row = scene.method(one.key, one.name, pipe=one.pipe)
        yield replace(row, made_from=row.made_from | {"model": one.made_from})


def exits(scene: Scene) -> Iterator[Row]:
    """The full method at its exits."""
    for step in scene.exits:
        name = f"DMGI{', multi-step' * scene.multi_step}, exit step {step} of {scene.last}"
        yield scene.method(f"exit_{step}", name, exit_step=step)


ROWS: tuple[Callable[[Scene], Iterator[Row]], ...] = (
    *(ground_truth, w_plus_optimisation, floors, controlnet_alone, mask_encoder),
    *(other_models, exits),
)


def swap_rows(scene: Scene) -> Iterator[Row]:
    """Rows behind the findings on exchanged captions and masks; see `goals.swap_findings`."""
    for name, against in exchanged(scene.truth, scene.config.seed).items():
        drawn_for = scene.truth if name == "both" else against
        yield scene.method(f"swap_{name}", f"swap_{name}", against, truth=drawn_for)


def diverse_rows(scene: Scene) -> Iterator[Row]:
    """The first people, each drawn DRAWS times from other noise: how much faces differ."""
    people = np.arange(min(scene.config.n_diverse, len(scene.truth)))
    repeated = scene.truth.taken(np.repeat(people, DRAWS))
    drawn = list(controlnet_alone(scene, "diverse_controlnet", repeated))
    for step in (0, scene.last):
        key = f"diverse_exit_{step}"
        drawn.append(scene.method(key, key, repeated, exit_step=step, truth=repeated))
    for row in drawn:
        yield replace(row, made_from=row.made_from | {"people": len(people)})


def earlier_models(
    pipe: DMGIPipeline, condition: str, runs: Path = RUNS
) -> tuple[list[OtherModel], list[str]]:
    """Models "M only" and "M + T" of stages 1 and 2, and notes on what could not be had.

    A pipeline folder holds the last stage only, so they are read from the checkpoints of
    `dmgi_lib.training.stages`. Without one of stage 1, M only is the model's own M with T taken
    out; its name says so.

    Args:
        runs: holds <condition>_stage1/checkpoint.pt and <condition>_stage2/checkpoint.pt.
    """
    defaults = {name: pipe.config[name] for name in CALL_DEFAULTS}

    def model(key: str, name: str, made_from: str, **networks: Any) -> OtherModel:
        parts = {part_name(part, condition): network for part, network in networks.items()}
        return OtherModel(key, name, DMGIPipeline(**pipe.components | parts, **defaults), made_from)

    try:
        M, m_hash, seen = _averaged(runs / f"{condition}_stage1", MappingNetwork, pipe)
    except LookupError as reason:
        alone = model("m_only", "DMGI, M only (T taken out)", "", style_modulation=None)
        return [alone], [f"no rows of the model after stages 1 and 2: {reason}"]
    name = f"DMGI, M only (stage 1, {seen})"
    found = [model("m_only", name, m_hash, mapping_network=M, style_modulation=None)]
    try:
        T, t_hash, seen = _averaged(runs / f"{condition}_stage2", StyleModulationNetwork, pipe, M)
    except LookupError as reason:
        return found, [f"no row of the model after stage 2: {reason}"]
    name, made_from = f"DMGI, M + T (stage 2, {seen} more)", f"{m_hash} {t_hash}"
    return [*found, model("m_and_t", name, made_from, mapping_network=M, style_modulation=T)], []


def _averaged(run_dir: Path, kind: Any, pipe: DMGIPipeline, M: Any = None) -> tuple[Any, str, str]:
    """The averaged network of a run's checkpoint, the file's hash, and on how much it was trained.

    Raises:
        LookupError: there is none, or it was trained with another G or M than these.
    """
    path = run_dir / "checkpoint.pt"
    if not path.is_file():
        raise LookupError(f"{run_dir.name} of the training runs holds no checkpoint")
    state = torch.load(path, map_location="cpu", weights_only=True)
    made_from = state.get("made_from", {})
    for frozen, network in (("generator", pipe.generator), ("mapping_network", M)):
        if network is not None and made_from.get("frozen", {}).get(frozen) != state_hash(network):
            raise LookupError(f"{run_dir.name} was trained with another {frozen}")
    name = "mapping_network" if kind is MappingNetwork else "style_modulation"
    network = kind.from_config(made_from["networks"][name])
    network.load_state_dict(state["ema"][name])
    seen = f"{state['step'] * state['batch_size']:,} samples"
    return network.eval().to(pipe.device, pipe.dtype), file_hash(path), seen
