"""From a person and a view to parts in space, and from those to image, mask and depth."""

import os
import tempfile
from typing import Any

import numpy as np

from data_prep.faces128 import hair, regions, skin
from data_prep.faces128 import strands as st
from data_prep.faces128.head import head_model, vertex_normals
from data_prep.faces128.person import Identity, View
from data_prep.faces128.wearables import (
    Part,
    clothes,
    earrings,
    eyeball,
    glasses,
    hat,
    necklace,
)  # fmt: skip


def renderer() -> Any:
    """mitsuba, in the variant that renders the same on every machine: one CPU thread, RGB."""
    import drjit
    import mitsuba

    mitsuba.set_variant("scalar_rgb")
    drjit.set_thread_count(1)  # several add light in varying order; processes share the work
    return mitsuba


def build_parts(identity: Identity, view: View) -> list[Part]:
    """All geometry of one picture, in head space (metres)."""
    model = head_model()
    body = model.vertices(identity.phenotype, {**identity.shape(), **view.expression})
    faces = model.faces["body"]
    normals = vertex_normals(body, faces)
    rng = np.random.default_rng([identity.seed, 5])
    classes = regions.CLASS
    hairline = None if identity.hair_style == "bald" else round(identity.receding, 1)
    labels = regions.face_classes(hairline)
    parts = [Part(body, faces, skin.vertex_colors(identity, view), labels, "skin", normals)]

    centres = []
    for name, label in (("l_eye", classes["l_eye"]), ("r_eye", classes["r_eye"])):
        ball = body[np.unique(model.faces[name])]
        centre = (ball.max(0) + ball.min(0)) / 2
        radius = float(np.ptp(ball, axis=0)[:2].mean() / 2)
        centres.append(centre)
        parts.append(eyeball(centre, radius * 0.97, identity, view, label))
    for name, label in (("l_lashes", classes["l_eye"]), ("r_lashes", classes["r_eye"])):
        dark = np.array([0.012, 0.009, 0.008])
        if identity.male:
            dark = 0.5 * dark + 0.25 * skin.skin_rgb(identity.skin_tone, 0)
        lash = model.faces[name]
        parts.append(Part(body, np.r_[lash, lash[:, ::-1]], dark, label, "matte"))
    mouth = classes["mouth"]
    for name, rgb in (
        ("upper_teeth", (0.72, 0.68, 0.60)),
        ("lower_teeth", (0.66, 0.62, 0.54)),
        ("tongue", (0.42, 0.11, 0.10)),
    ):
        parts.append(Part(body, model.faces[name], np.array(rgb), mouth, "eye"))

    left, right = hair.grow_brows(body, normals, identity.brow_arch, identity.brow_thickness, rng)
    brow_rgb = np.array(identity.hair_rgb) * (0.7 if identity.hair_color != "white" else 0.9)
    for brow, label in ((left, classes["l_brow"]), (right, classes["r_brow"])):
        parts.append(Part(brow, None, brow_rgb, label, "hair", radius=0.00042, mask_radius=0.0014))

    headgear = view.hat != "none"
    if identity.hair_style != "bald":
        style = hair.STYLES["short" if identity.hair_style == "receding" else identity.hair_style]
        width = 0.065 + 0.003 * float(identity.shape_code[0])
        strands = hair.grow_hair(
            style, body, normals, identity.receding, identity.part_x, width, rng
        )
        shade = rng.integers(0, 3, len(strands))
        if headgear:
            p = strands[:, 1]
            under = p[:, 1] > np.interp(st.azimuth(p), [0, 60, 95, 180], [0.05, 0.03, 0.018, -0.03])
            shown = ~under | (style.length[1] >= 0.1)
            strands, shade = strands[shown], shade[shown]
        for k, gain in enumerate((0.72, 1.0, 1.35)):
            lock, tint = strands[shade == k], gain * np.array(identity.hair_rgb)
            if len(lock):
                locks = Part(lock, None, tint, classes["hair"], "hair", None, 0.00085, 0.0012)
                parts.append(locks)
    if identity.beard in ("moustache", "goatee", "full"):
        beard = hair.grow_beard(
            identity.beard, identity.beard_length, body, normals, model.regions["lips"], rng
        )
        tint = 0.8 * np.array(identity.hair_rgb)
        parts.append(Part(beard, None, tint, classes["skin"], "hair", None, 0.0006, 0.0006))

    if view.glasses != "none":
        parts += glasses(view, body, centres)
    if view.earrings:
        parts += earrings(body)
    if view.necklace and view.cloth in ("tshirt", "vneck"):
        parts.append(necklace(body))
    parts.append(clothes(view, body, normals))
    if headgear:
        parts += hat(view, body, normals)
    return parts


LABEL_SCALE = 32.0
MATERIALS: dict[str, dict] = {
    "skin": {"type": "principled", "roughness": 0.42, "specular": 0.35},
    "eye": {"type": "principled", "roughness": 0.12, "specular": 0.6,
            "clearcoat": 1.0, "clearcoat_gloss": 0.98},
    "hair": {"type": "principled", "roughness": 0.45, "specular": 0.3},
    "cloth": {"type": "principled", "roughness": 0.9, "specular": 0.1, "sheen": 0.4},
    "glossy": {"type": "principled", "roughness": 0.15, "specular": 0.6},
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
    used, faces = np.unique(part.faces, return_inverse=True)
    faces = faces.reshape(part.faces.shape)
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
    else:
        label = np.broadcast_to(np.asarray(part.classes), len(faces)) / LABEL_SCALE
        labels: Any = np.repeat(label, 3).astype(np.float32)
        mesh.add_attribute("face_label", 3, labels)
    values.update()
    return mesh


def _tubes(part: Part, folder: str, for_mask: bool) -> object:
    mi = renderer()

    n, k, _ = part.vertices.shape
    radius = part.mask_radius if for_mask else part.radius
    taper = np.interp(np.linspace(0, 1, k), [0, 0.6, 1], [1.0, 0.9, 0.45]) if n > 1 else np.ones(k)
    rows = np.concatenate(
        [part.vertices, np.broadcast_to(taper[None, :, None] * radius, (n, k, 1))], 2
    )
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
            divided by LABEL_SCALE and thin tubes are widened; None for the picture.
    """
    return {
        f"part{i:03d}": _mesh(part, f"part{i:03d}", mask_seen_from)
        if part.faces is not None
        else _tubes(part, folder, mask_seen_from is not None)
        for i, part in enumerate(parts)
    }
