"""Finds the directions of `dmgi_lib.editing` for a model's G, and writes them with their card.

    python -m dmgi_lib.training.edit_directions      # a few minutes on one core

Two steps; only the loss net reads pictures in them, never a judge.

1. Random faces of G are read, and their codes w are regressed on all readings together, so that a
   direction holds only what goes with its own attribute when the others stay: the start.
2. Each direction is then fitted on codes that the pipeline draws for training people, in every row
   of W+: the asked attribute shall be read at strength 1 and -1, and other attributes, identity
   and picture shall stay. Steps are taken in units of w's own covariance, so that codes go where G
   knows faces, rather than where the loss net errs.

The loss net reads no yaw; a ridge regression of its features on the cameras of training pictures
does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.devices import autocast, machine, pick_device
from dmgi_lib.editing import EDITS, EditDirections
from dmgi_lib.files import state_hash
from dmgi_lib.generators.eg3d.cameras import camera_angles
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, weights_folder
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.run_files import card
from dmgi_lib.weight_folder import required_part, save_component, write_model_index

YAW_STEP = 15.0  # degrees that strength 1 turns the head


@dataclass(frozen=True)
class SearchConfig:
    """How directions are found.

    random_faces: of G, for the start
    people: training people whose codes are drawn by the pipeline at exit 0, for the fit
    pictures: of training people, for the reading of yaw
    steps, batch_size, learning_rate: of the fit of each direction, by Adam
    margin: logit at which the asked attribute counts as read; twice that for age, of which others
        than the loss net are harder to convince (seen on training people left out of the fit)
    others, identity, picture, size: weights of what shall stay, and of the step's length
    """

    random_faces: int = 600
    people: int = 192
    pictures: int = 500
    steps: int = 120
    batch_size: int = 8
    learning_rate: float = 0.02
    margin: float = 3.0
    others: float = 0.4
    identity: float = 2.0
    picture: float = 2.0
    size: float = 0.002
    seed: int = 0


class Reader:
    """The loss net and a ridge regression of yaw: pictures → readings, differentiably."""

    def __init__(self, network: Recognizer, images: Tensor, yaws: Tensor) -> None:
        """images: (N, 3, H, W) in [-1, 1]; yaws: (N,) degrees."""
        self.network = network.eval().requires_grad_(False)
        with torch.no_grad():
            parts = [self._places(part.to(network.device)) for part in images.split(50)]
        self.yaw = YawProbe(torch.cat(parts), yaws)
        self.columns = [i for i, reads in enumerate(network.reads.tolist()) if reads]

    def _places(self, images: Tensor) -> Tensor:
        return self.network.features(images)[-1].float()

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) → logits (B, A) in the order of ATTRIBUTES, yaw (B,), identity (B, 49)."""
        deep = self._places(images)
        logits, code = self.network.attributes_and_code(deep)
        return logits.float(), self.yaw(deep), F.normalize(code.float())


class YawProbe:
    """Ridge regression of degrees on feature maps (B, C, H, W), averaged to 4 x 4 places."""

    def __init__(self, features: Tensor, yaws: Tensor) -> None:
        x = F.adaptive_avg_pool2d(features, 4).flatten(1).double()
        self.mean, self.std = x.mean(0), x.std(0).clamp_min(1e-3)
        yaws = yaws.to(x)
        x, y = (x - self.mean) / self.std, yaws - yaws.mean()
        gram = x @ x.T / x.shape[1]  # fewer pictures than features: the dual form
        dual = torch.linalg.solve(gram + 0.1 * torch.eye(len(x)).to(gram), y)
        self.weight, self.bias = x.T @ dual / x.shape[1], yaws.mean()

    def __call__(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B,) degrees."""
        x = F.adaptive_avg_pool2d(features, 4).flatten(1)
        scaled = (x - self.mean.to(x)) / self.std.to(x)
        return scaled @ self.weight.to(x) + self.bias.to(x)


def sample_yaws(dataset: FaceDataset, rows: list[int]) -> Tensor:
    """Yaw of the cameras of some samples, (len(rows),) degrees, see `camera_angles`."""
    return camera_angles(dataset.cameras[rows])[:, 0]


def axis_reading(name: str, logits: Tensor, yaw: Tensor) -> Tensor:
    """(B, A) and (B,) → (B,): how much a face is what +1 asks for, in logits or YAW_STEPs."""
    edit = EDITS[name]
    if edit.more is None or edit.less is None:
        return yaw / YAW_STEP
    return (asked_logit(edit.more, logits) - asked_logit(edit.less, logits)) / 2


def asked_logit(asked: tuple[str, bool], logits: Tensor) -> Tensor:
    """(B, A) → (B,): above 0 where the asked attribute has the asked value."""
    return logits[:, ATTRIBUTES.index(asked[0])] * (1 if asked[1] else -1)


def other_attributes(name: str, reads: list[int]) -> list[int]:
    """Columns of ATTRIBUTES that a direction shall leave as they are."""
    edit = EDITS[name]
    own = {claim[0] for claim in (edit.more, edit.less) if claim is not None} | {*edit.kin}
    return [i for i in reads if ATTRIBUTES[i] not in own]


def pipeline_codes(
    pipe: DMGIPipeline, dataset: FaceDataset, count: int, exit_step: int = 0
) -> Tensor:
    """Codes that a pipeline draws for the first people of a split, (count, num_ws, w_dim).

    Each with its mask, its first caption and noise of its own.
    """
    rows = dataset.first_views()[:count].tolist()
    found = []
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        out = pipe(
            [dataset.captions[row][0] for row in part],
            mask=list(dataset.masks[part]),
            exit_step=exit_step,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(part))],
            output_type="pt",
        )
        found.append(out.latents.float())
    return torch.cat(found)


class Search:
    """What both steps share: G, the reader, codes, and the covariance of w."""

    def __init__(self, G: Any, reader: Reader, codes: Tensor, config: SearchConfig) -> None:
        self.G, self.reader, self.codes, self.config = G, reader, codes, config
        rng = torch.Generator().manual_seed(config.seed)
        z = torch.randn(2000, G.config.z_dim, generator=rng).to(G.mean_latent)
        with torch.no_grad():
            w = G.mapping(z)[:, 0].float()
        self.random = w[: config.random_faces]
        tiny = 1e-3 * w.var() * torch.eye(w.shape[1]).to(w)
        self.root = torch.linalg.cholesky(torch.cov(w.T) + tiny)  # cov(w) = root rootᵀ

    def draw(self, codes: Tensor) -> Tensor:
        pictures: Tensor = self.G.synthesis(codes, noise_mode="const").float()
        return pictures

    @torch.no_grad()
    def start(self) -> dict[str, Tensor]:
        """Directions in W by regression of codes on all readings, (w_dim,) in units of `root`.

        A step is as long as from the middle face that is not to the middle one that is.
        """
        rows = self.random[:, None].repeat(1, self.G.num_ws, 1)
        parts = [self.reader(self.draw(part)) for part in rows.split(25)]
        logits, yaw, _ = map(torch.cat, zip(*parts, strict=True))
        logits = logits.clamp(-4, 4)  # beyond it a reading tells no more
        own = torch.stack([axis_reading(name, logits, yaw) for name in EDITS], 1)
        told = [{*other_attributes(name, self.reader.columns)} for name in EDITS]
        rest = logits[:, sorted(set.intersection(*told))]
        x = torch.cat([own, rest], 1)
        x = (x - x.mean(0)) / x.std(0).clamp_min(1e-3)
        white = torch.linalg.solve_triangular(
            self.root, (self.random - self.random.mean(0)).T, upper=False
        ).T
        ridge = 0.05 * len(x) * torch.eye(x.shape[1]).to(x)
        steps = torch.linalg.solve(x.T @ x + ridge, x.T @ white)  # [readings, w_dim]
        return {name: 2 * steps[i] for i, name in enumerate(EDITS)}

    def fit(self, name: str, start: Tensor) -> tuple[Tensor, float]:
        """One direction (num_ws, w_dim) in W+, and the mean loss of its last steps."""
        config = self.config
        step = start.repeat(self.G.num_ws, 1).requires_grad_(True)
        optimizer = torch.optim.Adam([step], config.learning_rate, (0.8, 0.95))
        rng = torch.Generator().manual_seed(config.seed + 1 + list(EDITS).index(name))
        losses = []
        for i in range(config.steps):
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - i / config.steps)
            chosen = torch.randint(len(self.codes), (config.batch_size,), generator=rng)
            sign = self.codes.new_ones(config.batch_size)
            sign[::2] = -1.0
            loss = self.loss(name, step @ self.root.T, self.codes[chosen], sign).mean()
            loss = loss + config.size * step.square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return (step @ self.root.T).detach(), sum(losses[-10:]) / len(losses[-10:])

    def loss(self, name: str, step: Tensor, codes: Tensor, sign: Tensor) -> Tensor:
        """What the loss net says against moving codes (B, num_ws, w_dim) by sign * step → (B,)."""
        edit, config, others = EDITS[name], self.config, other_attributes(name, self.reader.columns)
        margin = config.margin * (2 if name == "age" else 1)
        with torch.no_grad():
            before = self.draw(codes)
            logits_0, yaw_0, identity_0 = self.reader(before)
        after = self.draw(codes + sign[:, None, None] * step)
        with autocast(codes.device):
            logits, yaw, identity = self.reader(after)
        turned = (yaw - yaw_0) / YAW_STEP
        if edit.more is None or edit.less is None:
            missing = (1 - sign * turned).abs() * margin
            stays = after.new_zeros(len(codes))  # all that turns moves
        else:
            more, less = asked_logit(edit.more, logits), asked_logit(edit.less, logits)
            missing = (margin - torch.where(sign > 0, more, less)).clamp_min(0)
            stays = (after - before).abs().mean((1, 2, 3)) + 0.1 * turned.abs()
        flipped = logits[:, others].sigmoid() - logits_0[:, others].sigmoid()
        cosine = (identity * identity_0).sum(1)
        return (
            missing
            + config.others * flipped.abs().sum(1)
            + config.identity * (1 - cosine)
            + config.picture * stays
        )


def main(
    weights: str = MINI.name,
    out: Path | None = None,
    data: Path | None = None,
    config: SearchConfig = SearchConfig(),
    device: str = "auto",
) -> None:
    """Finds the directions of a model's G and writes <out>/edit_directions.

    Args:
        weights: preset or folder, with M, G and the loss net.
        out: pipeline folder to write to; None means that of the weights.
        data: face dataset; None means `dmgi_lib.dataset.default_root()`.
        config: sizes and weights.
        device: auto, cpu, cuda or mps.
    """
    began = time.perf_counter()
    folder, place = weights_folder(weights), pick_device(device)
    pipe = DMGIPipeline.from_pretrained(weights).to(place)
    network = required_part(folder, "loss_net", "data_prep.priors.trainer loss_net").to(place)
    people = FaceDataset(data, "train", memory=0)
    rows = people.first_views()[-config.pictures :].tolist()
    reader = Reader(network, to_float(people.images[rows]), sample_yaws(people, rows))
    G, codes = pipe.generator.float(), pipeline_codes(pipe, people, config.people)
    search = Search(G, reader, codes, config)
    starts, losses = search.start(), dict[str, float]()
    module = EditDirections(tuple(EDITS), G.num_ws, len(G.mean_latent), state_hash(G))
    for direction, name in zip(module.directions.data, EDITS, strict=True):
        found, losses[name] = search.fit(name, starts[name])
        direction.copy_(found)
        print(f"{name}: loss {losses[name]:.3f}, length {found.norm():.2f}", flush=True)
    home = out or folder
    minutes = f"{(time.perf_counter() - began) / 60:.1f} minutes on {machine(place)}"
    about = (
        "Steps in W+ of `pipe.edit`, each (num_ws, w_dim); `generator` in config.json is the hash"
        " of the G they fit. Found by readings of the loss net alone; the judges measure them in"
        " `docs/edits.csv` (`python -m dmgi_lib.evaluation.edits`). Losses are of the last steps."
    )
    command = "dmgi_lib.training.edit_directions"
    text = card("edit_directions", command, [minutes], [config], about, "direction: loss", losses)
    save_component(module, home / "edit_directions", text)
    if (home / "model_index.json").is_file():
        write_model_index(home)
    print(f"{home / 'edit_directions'}: {minutes}")


if __name__ == "__main__":
    tyro.cli(main)
