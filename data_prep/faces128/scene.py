"""From a person and a view to parts in space."""

import numpy as np
from scipy.spatial import cKDTree

from data_prep.faces128 import hair, regions, skin
from data_prep.faces128 import strands as st
from data_prep.faces128.clothes import clothes
from data_prep.faces128.head import head_model, vertex_normals
from data_prep.faces128.part import Part
from data_prep.faces128.person import Identity, View
from data_prep.faces128.relief import skin_surface
from data_prep.faces128.surface import surface
from data_prep.faces128.traits import OPEN_NECKS
from data_prep.faces128.wearables import earrings, eyeball, glasses, hat, necklace


def build_parts(identity: Identity, view: View) -> list[Part]:
    """All geometry of one picture, in head space (metres)."""
    model = head_model()
    body = model.vertices(identity.phenotype, {**identity.shape(), **view.expression})
    normals = vertex_normals(body, model.faces["body"])
    rng = np.random.default_rng([identity.seed, 5])
    hairline = None if identity.hair_style == "bald" else round(identity.receding, 1)
    skin_points = skin_surface(identity, view, body)
    skin_normals = surface().normals(skin_points)
    parts = [
        Part(
            skin_points, surface().faces, skin.vertex_colors(identity, view),
            regions.face_classes(hairline), "skin", skin_normals,
            roughness=skin.vertex_roughness(identity, view),
        )
    ]  # fmt: skip
    centres = eye_centres(body)
    parts += _eyes(identity, view, body, centres)
    parts += _mouth(view, body, skin_points)
    parts += _hair(identity, view, body, normals, rng)
    if view.glasses != "none":
        parts += glasses(view, body, centres)
    if view.earrings:
        parts += earrings(view, body)
    if view.necklace and view.cloth in OPEN_NECKS:
        parts.append(necklace(view, body))
    parts += clothes(view, skin_points, skin_normals, identity.seed)
    if view.hat != "none":
        parts += hat(view, body, normals)
    return parts


def eye_centres(body: np.ndarray) -> list[np.ndarray]:
    """Centres (3,) of the left and the right eyeball, metres; body (V, 3) of the head model."""
    balls = [body[np.unique(head_model().faces[name])] for name in ("l_eye", "r_eye")]
    return [(ball.max(0) + ball.min(0)) / 2 for ball in balls]


def _eyes(
    identity: Identity, view: View, body: np.ndarray, centres: list[np.ndarray]
) -> list[Part]:
    model = head_model()
    parts: list[Part] = []
    lash_rgb = np.array([0.010, 0.008, 0.007])
    if identity.male:
        lash_rgb = 0.6 * lash_rgb + 0.18 * skin.skin_rgb(identity.skin_tone, 0)
    for side, centre in zip("lr", centres, strict=True):
        label = regions.CLASS[f"{side}_eye"]
        ball = body[np.unique(model.faces[f"{side}_eye"])]
        radius = float(np.ptp(ball, axis=0)[:2].mean() / 2)
        parts.append(eyeball(centre, radius * 0.97, identity, view, label))
        lash = model.faces[f"{side}_lashes"]
        parts.append(Part(body, np.r_[lash, lash[:, ::-1]], lash_rgb, label, "matte"))
    return parts


def _mouth(view: View, body: np.ndarray, skin_points: np.ndarray) -> list[Part]:
    """Teeth and tongue where the mouth is open, always behind chin and cheeks."""
    if not view.mouth_open:
        return []
    parts = []
    smile = view.expression.get("mouthUpperUpLeft", 0.0)
    p, facing = surface().average, surface().average_normals[:, 2] > 0.2
    around = (p[:, 1] < -0.081) | (np.abs(p[:, 0]) > 0.029)
    around &= facing & (p[:, 2] > -0.04) & (surface().regions["inside-mouth"] < 0.1)
    outside = skin_points[around]
    tree = cKDTree(outside[:, :2])
    for name, rgb, forward, down in (
        ("upper_teeth", (0.93, 0.90, 0.83), 0.004, 0.002 * smile),
        ("lower_teeth", (0.88, 0.85, 0.77), 0.002, 0.0),
        ("tongue", (0.50, 0.15, 0.14), 0.0, 0.0),
    ):
        moved = body + np.array([0.0, -down, forward])
        faces = head_model().faces[name]
        used = np.unique(faces)
        distance, near = tree.query(moved[used, :2], k=6)
        limit = np.where(distance < 0.004, outside[near, 2], np.inf).min(1) - 0.003
        moved[used, 2] = np.minimum(moved[used, 2], limit)
        label = regions.CLASS["mouth"]
        parts.append(Part(moved, faces, np.array(rgb), label, "tooth"))
    return parts


def _hair(
    identity: Identity,
    view: View,
    body: np.ndarray,
    normals: np.ndarray,
    rng: np.random.Generator,
) -> list[Part]:
    """Brows, head hair and beard."""
    classes = regions.CLASS
    parts: list[Part] = []
    rgb = np.array(identity.hair_rgb)
    brows = hair.grow_brows(body, normals, identity.brow_arch, identity.brow_thickness, rng)
    brow_rgb = BROW_SHADE[identity.hair_color] * rgb
    for brow, label in zip(brows, (classes["l_brow"], classes["r_brow"]), strict=True):
        parts.append(Part(brow, None, brow_rgb, label, "hair", radius=0.0004, mask_radius=0.0014))
    if identity.hair_style != "bald":
        style = hair.STYLES["short" if identity.hair_style == "receding" else identity.hair_style]
        width = 0.064 + 0.003 * float(identity.shape_code[0])
        strands = hair.grow_hair(
            style, body, normals, identity.receding, identity.part_x, width, rng
        )
        shade = hair.shades(strands, len(SHADES), rng)
        if view.hat != "none":
            p = strands[:, 1]
            under = p[:, 1] > np.interp(st.azimuth(p), [0, 60, 95, 180], [0.05, 0.03, 0.018, -0.03])
            shown = ~under | (style.length[1] >= 0.1)
            strands, shade = strands[shown], shade[shown]
        thin = style.radius
        for k, gain in enumerate(SHADES):
            lock = strands[shade == k]
            if len(lock):
                tint = gain * rgb
                step = 1 if style.length[1] < 0.03 else 2
                label = classes["hair"]
                parts.append(Part(lock, None, tint, label, "hair", None, thin, 0.0013, step))
        if identity.hair_style == "bun" and view.hat == "none":
            parts += hair.bun(body, rgb, rng)
    beards = [identity.beard] if identity.beard in ("moustache", "goatee", "full") else []
    beard_rgb = BROW_SHADE[identity.hair_color] ** 0.5 * rgb * [1.0, 0.92, 0.85]
    for kind in beards + ["sideburns"] * identity.sideburns:
        beard = hair.grow_beard(
            kind, identity.beard_length, body, normals, head_model().regions["lips"], rng
        )
        for k, share in enumerate((0.65, 0.9, 1.15)):
            lock = beard[k::3]
            tint = share * beard_rgb
            parts.append(Part(lock, None, tint, classes["skin"], "hair", None, 5e-4, 5e-4))
    return parts


SHADES = tuple(
    np.array(gain) for gain in
    ([0.62, 0.60, 0.58], [0.85, 0.84, 0.83], [1, 1, 1], [1.16, 1.14, 1.10], [1.40, 1.36, 1.28])
)  # fmt: skip
BROW_SHADE = {"black": 1.0, "brown": 0.7, "blond": 0.32, "red": 0.45, "gray": 0.6, "white": 0.5}
