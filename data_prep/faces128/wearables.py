"""Eyes, glasses, jewellery, hats and clothes as small meshes and tubes around a given head."""

from dataclasses import dataclass

import numpy as np

from data_prep.faces128 import regions
from data_prep.faces128 import strands as st
from data_prep.faces128.head import head_model
from data_prep.faces128.person import IRIS_COLORS, Identity, View


@dataclass
class Part:
    """A triangle mesh (`faces` given) or tubes (`faces` None: vertices (N, K, 3) are strands).

    Attributes:
        vertices: metres, head space. colors: (V, 3) linear RGB, or (3,) for all.
        classes: one mask class id, or (F,) one a triangle.
        material: "skin", "eye", "hair", "cloth", "glossy", "metal" or "matte".
        radius: tube radius, metres.  `mask_radius`: in the mask, where thin things would vanish.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    colors: np.ndarray
    classes: int | np.ndarray
    material: str = "matte"
    normals: np.ndarray | None = None
    radius: float = 0.0
    mask_radius: float = 0.0


def eyeball(centre: np.ndarray, radius: float, identity: Identity, view: View, label: int) -> Part:
    """A sphere with sclera, limbal ring, iris and pupil, turned to the gaze."""
    rings, segments = 40, 48
    theta = np.r_[
        np.linspace(0, np.radians(32), 24), np.linspace(np.radians(36), np.pi, rings - 24)
    ]
    phi = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    t, f = np.meshgrid(theta, phi, indexing="ij")
    local = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], -1).reshape(-1, 3)
    bulge = 1 + 0.035 * np.clip(1 - t.ravel() / np.radians(30), 0, 1) ** 0.7
    yaw, pitch = np.radians(view.gaze)
    axis = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = st.unit(np.cross([0, 1, 0], axis))
    frame = np.stack([right, np.cross(axis, right), axis], 1)
    normal = local @ frame.T
    degrees = np.degrees(t).ravel()
    iris = np.array(IRIS_COLORS[identity.iris])
    rng = np.random.default_rng([identity.seed, 4])
    streak = 1 + 0.25 * np.sin(f.ravel() * 23 + rng.uniform(0, 6)) * np.sin(f.ravel() * 11)
    sclera = np.array([0.72, 0.66, 0.62])
    color = np.where(degrees[:, None] < 25, iris * (1.25 * streak)[:, None], sclera)
    color = np.where(((degrees > 22) & (degrees < 26))[:, None], iris * 0.3, color)
    color = np.where(degrees[:, None] < 9.5, 0.003, color)
    index = np.arange(rings * segments).reshape(rings, segments)
    nxt = np.roll(index, -1, 1)
    a, b, c, d = index[:-1], index[1:], nxt[1:], nxt[:-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    vertices = centre + radius * bulge[:, None] * normal
    return Part(vertices, faces, color, label, "eye", normal)


def tube(path: np.ndarray, color: tuple, label: int, radius: float, material: str) -> Part:
    """One tube along path (K, 3)."""
    ends = np.concatenate([path[:1], path, path[-1:]])  # a B-spline stops short of its end points
    return Part(
        ends[None], None, np.array(color), label, material, radius=radius, mask_radius=radius
    )


def glasses(view: View, body: np.ndarray, eyes: list[np.ndarray]) -> list[Part]:
    """Frames (and dark lenses for sunglasses) in front of the eyes."""
    label = regions.CLASS["eye_g"]
    angle = np.linspace(0, 2 * np.pi, 36)
    power = 2 + 2.2 * view.glasses_shape
    sun = view.glasses == "sunglasses"
    half_w, half_h = 0.0245, 0.0165 + 0.004 * (1 - view.glasses_shape) + 0.003 * sun
    parts = []
    front = 0.0
    for centre in eyes:
        near = (np.abs(body[:, 0] - centre[0]) < half_w) & (np.abs(body[:, 1] - centre[1]) < half_h)
        near &= np.abs(body[:, 0]) > 0.012
        front = max(front, body[near, 2].max() + 0.002)
    radius = 0.0011 + 0.0008 * (1 - view.glasses_rgb[0])
    for centre in eyes:
        sign = np.sign(centre[0])
        c, s = np.cos(angle), np.sin(angle)
        x = centre[0] + sign * 0.001 + half_w * np.sign(c) * np.abs(c) ** (2 / power)
        y = centre[1] - 0.002 + half_h * np.sign(s) * np.abs(s) ** (2 / power)
        z = front - 0.7 * np.clip(np.abs(x) - 0.02, 0, None) ** 2 / 0.08
        ring = np.stack([x, y, z], 1)
        parts.append(tube(ring, view.glasses_rgb, label, radius, "glossy"))
        if sun:
            middle = ring.mean(0, keepdims=True)
            fan = np.stack([np.arange(35), np.arange(1, 36), np.full(35, 36)], 1)
            fan = fan if sign > 0 else fan[:, ::-1]  # facing forward
            parts.append(
                Part(np.r_[ring, middle], fan, np.array([0.012, 0.012, 0.014]), label, "glossy")
            )
        outer = ring[np.argmax(sign * ring[:, 0])]
        side = np.abs(
            body[(np.abs(body[:, 1]) < 0.02) & (np.abs(body[:, 2] + 0.03) < 0.015), 0]
        ).max()
        ear = np.array([sign * (side + 0.008), 0.008, -0.085])
        temple = outer + np.linspace(0, 1, 6)[:, None] * (ear - outer)
        temple[1:, 0] = sign * np.maximum(np.abs(temple[1:, 0]), side + 0.002)
        parts.append(tube(temple, view.glasses_rgb, label, radius, "glossy"))
    inner = 0.0085
    bridge = np.array(
        [
            [x, 0.003 + 0.003 * np.cos(x / inner * 1.5), front + 0.002]
            for x in np.linspace(-inner, inner, 7)
        ]
    )
    parts.append(tube(bridge, view.glasses_rgb, label, radius, "glossy"))
    return parts


def earrings(body: np.ndarray) -> list[Part]:
    """A ball under each ear lobe."""
    ear = head_model().regions["ears"] > 0.5
    parts = []
    for sign in (1, -1):
        side = body[ear & (body[:, 0] * sign > 0)]
        lobe = side[np.argmin(side[:, 1])] + np.array([sign * 0.001, -0.004, 0.003])
        path = lobe + np.linspace(0.0035, -0.0035, 5)[:, None] * np.array([0, 1.0, 0])
        parts.append(tube(path, (0.75, 0.58, 0.25), regions.CLASS["ear_r"], 0.0042, "metal"))
    return parts


def necklace(body: np.ndarray) -> Part:
    """A chain around the neck's base."""
    p, _ = st.average_head()
    angle = np.linspace(0, 2 * np.pi, 48)
    axis = np.array([0, 0, -0.09])
    path = []
    for a in angle:
        direction = np.array([np.sin(a), 0, np.cos(a)])
        level = -0.142 - 0.022 * max(np.cos(a), -0.6)
        ring = body[np.abs(p[:, 1] - level) < 0.012]
        outward = (ring - axis) @ direction
        sideways = np.abs(np.cross(direction, ring - axis)[:, 1])
        path.append(ring[np.argmax(outward - 0.6 * sideways)] + direction * 0.003)
    smooth_path = np.array(path)
    for _ in range(3):
        smooth_path = (
            np.roll(smooth_path, 1, 0) + 2 * smooth_path + np.roll(smooth_path, -1, 0)
        ) / 4
    return tube(smooth_path, (0.75, 0.58, 0.25), regions.CLASS["neck_l"], 0.0018, "metal")


def _clip(
    values: np.ndarray, faces: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts triangles along level = 0 and keeps the positive side; values (V, D), level (V,)."""
    inside = level[faces] > 0
    kept = [faces[inside.all(1)]]
    points = [values]
    base = len(values)
    for count in (1, 2):
        cut = inside.sum(1) == count
        odd = np.argmax(inside[cut] if count == 1 else ~inside[cut], 1)
        a, b, c = (
            np.take_along_axis(faces[cut], ((odd + k) % 3)[:, None], 1)[:, 0] for k in range(3)
        )
        ab, ac = (
            values[a] + (level[a] / (level[a] - level[q]))[:, None] * (values[q] - values[a])
            for q in (b, c)
        )
        n = len(a)
        i_ab, i_ac = base + np.arange(n), base + n + np.arange(n)
        points += [ab, ac]
        base += 2 * n
        if count == 1:
            kept.append(np.stack([a, i_ab, i_ac], 1))
        else:
            kept += [np.stack([i_ab, b, c], 1), np.stack([i_ab, c, i_ac], 1)]
    return np.concatenate(points), np.concatenate(kept)


def _shell(body: np.ndarray, normals: np.ndarray, level: np.ndarray, offset: np.ndarray) -> tuple:
    """The part of the body where `level` (V,) is positive, moved out by `offset` (V,) metres."""
    return _clip(body + normals * offset[:, None], head_model().faces["body"], level)


def clothes(view: View, body: np.ndarray, normals: np.ndarray) -> Part:
    """A garment: the body below the neckline, moved outward."""
    p, _ = st.average_head()
    cover = regions.neckline(view.cloth, p)
    thick = 0.004 + 0.005 * regions.smooth(cover, 0.02, 0.0) + 0.002 * np.sin(p[:, 0] * 90) ** 2
    if view.cloth == "collar":
        thick = thick + 0.010 * regions.smooth(cover, 0.03, 0.0)
    vertices, faces = _shell(body, normals, cover, thick)
    return Part(vertices, faces, np.array(view.cloth_rgb), regions.CLASS["cloth"], "cloth")


def hat(view: View, body: np.ndarray, normals: np.ndarray) -> list[Part]:
    """A beanie over the scalp, with a brim for `brim`."""
    p, _ = st.average_head()
    level = p[:, 1] - np.interp(st.azimuth(p), [0, 60, 95, 180], [0.056, 0.034, 0.022, -0.03])
    top = regions.smooth(p[:, 1], 0.05, 0.11)
    vertices, faces = _shell(body, normals, level, 0.013 + 0.016 * top)
    label = regions.CLASS["hat"]
    parts = [Part(vertices, faces, np.array(view.hat_rgb), label, "cloth")]
    if view.hat == "brim":
        angle = np.linspace(0, 2 * np.pi, 64)
        direction = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], 1)
        centre = np.array([0, 0.062, -0.07])
        rim = np.array(
            [centre + d * (((body[p[:, 1] > 0.04] - centre) @ d).max() + 0.008) for d in direction]
        )
        rim[:, 1] = 0.062 - 0.016 * np.cos(angle + np.pi)
        outer = rim + direction * 0.05 - np.array([0, 0.012, 0])
        n = len(angle)
        i = np.arange(n - 1)
        quads = np.r_[np.stack([i, i + 1, i + n + 1], 1), np.stack([i, i + n + 1, i + n], 1)]
        top = np.r_[rim, outer]
        both = np.r_[top, top - [0, 0.003, 0]]
        parts.append(
            Part(both, np.r_[quads, quads[:, ::-1] + 2 * n], np.array(view.hat_rgb), label, "cloth")
        )
    return parts
