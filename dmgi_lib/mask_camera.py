"""The camera that a mask suggests: yaw, pitch and roll from where each class lies.

    estimate_camera("mask.png")         # (25,), for pipe("...", mask="mask.png", camera=...)
    python -m dmgi_lib.mask_camera      # fits it anew and writes its card

A linear model (ridge regression in closed form) of seven numbers a class: whether it is there, the
root of its area, its centre, its spread in both directions, and how the two go together. A class
that is missing adds nothing, so masks without hair or with closed eyes are read as well.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.files import write_text, write_whole
from dmgi_lib.generators.eg3d.cameras import camera_angles, look_at
from dmgi_lib.masks import CLASSES, load_mask
from dmgi_lib.presets import MINI

FOLDER = MINI.folder / "mask_camera"
FILE = "model.safetensors"
SIZE = 128  # edge at which masks are read
PER_CLASS = 7
ANGLES = ("yaw", "pitch", "roll")
# What a person draws may lack hair, ears or clothes; a model that leans on them would not know.
FACE = torch.tensor([c in ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth",
                           "u_lip", "l_lip") for c in CLASSES])  # fmt: skip
SKIN = CLASSES.index("skin")
DROPPED = 0.1  # share of classes that are taken away while fitting
WHOLE = 3  # times that a mask counts as it is, for each time that it counts with parts missing


def estimate_camera(mask: Any) -> Tensor:
    """The camera from which a face with this mask is seen.

    Errors on unseen people are in the card, weights/faces128/mask_camera/card.md. Distance, focal
    length and framing are those of the face world and of EG3D's faces; a mask framed otherwise is
    read as if its head had moved.

    Args:
        mask: anything that `dmgi_lib.masks.load_mask` takes, or a list of such.

    Returns:
        (25,), or (B, 25) of a list; frontal for a mask without skin.

    Raises:
        ValueError, FileNotFoundError: see `load_mask`.
    """
    several = isinstance(mask, (list, tuple))
    masks = torch.stack([load_mask(m, SIZE) for m in (mask if several else [mask])])
    yaw, pitch, roll = mask_angles(masks).unbind(-1)
    cameras = look_at(yaw, pitch, roll=roll)
    return cameras if several else cameras[0]


def mask_angles(masks: Tensor) -> Tensor:
    """(B, H, W) class ids → (B, 3) yaw, pitch and roll in degrees, within what fitting showed."""
    weight, bounds = _fitted()
    angles = features(masks) @ weight.T
    angles = torch.maximum(torch.minimum(angles, bounds[1]), bounds[0])
    return angles * (masks == SKIN).flatten(1).any(1, keepdim=True).cpu()


def features(masks: Tensor) -> Tensor:
    """(B, H, W) class ids → (B, 19 · 7 + 1) float32 on the CPU; the last is 1.

    Coordinates run from -1 to 1, x to the right, y down.
    """
    masks = masks.cpu()
    y, x = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in masks.shape[1:])
    y, x = (v.flatten() for v in torch.meshgrid(y, x, indexing="ij"))
    basis = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)  # [HW, 6]
    ids = torch.arange(len(CLASSES), dtype=masks.dtype)
    found = []
    for group in masks.flatten(1).split(32):
        here = (group[:, None] == ids[:, None]).float()  # [b, 19, HW]
        area, *moments = (here @ basis).unbind(-1)
        mx, my, xx, yy, xy = (m / area.clamp_min(1.0) for m in moments)
        spread_x = (xx - mx * mx).clamp_min(0).sqrt()
        spread_y = (yy - my * my).clamp_min(0).sqrt()
        there = (area > 0).float()
        root = (area / len(x)).sqrt()
        rows = torch.stack([there, root, mx, my, spread_x, spread_y, xy - mx * my], dim=-1)
        found.append(rows.flatten(1))
    x = torch.cat(found)
    return torch.cat([x, torch.ones(len(x), 1)], dim=1)


def fit(x: Tensor, angles: Tensor, seed: int = 0) -> Tensor:
    """Weights (3, features) that read `angles` (N, 3) off the features x (N, features).

    Masks count as they are (WHOLE times), with classes taken away at random, and with the parts of
    the face alone. The penalty on weights of standardised features is 0.1 a thousand masks.
    """
    rng = torch.Generator().manual_seed(seed)
    some = torch.rand(len(x), len(CLASSES), generator=rng) > DROPPED
    x = torch.cat([*[x] * WHOLE, only(x, some), only(x, FACE.expand_as(some))]).double()
    y = angles.double().repeat(WHOLE + 2, 1)
    scale = x.std(dim=0).clamp_min(1e-3)
    scale[-1] = 1.0
    a = x / scale
    penalty = torch.full((a.shape[1],), 0.1 * len(a) / 1000, dtype=a.dtype)
    penalty[-1] = 0.0
    solved = torch.linalg.solve(a.T @ a + penalty.diag(), a.T @ y)
    return (solved / scale[:, None]).T.float()


def only(x: Tensor, kept: Tensor) -> Tensor:
    """Features of the same masks as if only the classes `kept` (N, 19) were there."""
    rows = x[:, :-1].unflatten(1, (len(CLASSES), PER_CLASS)) * kept[..., None]
    return torch.cat([rows.flatten(1), x[:, -1:]], dim=1)


@functools.cache
def _fitted() -> tuple[Tensor, Tensor]:
    stored = load_file(FOLDER / FILE)
    return stored["weight"], stored["bounds"]


def main(data: Path | None = None, out: Path = FOLDER) -> None:
    """Fits the model on training people and measures it on test people.

    Args:
        data: face dataset; what ships if there is no other.
        out: folder for the weights and their card.
    """
    sets = {split: FaceDataset(data, split) for split in ("train", "test")}
    x = {name: features(torch.as_tensor(faces.masks[:])) for name, faces in sets.items()}
    y = {name: camera_angles(faces.cameras) for name, faces in sets.items()}
    weight = fit(x["train"], y["train"])
    bounds = torch.stack([y["train"].amin(0), y["train"].amax(0)])
    stored = {"weight": weight, "bounds": bounds}
    write_whole(out / FILE, lambda path: save_file(stored, path))
    seen = x["test"]
    one = torch.randint(len(CLASSES), (len(seen), 1), generator=torch.Generator().manual_seed(1))
    given = {
        "whole": seen,
        "one of the 19 classes taken away": only(seen, torch.arange(len(CLASSES)) != one),
        "skin, eyes, brows, nose and mouth alone": only(seen, FACE.expand(len(seen), -1)),
    }
    rows = []
    for name, numbers in given.items():
        errors = (numbers @ weight.T - y["test"]).abs()
        tail = errors.quantile(0.95, dim=0)
        cells = [
            f"{m:.2f} / {q:.2f}"
            for m, q in zip(errors.mean(0).tolist(), tail.tolist(), strict=True)
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    spread = [f"{v:.2f}" for v in (y["test"] - y["train"].mean(0)).abs().mean(0).tolist()]
    rows.append(f"| guessing the mean | {' | '.join(spread)} |")
    card = CARD.format(
        train=len(y["train"]), test=len(y["test"]), rows="\n".join(rows),
        bounds=", ".join(
            f"{n} {lo:.0f} to {hi:.0f}" for n, lo, hi in zip(ANGLES, *bounds.tolist(), strict=True)
        ),
    )  # fmt: skip
    write_text(out / "card.md", card)
    print(card)


CARD = """# Camera of a mask

Yaw, pitch and roll of the camera by ridge regression on area, centre and spread of the 19 classes;
`dmgi_lib.mask_camera.estimate_camera(mask)`.

    python -m dmgi_lib.mask_camera

Fitted on {train:,} masks of training people of the face world (seed 0, about a minute) and measured
on {test} masks of people that it has not seen. Mean and 95th percentile of the error in degrees:

| mask | yaw | pitch | roll |
|---|---|---|---|
{rows}

Degrees are clipped to those of the training masks: {bounds}.
Distance and focal length are not estimated; they are the face world's, 2.7 and 4.2647. Masks drawn
by hand or parsed from photographs were not measured: no truth is known of them.
"""

if __name__ == "__main__":
    tyro.cli(main)
