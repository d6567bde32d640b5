"""What a network's file tells the trainer: settings, networks, a step, samples, and an export.

    recipe = UNet(UNetSettings(minutes=30), Folders(data, weights), torch.device("cuda"))
    recipe.step(0, torch.Generator().manual_seed(0))  # one optimisation step; numbers to log

A recipe keeps its networks on the device, and on a GPU with room the pictures, too: there a step
waits neither for copies nor for numbers to log, which stay on the device until a row is written.
Random numbers are drawn on CPUs and moved there, so that all devices start from the same weights
and see the same batches; only noise of the size of pictures is a GPU's own. Of several processes
each takes its share of every batch, and `update` averages their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast, reduce
from diffusers.models.attention_processor import AttnProcessor
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dmgi_lib.dataset import FaceDataset, default_root, to_float
from dmgi_lib.devices import autocast, moved, resident, taken
from dmgi_lib.masks import CLASSES, flip_mask
from dmgi_lib.presets import MINI
from dmgi_lib.training.loop import LoopResult, accelerator_for, batch_indices
from dmgi_lib.training.run_files import Logged

Precision = Literal["auto", "fp32"]
# The small parts that make a face and cover few of its pixels.
FEATURES = ("eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
WEIGHT_FILE = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Settings:
    """Options of every network; each has its own defaults and adds its own options.

    Args:
        minutes: budget over all resumes; 0 exports the last checkpoint
        batch_size: images per step, over all processes
        seed: of every random draw
        max_steps: stop after this many steps
        learning_rate: of the optimizers
        ema_half_life_steps: steps after which a weight's share in the average has halved
        warmup_steps: over which the learning rate rises
        cooldown: share of the budget at its end in which the learning rate falls
    """

    minutes: float = 30.0
    batch_size: int = 32
    seed: int = 0
    max_steps: int | None = None
    learning_rate: float = 1e-3
    ema_half_life_steps: float = 500.0
    warmup_steps: int = 100
    cooldown: float = 0.3


@dataclass(frozen=True)
class Folders:
    """Where a training reads and writes."""

    data: Path = field(default_factory=default_root)  # face dataset
    weights: Path = MINI.folder  # folder of the frozen networks that this one builds on
    # weight folder of the trained network; default: named after it, in --weights
    out: Path | None = None
    # checkpoint, log.csv and samples/; default: named after it, in ~/.cache/dmgi/runs
    run_dir: Path | None = None

    def run_of(self, name: str) -> Path:
        """The folder of a network's run."""
        return (self.run_dir or Path("~/.cache/dmgi/runs") / name).expanduser()


S = TypeVar("S", bound=Settings)
Ship = Callable[[Path, Any, str, str, Mapping[str, float]], None]


class Recipe(Generic[S]):
    """Base of the recipes; a subclass says what is trained, and how.

    Args:
        settings: of the network
        folders: where its data and frozen networks are
        device: where everything is computed
        precision: of the steps; "auto" is bf16 autocast where that is fast
        accelerator: the processes; None: those that `accelerate launch` started

    Attributes:
        name: of the run, and of the weight folder where `export` names no other
        averaged: names of the modules that ship as averages over the steps
        made_from: what a checkpoint must agree in, see `loop.run`
        used: share of the budget before this step
    """

    name: str
    averaged: tuple[str, ...]
    made_from: Mapping[str, Any] | None = None
    used: float = 0.0
    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]

    def __init__(
        self,
        settings: S,
        folders: Folders,
        device: torch.device,
        precision: Precision = "auto",
        accelerator: Accelerator | None = None,
    ) -> None:
        self.settings, self.folders, self.device = settings, folders, device
        self.accelerator = accelerator or accelerator_for(device)
        self.precision = precision
        self.train_set = FaceDataset(folders.data, "train")
        self.training_images = len(self.train_set)  # mirrored copies not counted
        self.build()

    def build(self) -> None:
        """Makes what is trained: `modules` and `optimizers`."""
        raise NotImplementedError

    @cached_property
    def test_set(self) -> FaceDataset:
        return FaceDataset(self.folders.data, "test")

    def home(self, name: str) -> Path:
        """The weight folder of what is trained."""
        return self.folders.out or self.folders.weights / name

    @cached_property
    def images(self) -> Any:
        """Training images, uint8 (N, 3, H, W), where they are read fastest."""
        return resident(self.train_set.images, self.device)

    @cached_property
    def masks(self) -> Any:
        """Training masks, uint8 (N, H, W), where they are read fastest."""
        return resident(self.train_set.masks, self.device)

    def step(self, step: int, rng: torch.Generator) -> Logged:
        """One optimisation step; numbers to log."""
        raise NotImplementedError

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        """Picture of what the averaged networks can do, (H, W, 3) uint8."""
        raise NotImplementedError

    def export(self, result: LoopResult, ship: Ship) -> None:
        """Calls ship(folder, network, title, description, measurements) for all that is trained."""
        raise NotImplementedError

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """New networks inside draw their weights from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            yield

    def autocast(self) -> torch.autocast:
        return autocast(self.device, enabled=self.precision == "auto")

    def rows(self, count: int, step: int) -> Tensor:
        """This process's share of batch `step` among `count` samples."""
        rows = batch_indices(count, self.settings.batch_size, step, self.settings.seed)
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def place(self, x: Tensor) -> Tensor:
        """A batch on the device; channels last on CPUs, where convolutions are faster in it."""
        x = moved(x, self.device)
        return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x

    def pictures_of(self, rows: Tensor, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [-1, 1] and masks (B, H, W) of some rows, on the device.

        Args:
            rng: decides which half of them is mirrored; None: none is
        """
        turned = torch.zeros(len(rows), dtype=torch.bool)
        if rng is not None:
            turned = torch.rand(len(rows), generator=rng) < 0.5
        image = turned_rows(self.images, rows, turned, self.device)
        return to_float(image), turned_rows(self.masks, rows, turned, self.device, flip_mask)

    def train_with(self, model: Any, start: Path | None = None, weight_decay: float = 0.01) -> Any:
        """The only network that is trained, placed; from the weights of `start`, by AdamW."""
        start_from(model, start)
        (name,), model = self.averaged, placed(model, self.device)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            self.settings.learning_rate,
            (0.9, 0.99),
            weight_decay=weight_decay,
            fused=self.device.type == "cuda",
        )
        self.modules, self.optimizers = {name: model}, {name: optimizer}
        return model

    def update(
        self,
        loss: Tensor,
        clip: float | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Tensor:
        """Gradients, averaged over the processes, and a step; the gradient's norm if clipped.

        Args:
            optimizer: None: the only one
        """
        if optimizer is None:
            (optimizer,) = self.optimizers.values()
        optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = reduce(parameter.grad, "mean")
        norm = loss.new_zeros([])
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        return norm

    @torch.no_grad()
    def agree(self, module: nn.Module) -> None:
        """Gives all processes the first one's weights."""
        if self.accelerator.num_processes > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.copy_(broadcast(tensor.clone()))


def turned_rows(
    pictures: Any,
    rows: Tensor,
    turned: Tensor,
    device: torch.device,
    mirror: Callable[[Tensor], Tensor] = lambda x: x.flip(-1),
) -> Tensor:
    """Some of the pictures, on the device, of which `turned` (B,) bool come mirrored."""
    picked = taken(pictures, rows, device)
    turned = moved(turned, device).view(-1, *[1] * (picked.ndim - 1))
    return torch.where(turned, mirror(picked), picked)


def region(masks: Tensor, names: Sequence[str], margin: int = 2) -> Tensor:
    """(B, H, W) class ids -> (B, 1, H, W) float, 1 within `margin` pixels of the named classes."""
    inside = torch.stack([masks == CLASSES.index(name) for name in names]).any(0).float()[:, None]
    return F.max_pool2d(inside, 2 * margin + 1, stride=1, padding=margin)


def picture_grid(rows: Sequence[Tensor]) -> np.ndarray:
    """Rows of uint8 (B, 3, H, W), equal B -> one picture, uint8 (rows * H, B * W, 3)."""
    cells = torch.stack([row.cpu() for row in rows]).permute(0, 3, 1, 4, 2)
    return cells.flatten(2, 3).flatten(0, 1).numpy()


def frozen(cls: Any, folder: Path, maker: str, device: torch.device) -> Any:
    """A trained network in fp32, which this training only reads.

    Raises:
        FileNotFoundError: it is missing; says which command makes it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no {folder}; make it with `python -m data_prep.priors.trainer {maker}`, or name"
            " another folder with --weights."
        )
    return cls.from_pretrained(folder).float().eval().requires_grad_(False).to(device)


def placed(model: Any, device: torch.device) -> Any:
    """The model on the device, in place; on CPUs in the form that trains fastest there.

    That is channels last, for its convolutions, and attention by plain matrix products: where bf16
    is fast, the backward pass of the fused one took a third of a U-Net's step.
    """
    model.to(device)
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)
        if hasattr(model, "set_attn_processor"):
            model.set_attn_processor(AttnProcessor())
    return model


def start_from(
    model: nn.Module,
    folder: Path | None,
    fit: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] = lambda state, _: state,
) -> None:
    """Copies the weights of `folder` into `model`; None leaves it as it is.

    Args:
        fit: weights of the file, model → the model's weights

    Raises:
        FileNotFoundError: the folder has no weight file
        ValueError:        the file cannot be read, or is of another architecture
    """
    if folder is None:
        return
    file = Path(folder) / WEIGHT_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file}: --start takes a weight folder that holds {WEIGHT_FILE}."
        )
    try:
        state = {name: value.float() for name, value in load_file(file).items()}
        model.load_state_dict(fit(state, model))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{file} does not fit a {type(model).__name__} of this recipe: {error}. Give weights "
            "of the same architecture, or leave --start away."
        ) from error
