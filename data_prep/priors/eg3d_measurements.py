"""Readings of the 3D prior: views of held-out people against the truth, and random heads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.camera_faces import CameraFaces, Seen
from data_prep.priors.recipe import picture_grid
from data_prep.priors.sliced_wasserstein import sliced_wasserstein
from dmgi_lib.dataset import to_uint8
from dmgi_lib.generators.eg3d.cameras import look_at, split_camera
from dmgi_lib.generators.eg3d.generator import EG3DOutput, TriPlaneGenerator

TURNS = (-30.0, 0.0, 30.0)
NEAR, FAR = 2.3, 3.1  # white and black of depth pictures, world units


@torch.no_grad()
def seen_from(G: TriPlaneGenerator, ws: Tensor, c: Tensor, batch: int = 8) -> EG3DOutput:
    """G's views of ws (B, num_ws, w_dim) from c (B, 25), a few at a time."""
    parts = [G.synthesis(w, k) for w, k in zip(ws.split(batch), c.split(batch), strict=True)]
    return EG3DOutput(*(torch.cat(x) for x in zip(*(vars(p).values() for p in parts), strict=True)))


def pairs_of(faces: CameraFaces, people: list[Tensor]) -> tuple[Seen, Seen]:
    """Of each person the first view and the one whose camera stands farthest from its camera."""
    places = split_camera(faces.cameras)[0][:, :3, 3]
    first = torch.stack([rows[0] for rows in people])
    far = [rows[torch.cdist(places[rows[:1]], places[rows]).argmax()] for rows in people]
    straight = torch.zeros(len(people), dtype=torch.bool)
    return faces.batch(first, straight), faces.batch(torch.stack(far), straight)


@torch.no_grad()
def sample_picture(
    G: TriPlaneGenerator, encoder: nn.Module, first: Seen, other: Seen, refined: bool = True
) -> np.ndarray:
    """Rows: truth, its reconstruction, the other view's truth, that view, the source's depth, the
    head turned to TURNS, random heads.

    Args:
        G, encoder:   averaged networks
        first, other: of the same people, see `pairs_of`
        refined: whether super-resolution is trained yet; else rendered pictures are shown
    """

    def shown(out: EG3DOutput) -> Tensor:
        return out.image if refined else F.interpolate(out.image_raw, out.image.shape[-2:])

    ws = encoder(first.image)[0]
    source, view = seen_from(G, ws, first.camera), seen_from(G, ws, other.camera)
    near = ((FAR - source.image_depth) / (FAR - NEAR)).clamp(0, 1) * source.image_alpha
    near = F.interpolate(near * 2 - 1, first.image.shape[-2:]).expand(-1, 3, -1, -1)
    z = torch.randn(len(ws), G.z_dim, generator=torch.Generator().manual_seed(1)).to(ws)
    turned = [look_at(yaw, 0.0).expand(len(ws), -1).to(ws) for yaw in TURNS]
    rows = [first.image, shown(source), other.image, shown(view), near]
    rows += [shown(seen_from(G, ws, c)) for c in turned]
    rows.append(shown(seen_from(G, G.mapping(z, truncation_psi=0.8), turned[1])))
    return picture_grid(list(map(to_uint8, rows)))


def on_head(error: Tensor, inside: Tensor) -> float:
    """Mean of error (B, 1, H, W) where inside (B, 1, H, W) is 1; NaN where that is nowhere."""
    count = float(inside.sum())
    return float((error * inside).sum()) / count if count else math.nan


@torch.no_grad()
def measure(
    G: TriPlaneGenerator, encoder: nn.Module, loss_net: Any, first: Seen, other: Seen, seed: int = 0
) -> dict[str, float]:
    """Held-out people from a view that their code does not know, and random heads.

    The code is the encoder's W of the first view. Distances of random heads are those of their
    pictures' loss-net features to the held-out pictures', as FID is of others' (mean and deviation
    of each feature alone, for there are few pictures), and the sliced Wasserstein distance.

    Args:
        first, other: see `pairs_of`
    """
    n = G.neural_rendering_resolution
    ws = torch.cat([encoder(part)[0] for part in first.image.split(16)])
    figures: dict[str, float] = {}
    for name, seen in (("the view that was read", first), ("another view", other)):
        out = seen_from(G, ws, seen.camera)
        head = (seen.mask > 0).float()[:, None]
        square = (out.image.clamp(-1, 1) - seen.image).square().mean(1, keepdim=True)
        psnr = -10 * math.log10(max(on_head(square, head) / 4, 1e-10))
        figures[f"PSNR on head pixels, {name} (dB)"] = psnr
        foreground, depth, inside = seen.rendered(n)
        if not inside.any():
            continue
        total = inside.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
        mean = (depth * inside).sum((1, 2, 3), keepdim=True) / total
        floors = {"": out.image_depth, ", flat disc": mean.expand_as(depth)}
        w_avg = G.mean_latent.expand(len(ws), G.num_ws, -1)
        floors[", mean head"] = seen_from(G, w_avg, seen.camera).image_depth
        for floor, found in floors.items():
            error = on_head((found - depth).abs(), inside)
            figures[f"depth error on the head, {name}{floor} (world units)"] = error
    figures["alpha error, another view"] = float((out.image_alpha - foreground).abs().mean())
    z = torch.randn(len(ws), G.z_dim, generator=torch.Generator().manual_seed(seed)).to(ws)
    heads = seen_from(G, G.mapping(z), other.camera).image.clamp(-1, 1)
    sets = {"random heads": heads, "the same people's other view (floor)": first.image}
    for name, images in sets.items():
        distance = feature_distance(loss_net, images, other.image)
        figures[f"loss-net feature distance, {name}"] = distance
        if len(images) > 1:
            wasserstein = sliced_wasserstein(images, other.image, seed)["mean"]
            figures[f"SWD x 1000 ({len(images)} pictures), {name}"] = wasserstein
    return figures


@torch.no_grad()
def feature_distance(loss_net: Any, images: Tensor, others: Tensor) -> float:
    """Fréchet distance of Gaussians with independent features, per feature; 0 for equal sets.

    images, others: (N, 3, H, W) in [-1, 1]; features are the loss net's coarsest, averaged over
    places, in units of the deviation among `others`.
    """

    def read(pictures: Tensor) -> Tensor:
        parts = pictures.split(32)
        return torch.cat([loss_net.features(p)[-1].float().mean((2, 3)) for p in parts])

    one, other = read(images), read(others)
    unit = other.std(0, unbiased=False).clamp_min(1e-6)
    gap = (one.mean(0) - other.mean(0)) / unit
    spread = (one.std(0, unbiased=False) - other.std(0, unbiased=False)) / unit
    return float((gap.square() + spread.square()).mean())
