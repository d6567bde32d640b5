"""Parts as mitsuba's shapes: for the picture, and glowing with their class for the mask."""

import os
import tempfile
from typing import Any

import numpy as np

from data_prep.faces128.head import vertex_normals
from data_prep.faces128.part import Part


def renderer() -> Any:
    """mitsuba, in the variant that renders the same on every machine: one CPU thread, RGB."""
    import drjit
    import mitsuba

    mitsuba.set_variant("scalar_rgb")
    drjit.set_thread_count(1)  # several add light in varying order; processes share the work
    return mitsuba


LABEL_SCALE = 32.0
MATERIALS: dict[str, dict] = {
    "skin": {"type": "principled", "specular": 0.42},
    "eye": {"type": "principled", "roughness": 0.06, "specular": 0.6},
    "tooth": {"type": "principled", "roughness": 0.3, "specular": 0.4},
    "hair": {"type": "principled", "roughness": 0.5, "specular": 0.22},
    "cloth": {"type": "principled", "roughness": 0.9, "specular": 0.1, "sheen": 0.4},
    "glossy": {"type": "principled", "roughness": 0.3, "specular": 0.5},
    "metal": {"type": "principled", "roughness": 0.22, "metallic": 1.0, "specular": 0.7},
    "matte": {"type": "diffuse"},
    "stone": {"type": "principled", "roughness": 0.38, "specular": 0.4},
    "patina": {"type": "principled", "roughness": 0.36, "metallic": 0.75, "specular": 0.6},
}  # fmt: skip


def _bsdf(material: str, color: dict) -> dict:
    spec = dict(MATERIALS[material])
    spec["reflectance" if spec["type"] == "diffuse" else "base_color"] = color
    return spec


def _mesh(part: Part, name: str, seen_from: np.ndarray | None) -> object:
    mi = renderer()

    assert part.faces is not None
    is_used = np.zeros(len(part.vertices), bool)
    is_used[part.faces] = True
    used, faces = np.flatnonzero(is_used), (np.cumsum(is_used) - 1)[part.faces]
    vertices = part.vertices[used]
    properties = mi.Properties()
    if seen_from is not None:  # meshes glow on one side only: turn every triangle to the camera
        corners = vertices[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        away = ((seen_from - corners[:, 0]) * normal).sum(1) < 0
        faces = np.where(away[:, None], faces[:, ::-1], faces)
        glow = {"type": "mesh_attribute", "name": "face_label"}
        properties["bsdf"] = mi.load_dict({"type": "diffuse"})
        properties["emitter"] = mi.load_dict({"type": "area", "radiance": glow})
    else:
        color = {"type": "mesh_attribute", "name": "vertex_color"}
        inner = _bsdf(part.material, color)
        if part.roughness is not None and part.material == "skin":
            inner["roughness"] = {"type": "mesh_attribute", "name": "vertex_roughness"}
        properties["bsdf"] = mi.load_dict({"type": "twosided", "inner": inner})
    smooth = seen_from is None
    mesh = mi.Mesh(name, len(vertices), len(faces), props=properties, has_vertex_normals=smooth)
    values = mi.traverse(mesh)
    values["vertex_positions"] = vertices.astype(np.float32).ravel()
    values["faces"] = faces.astype(np.uint32).ravel()
    if smooth:
        normals = vertex_normals(vertices, faces) if part.normals is None else part.normals[used]
        values["vertex_normals"] = normals.astype(np.float32).ravel()
        colors = np.broadcast_to(part.colors, part.vertices.shape)[used]
        colors = np.clip(colors, 0, 0.95).astype(np.float32)
        mesh.add_attribute("vertex_color", 3, colors.ravel())
        if part.roughness is not None:
            mesh.add_attribute("vertex_roughness", 1, part.roughness[used].astype(np.float32))
    else:
        colors = np.clip(np.broadcast_to(part.colors, part.vertices.shape), 0, 0.95)
        color = colors[part.faces].mean(1)
        label = np.broadcast_to(np.asarray(part.classes), len(faces)) / LABEL_SCALE
        glows: Any = np.stack([label, color[:, 0], color[:, 1:].mean(1)], 1).astype(np.float32)
        mesh.add_attribute("face_label", 3, glows.ravel())
    values.update()
    return mesh


def _tubes(part: Part, folder: str, for_mask: bool) -> object:
    mi = renderer()

    strands = part.vertices[:: part.mask_step] if for_mask else part.vertices
    n, k, _ = strands.shape
    radius = part.mask_radius if for_mask else part.radius
    taper = np.interp(np.linspace(0, 1, k), [0, 0.6, 1], [1.0, 0.9, 0.45]) if n > 1 else np.ones(k)
    rows = np.concatenate([strands, np.broadcast_to(taper[None, :, None] * radius, (n, k, 1))], 2)
    text = (("%.5f %.5f %.5f %.6f\n" * k + "\n") * n) % tuple(rows.ravel())
    # Mitsuba 3.9 reads past its tables when a ray hits the very end of a shape's last strand, so
    # the last strand is one that is too thin to hit.
    text += "{:.5f} {:.5f} {:.5f} 0.000001\n".format(*part.vertices[0, 0]) * 4
    handle, path = tempfile.mkstemp(suffix=".txt", dir=folder)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    rgb = [float(x) for x in np.clip(part.colors, 0, 0.9)]
    bsdf = _bsdf(part.material, {"type": "rgb", "value": rgb})
    return mi.load_dict({"type": "bsplinecurve", "filename": path, "bsdf": bsdf})


def shapes(
    parts: list[Part], folder: str, mask_seen_from: np.ndarray | None = None
) -> dict[str, object]:
    """Mitsuba shapes by name.

    Args:
        folder: where strands are written for mitsuba to read.
        mask_seen_from: (3,) camera position for the mask, where meshes glow with their class id
            divided by LABEL_SCALE (first channel) and their red and mean green-blue albedo, and
            thin tubes are widened; None for the picture.
    """
    return {
        f"part{i:03d}": _mesh(part, f"part{i:03d}", mask_seen_from)
        if part.faces is not None
        else _tubes(part, folder, mask_seen_from is not None)
        for i, part in enumerate(parts)
    }
