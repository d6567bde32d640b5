"""Heads in three dimensions against the truth, which only a rendered world has.

    python -m dmgi_lib.evaluation.views --generator ~/.cache/dmgi/world/3d/generator

One picture of each person, the most frontal one, is inverted into W+; the other cameras of the
`views` split then show how far the head is right that nobody saw. The paper measures none of this:
photographs have no truth. Floors tell what an error is worth: each picture's own mean depth (a flat
disc), the mean latent's head, and a random one.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root, to_float
from dmgi_lib.devices import machine, pick_device
from dmgi_lib.evaluation.inversion import InversionConfig, invert
from dmgi_lib.evaluation.report import write_csv
from dmgi_lib.generators.eg3d import EG3DOutput, TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import camera_angles, look_at, split_camera
from dmgi_lib.generators.eg3d.views import normals, surface
from dmgi_lib.presets import MINI
from dmgi_lib.recognizers import load_judges
from dmgi_lib.training.losses import PerceptualLoss, drawn_codes
from dmgi_lib.weight_folder import load_part, required_part

HIDDEN = 0.03  # world units between a point and what a camera sees there, from which it is hidden
CLOSE = 0.1  # difference of colours in [-1, 1], mean of the three, up to which two views agree
TURNED = 15.0  # degrees to each side of the front, of the views that should agree


def project(points: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Places (B, ..., 2) in [-1, 1], x then y, and distances at which cameras see points."""
    cam2world, K = split_camera(c.to(points))
    flat = points.flatten(1, -2) - cam2world[:, None, :3, 3]
    seen = flat @ cam2world[:, :3, :3] @ K.mT
    places = 2 * seen[..., :2] / seen[..., 2:] - 1
    shape = points.shape[1:-1]
    return places.unflatten(1, shape), flat.norm(dim=-1).unflatten(1, shape)


def masked_mean(value: Tensor, inside: Tensor) -> Tensor:
    """(B, 1, n, n) each → (B,): mean where inside is true; NaN where that is nowhere."""
    total = inside.float().sum((1, 2, 3))
    kept = torch.where(inside, value, 0.0)  # outside may be NaN
    mean = kept.sum((1, 2, 3)) / total.clamp_min(1.0)
    return torch.where(total > 0, mean, mean.new_tensor(math.nan))


def head_psnr(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """PSNR in dB of (B, 3, H, W) in [-1, 1] where masks (B, H, W) show no background, (B,)."""
    square = (image.clamp(-1, 1) - truth).square().mean(1, keepdim=True)
    return -10 * torch.log10(masked_mean(square, mask[:, None] > 0).clamp_min(1e-10) / 4)


def normal_angle(c: Tensor, depth: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """Mean angle in degrees between the normals of two depths, (B,), off the head's edge."""
    one, other = normals(surface(c, depth)), normals(surface(c, truth))
    angle = torch.rad2deg((one * other).sum(-1).clamp(-1, 1).acos())[:, None]
    inner = -F.max_pool2d(-F.pad(inside.float(), (1, 1, 1, 1)), 3, 1) > 0
    return masked_mean(angle, inner)


def reprojection(
    one: EG3DOutput, c_one: Tensor, other: EG3DOutput, c_other: Tensor
) -> tuple[Tensor, Tensor]:
    """A rendered view beside another one that is carried into it by the rendered depth.

    Returns:
        difference: (B, 1, n, n) mean over colours of its absolute value
        seen: (B, 1, n, n) bool, where both show a head and the other camera sees the same point
    """
    points = surface(c_one, one.image_depth)
    places, far = project(points, c_other)

    def at(x: Tensor) -> Tensor:
        return F.grid_sample(x, places, align_corners=False)

    same = (at(other.image_depth)[:, 0] - far).abs() < HIDDEN
    seen = same[:, None] & (one.image_alpha > 0.5) & (at(other.image_alpha) > 0.5)
    return (at(other.image_raw) - one.image_raw).abs().mean(1, keepdim=True), seen


def agreement(G: TriPlaneGenerator, ws: Tensor) -> Tensor:
    """Share of the front's pixels within CLOSE of views that are turned by TURNED, (B,).

    Of those pixels that both views show, see `reprojection`.
    """
    planes, shares = G.planes(ws), []
    cameras = [look_at(yaw, 0.0).to(ws).expand(len(ws), -1) for yaw in (0.0, -TURNED, TURNED)]
    front, *sides = [G.synthesis(ws, c, planes=planes) for c in cameras]
    for side, c in zip(sides, cameras[1:], strict=True):
        difference, seen = reprojection(front, cameras[0], side, c)
        shares.append(masked_mean((difference <= CLOSE).float(), seen))
    return torch.stack(shares).nanmean(0)


class People(NamedTuple):
    """P people, each seen by K cameras, the most frontal one first."""

    images: Tensor  # (P, K, 3, H, W) in [-1, 1]
    masks: Tensor  # (P, K, H, W)
    depth: Tensor  # (P, K, H, W)
    cameras: Tensor  # (P, K, 25)
    yaw: Tensor  # (P, K) degrees


def people_of(dataset: FaceDataset, count: int) -> People:
    """The first people of a split; ValueError unless all are seen by equally many cameras."""
    identities, c = dataset.identities, dataset.cameras
    yaw = camera_angles(c)[:, 0]
    groups = [(identities == i).nonzero()[:, 0] for i in identities.unique()[:count]]
    sizes = sorted({len(rows) for rows in groups})
    if len(sizes) > 1 or sizes[0] < 2:
        raise ValueError(
            f"people of {dataset.folder} are seen by {sizes} cameras; expected equally many, at"
            " least 2, as in the splits views and train_views."
        )
    rows = torch.cat([rows[yaw[rows].abs().argsort()] for rows in groups])
    found = (to_float(dataset.images[rows]), dataset.masks[rows], dataset.depth[rows], c[rows])
    return People(*(x.unflatten(0, (-1, sizes[0])) for x in (*found, yaw[rows])))


@torch.no_grad()
def measure(G: TriPlaneGenerator, ws: Tensor, people: People, identity: Any = None) -> pd.DataFrame:
    """A row a view: yaw, whether it was read, and what `report` averages.

    ws: (P, num_ws, w_dim), read from each person's first view; identity: such as
    `IdentityJudge.identity`; None leaves it out
    """
    tables = []
    mean = G.mean_latent.expand(len(ws), G.num_ws, -1)
    drawn = drawn_codes(G, len(ws), torch.Generator().manual_seed(0))[:, None]
    floors = {", mean head": mean, ", random head": drawn.expand(-1, G.num_ws, -1)}
    images, masks, depths, cameras = (x.to(ws.device) for x in people[:4])
    first = G.synthesis(ws, cameras[:, 0])
    for k in range(cameras.shape[1]):
        c, truth, depth = cameras[:, k], images[:, k], depths[:, k : k + 1]
        view = G.synthesis(ws, c)
        shrink = depth.shape[-1] // view.image_depth.shape[-1]
        inside = F.avg_pool2d((depth > 0).float(), shrink) == 1
        depth = F.avg_pool2d(depth, shrink)
        flat = masked_mean(depth, inside)[:, None, None, None].expand_as(depth)
        heads = {"": view.image_depth, ", flat disc": flat}
        columns = {"PSNR on the head (dB)": head_psnr(view.image, truth, masks[:, k])}
        for of, codes in floors.items():
            floor = G.synthesis(codes, c)
            heads[of] = floor.image_depth
            columns[f"PSNR{of} (dB)"] = head_psnr(floor.image, truth, masks[:, k])
        for of, found in heads.items():
            columns[f"depth error{of}"] = masked_mean((found - depth).abs(), inside)
        for of in ("", ", flat disc"):
            columns[f"normals{of} (degrees)"] = normal_angle(c, heads[of], depth, inside)
        if k:
            carried = reprojection(view, c, first, cameras[:, 0])
            columns["reprojection (L1)"] = masked_mean(*carried)
        else:
            name = f"share within {CLOSE:g} of yaw ±{TURNED:g}, by reprojection"
            columns[name] = agreement(G, ws)
        if identity is not None:
            vectors = [identity(x.clamp(-1, 1)) for x in (images[:, 0], view.image, truth)]
            columns["identity cosine to the picture read"] = (vectors[0] * vectors[1]).sum(1)
            columns["identity cosine, the truth's own view"] = (vectors[0] * vectors[2]).sum(1)
        yaw = people.yaw[:, k].round().int().numpy()
        numbers = {name: value.float().cpu().numpy() for name, value in columns.items()}
        tables.append(pd.DataFrame({"yaw": yaw, "read": k == 0} | numbers))
    return pd.concat(tables, ignore_index=True)


def report(table: pd.DataFrame) -> pd.DataFrame:
    """Means: the view that was read, all others, and the others by yaw, in steps of 20 degrees."""
    others = table[~table["read"]]
    near = (others["yaw"] / 20).round().astype(int) * 20
    parts = {"read": table[table["read"]], "all other views": others}
    parts |= {f"yaw {yaw:+d}": others[near == yaw] for yaw in sorted(near.unique())}
    return pd.DataFrame(
        {"view": name, "views": len(rows)} | rows.drop(columns=["yaw", "read"]).mean().to_dict()
        for name, rows in parts.items()
    )


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
def main(
    generator: Path,
    weights: Path = MINI.folder,
    data: Path | None = None,
    split: Literal["views", "train_views"] = "views",
    people: int = 300,
    steps: int = 200,
    batch_size: int = 20,
    out: Path = Path("docs/views.csv"),
    device: str = "auto",
) -> None:
    """Measures a generator of heads on people seen by several cameras.

    Args:
        generator: its weight folder
        weights: folder of the loss net and, if there, of the judges
        data: face dataset; None: the full one if it is built, else what ships
        split: of it
        people: at most that many
        steps: of the inversion
        batch_size: people at once
        out: CSV to write
        device: auto, cpu, cuda or mps
    """
    place, root = pick_device(device), data or default_root()
    generator = generator.expanduser()
    G = load_part(generator.parent, generator.name)
    if not isinstance(G, TriPlaneGenerator):
        raise ValueError(f"{generator} came; expected the weight folder of a TriPlaneGenerator.")
    G = G.to(place).eval().requires_grad_(False)
    loss_net = required_part(weights, "loss_net", "data_prep.priors.trainer loss_net")
    perceptual = PerceptualLoss(loss_net.to(place))
    judged = (weights / "judge_identity").is_dir()
    identity = load_judges(weights, place).identity.identity if judged else None
    everyone = people_of(FaceDataset(root, split), people)
    config, tables = InversionConfig(steps=steps), []
    parts = zip(*(x.split(batch_size) for x in everyone), strict=True)
    for some in map(People._make, tqdm(list(parts), desc="people")):
        seen: dict[str, Any] = {"camera": some.cameras[:, 0], "perceptual": perceptual}
        found = invert(G, some.images[:, 0], config, **seen)
        tables.append(measure(G, found.latents, some, identity))
    result = report(pd.concat(tables))
    about = f"{len(everyone.yaw)} people of {split}, {steps} steps of inversion"
    lines = [about, f"{datetime.date.today().isoformat()}; {machine(place)}"]
    write_csv(out, lines, result.to_dict("records"))
    print(result.to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
