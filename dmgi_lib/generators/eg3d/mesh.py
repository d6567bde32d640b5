"""A head as triangles with vertex colours: marching cubes over the density of the planes.

    mesh = head_mesh(G, ws, resolution=128)     # trimesh.Trimesh
    mesh.export("head.glb")                     # or .obj, .ply

Axes are the world's, which glTF shares: y up, the face looks along +z. Needs the extra `mesh`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dmgi_lib.checks import whole_number
from dmgi_lib.files import write_whole
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.generator import TriPlaneGenerator
from dmgi_lib.generators.eg3d.views import checked_path, covered, one_code, surface

ENDINGS = (".glb", ".obj", ".ply")
COARSEST, FINEST = 16, 512
SOFTEST = 0.25  # quantile of the densities that are seen; hair is softer than skin
LEAST_SEEN = 0.01  # share of the view that has to show something


@torch.no_grad()
def head_mesh(
    G: TriPlaneGenerator, latents: Tensor, resolution: int = 128, path: str | Path | None = None
) -> Any:
    """One closed surface: the largest solid thing in the cube, cut flat where it leaves the cube.

    Floating bits are dropped and hollows that are closed all around are filled.

    Args:
        latents: (num_ws, w_dim) or (1, num_ws, w_dim), one code
        resolution: voxels on a side, 16 … 512; time and memory grow with its cube, to 2.7 GB
        path: .glb, .obj or .ply to write as well; None = none

    Returns:
        `trimesh.Trimesh` in world units, with colours of the vertices

    Raises:
        ModuleNotFoundError: trimesh or scikit-image is missing
        ValueError: several codes, codes of another generator, a resolution out of range or another
            ending of the path, all before any work; or a code that shows nothing solid
    """
    trimesh, marching_cubes = _libraries()
    ws = one_code(G, latents)
    resolution = whole_number("resolution", resolution, COARSEST, FINEST)
    path = None if path is None else checked_path(path, ENDINGS)
    planes = G.planes(ws)
    level = surface_level(G, ws, planes)
    volume = solid(densities(G, ws, planes, resolution), level)
    # A margin outside of the cube, so that the surface closes where the neck leaves it.
    volume = np.pad(volume, 1, constant_values=float(volume.min()))
    vertices, faces, _, _ = marching_cubes(volume, level, gradient_direction="ascent")
    side = G.rendering.box_warp
    vertices = (vertices - 0.5) / resolution * side - side / 2  # voxel i lies at i + 1
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh = max(mesh.split(only_watertight=False), key=lambda part: len(part.faces))
    points = torch.from_numpy(mesh.vertices.astype(np.float32))[None].to(ws.device)
    colors, _ = G.sample(points, ws, planes=planes)
    rgb = (colors[0, :, :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    mesh.visual.vertex_colors = np.pad(rgb, ((0, 0), (0, 1)), constant_values=255)
    if path is not None:
        write_whole(path, lambda target: mesh.export(target))
    return mesh


def surface_level(G: TriPlaneGenerator, ws: Tensor, planes: Tensor) -> float:
    """Raw density at the surface that a frontal view shows.

    The depth of a pixel is where its ray stops on average; of the densities there, the lower
    quarter's bound is taken, because the soft parts, such as hair, would be lost with the median.

    Raises:
        ValueError: hardly any ray stops
    """
    c = look_at(yaw=0.0, pitch=0.0)[None].to(ws)
    view = G.synthesis(ws, c, planes=planes)
    points = surface(c, view.image_depth).flatten(0, 2)
    _, sigma = G.sample(points[None], ws, planes=planes)
    # A ray through a whole cube of that density would be stopped by one part in two.
    dense = torch.nn.functional.softplus(sigma[0, :, 0] - 1) * G.rendering.box_warp > 0.7
    seen = sigma[0, :, 0][dense & covered(view).flatten()]
    if len(seen) < LEAST_SEEN * len(points):
        raise ValueError(
            f"this code shows nothing solid: {len(seen)} of {len(points)} rays stop at a surface."
            " Expected the code of a head, from a trained generator."
        )
    return float(seen.float().quantile(SOFTEST))


def densities(G: TriPlaneGenerator, ws: Tensor, planes: Tensor, resolution: int) -> np.ndarray:
    """Raw density at the centres of the voxels, (X, Y, Z) float32, in slices of memory's size."""
    side = G.rendering.box_warp
    line = ((torch.arange(resolution, device=ws.device) + 0.5) / resolution - 0.5) * side
    y, z = torch.meshgrid(line, line, indexing="ij")
    volume = np.empty((resolution,) * 3, np.float32)
    for i, x in enumerate(line):
        points = torch.stack([x.expand_as(y), y, z], dim=-1).flatten(0, 1)
        _, sigma = G.sample(points[None], ws, planes=planes)
        volume[i] = sigma[0, :, 0].unflatten(0, y.shape).float().cpu().numpy()
    return volume


def solid(volume: np.ndarray, level: float) -> np.ndarray:
    """The volume with its largest part above `level` alone, and without hollows in it.

    Raises:
        ValueError: nothing lies above the level
    """
    above = volume > level
    parts, count = ndimage.label(above)
    if not count:
        raise ValueError("no voxel is as dense as the surface; take a finer resolution.")
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    head = parts == sizes.argmax()
    hollows = ndimage.binary_fill_holes(head) & ~head
    kept = np.where(above & ~head, volume.min(), volume)
    kept[hollows] = volume.max()
    return kept


def _libraries() -> tuple[Any, Any]:
    try:
        import trimesh
        from skimage.measure import marching_cubes
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"meshes need {error.name}, which is not installed; install the extra:"
            " pip install 'dmgi-kit[mesh]', or pip install trimesh scikit-image."
        ) from error
    return trimesh, marching_cubes
