"""Readings of the 3D prior: views of held-out people against the truth, and random heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.camera_faces import CameraFaces, Seen
from data_prep.priors.recipe import picture_grid
from data_prep.priors.stylegan2_measurements import feature_distance
from dmgi_lib.dataset import to_uint8
from dmgi_lib.evaluation import views
from dmgi_lib.generators.eg3d.cameras import camera_angles, look_at, split_camera
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


@torch.no_grad()
def measure(
    G: TriPlaneGenerator, encoder: nn.Module, loss_net: Any, first: Seen, other: Seen, seed: int = 0
) -> dict[str, float]:
    """Held-out people from a view that their code does not know, and random heads.

    The code is the encoder's W of the first view; of people, see `evaluation.views.measure`, of
    random heads `feature_distance`.

    Args:
        first, other: see `pairs_of`
    """
    ws = torch.cat([encoder(part)[0] for part in first.image.split(16)])
    pairs = zip(vars(first).values(), vars(other).values(), strict=True)
    images, masks, depth, cameras = (torch.stack(pair, 1) for pair in pairs)
    yaw = camera_angles(cameras.cpu())[..., 0]
    parts = zip(*(x.split(16) for x in (ws, images, masks, depth, cameras, yaw)), strict=True)
    tables = [views.measure(G, w, views.People(*some)) for w, *some in parts]
    table = views.report(pd.concat(tables)).set_index("view")
    figures: dict[str, float] = {}
    names = {"read": "the view that was read", "all other views": "another view"}
    for view, name in names.items():
        row = table.loc[view]
        figures[f"PSNR on head pixels, {name} (dB)"] = row["PSNR on the head (dB)"]
        for floor in ("", ", flat disc", ", mean head"):
            error = row[f"depth error{floor}"]
            figures[f"depth error on the head, {name}{floor} (world units)"] = error
    opacity = other.rendered(G.neural_rendering_resolution)[0]
    alpha = seen_from(G, ws, other.camera).image_alpha
    figures["alpha error, another view"] = float((alpha - opacity).abs().mean())
    z = torch.randn(len(ws), G.z_dim, generator=torch.Generator().manual_seed(seed)).to(ws)
    heads = seen_from(G, G.mapping(z), other.camera).image.clamp(-1, 1)
    sets = {"random heads": heads, "the same people's other view (floor)": first.image}
    for name, pictures in sets.items():
        if len(pictures) > 1:
            distance = feature_distance(loss_net, pictures, other.image)
            figures[f"loss-net kernel distance, {name}"] = distance
    return figures
