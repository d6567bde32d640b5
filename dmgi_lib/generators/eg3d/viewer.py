"""A mesh to turn by hand in a notebook, without a network: `MeshView(mesh)` at the end of a cell.

The page is a frame of its own with the mesh and a small WebGL script in it (`viewer.js`), so it
works in Jupyter, in a saved page and on Colab. Where there is no WebGL, a still picture stays;
where notebooks are shown without scripts, the same picture comes as PNG.
"""

from __future__ import annotations

import base64
import html
import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dmgi_lib.checks import whole_number

SCRIPT = Path(__file__).with_name("viewer.js")
MOST_VERTICES = 500_000  # 20 MB in the notebook
MARGIN = 1.05
DISTANCE, ZOOM = 4.4, 3.8  # of the first view; in the script as well
PAGE = """<!doctype html><meta charset="utf-8"><title>head</title><style>
html, body {{ margin: 0; height: 100%; background: #edeff2 }}
canvas, img {{ display: block; width: 100%; height: 100%; object-fit: contain; touch-action: none }}
canvas:focus-visible {{ outline: 3px solid #1a66cc; outline-offset: -3px }}
[hidden] {{ display: none }}</style>
<canvas hidden tabindex="0" role="img" aria-label="{label}"></canvas>
<img alt="a head seen from the front" src="data:image/png;base64,{still}">
{data}<script>{script}</script>"""
LABEL = "A head in three dimensions. Drag or use the arrow keys to turn it, plus and minus to zoom."


class MeshView:
    """What a notebook shows of a mesh.

    Args:
        mesh: `trimesh.Trimesh` with vertex colours, see `mesh.head_mesh`; at 64 voxels a side it
            takes about 0.5 MB in the notebook, at 128 four times as much
        height: of the frame, pixels

    Raises:
        ValueError: no mesh, an empty one, or more than 500,000 vertices
    """

    def __init__(self, mesh: Any, height: int = 420) -> None:
        if not hasattr(mesh, "faces") or not hasattr(mesh, "vertex_normals"):
            raise ValueError(
                f"mesh came as {type(mesh).__name__}; expected a trimesh.Trimesh, such as"
                " pipe.mesh(latents) returns."
            )
        if not 0 < len(mesh.vertices) <= MOST_VERTICES or not len(mesh.faces):
            raise ValueError(
                f"mesh has {len(mesh.vertices):,} vertices and {len(mesh.faces):,} faces; expected"
                f" some, and at most {MOST_VERTICES:,} vertices. Take a coarser resolution."
            )
        self.mesh, self.height = mesh, whole_number("height", height, 50, 4000)

    @cached_property
    def page(self) -> str:
        """The whole page, for a frame or a file."""
        arrays = {
            "position": (self._cube() * 65535).round().astype("<u2"),
            "normal": ((self.mesh.vertex_normals + 1) * 127.5).round().astype(np.uint8),
            "color": np.asarray(self.mesh.visual.vertex_colors)[:, :3].astype(np.uint8),
        }
        # Four numbers a vertex: WebGL reads them aligned.
        packed = {k: np.pad(v, ((0, 0), (0, 1))).astype(v.dtype) for k, v in arrays.items()}
        packed["faces"] = np.asarray(self.mesh.faces).astype("<u4")
        data = "".join(
            f'<script type="text/plain" id="{name}">{_base64(values.tobytes())}</script>'
            for name, values in packed.items()
        )
        still = io.BytesIO()
        self.picture().save(still, "PNG")
        return PAGE.format(
            label=LABEL,
            still=_base64(still.getvalue()),
            data=data,
            script=SCRIPT.read_text(encoding="utf-8"),
        )

    def picture(self, size: int = 256) -> Image.Image:
        """The mesh from the front, drawn without a GPU: nearest vertices as lit dots."""
        points = self._cube() * 2 - 1
        scale = ZOOM / (DISTANCE - points[:, 2:]) / 2
        x, y = ((points[:, :2] * (1, -1) * scale + 0.5) * size).astype(int).T
        light = np.array([0.3, 0.5, 0.9]) / np.linalg.norm([0.3, 0.5, 0.9])
        shade = 0.62 + 0.38 * (self.mesh.vertex_normals @ light).clip(0)
        colors = np.asarray(self.mesh.visual.vertex_colors)[:, :3] * shade[:, None]
        # Dots are as wide as neighbours lie apart, so that they close.
        apart = float(np.quantile(self.mesh.edges_unique_length, 0.9)) / self._side() * 2
        reach = 1 + int(np.ceil(apart * scale.max() * size))
        canvas = np.full((size, size, 3), (237, 239, 242), np.uint8)
        for i in np.argsort(points[:, 2]):
            rows, columns = slice(max(0, y[i]), y[i] + reach), slice(max(0, x[i]), x[i] + reach)
            canvas[rows, columns] = colors[i]
        return Image.fromarray(canvas)

    def _side(self) -> float:
        return float(np.ptp(self.mesh.vertices, axis=0).max()) * MARGIN

    def _cube(self) -> np.ndarray:
        """Vertices in a unit cube, its centre in the middle."""
        low, high = self.mesh.bounds
        cube: np.ndarray = (self.mesh.vertices - (low + high) / 2) / self._side() + 0.5
        return cube

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        frame = (
            f'<iframe title="{LABEL}" srcdoc="{html.escape(self.page)}" width="100%"'
            f' height="{self.height}" style="border: 0; max-width: 100%"></iframe>'
        )
        still = io.BytesIO()
        self.picture().save(still, "PNG")
        return {
            "text/html": frame,
            "image/png": _base64(still.getvalue()),
            "text/plain": f"a mesh of {len(self.mesh.faces):,} faces, to turn while scripts run",
        }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
