"""Eyes, glasses, jewellery and hats as small meshes and tubes around a given head."""

import numpy as np

from data_prep.faces128 import regions
from data_prep.faces128 import strands as st
from data_prep.faces128.head import head_model
from data_prep.faces128.part import Part, clip, tube
from data_prep.faces128.person import Identity, View
from data_prep.faces128.traits import IRIS_COLORS


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
    iris = np.array(IRIS_COLORS[identity.iris]) * (1 - 0.5 * identity.skin_tone)
    rng = np.random.default_rng([identity.seed, 4])
    streak = 1 + 0.22 * np.sin(f.ravel() * 23 + rng.uniform(0, 6)) * np.sin(f.ravel() * 11)
    glow = 0.75 + 0.75 * regions.smooth(degrees, 20.0, 11.0)  # lighter around the pupil
    shade = np.clip(normal[:, 1] / 0.5, -0.4, 1)  # the upper lid's shadow
    corner = regions.smooth(np.abs(normal[:, 0]), 0.35, 0.75)
    sclera = (
        (1 - 0.25 * identity.skin_tone)
        * np.array([0.68, 0.64, 0.62])
        * (1 - 0.30 * np.clip(shade, 0, 1))[:, None]
    )
    sclera = sclera * (1 - corner[:, None] * np.array([0.10, 0.28, 0.28]))
    color = np.where(degrees[:, None] < 26, iris * (1.15 * streak * glow)[:, None], sclera)
    color = np.where(((degrees > 22.5) & (degrees < 27))[:, None], iris * 0.28, color)
    color = np.where(degrees[:, None] < 9.5, 0.003, color)
    color = color * (1 - 0.35 * np.clip(shade, 0, 1) * (degrees < 27))[:, None]
    index = np.arange(rings * segments).reshape(rings, segments)
    nxt = np.roll(index, -1, 1)
    a, b, c, d = index[:-1], index[1:], nxt[1:], nxt[:-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    vertices = centre + radius * bulge[:, None] * normal
    return Part(vertices, faces, color, label, "eye", normal)


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
    radius = 0.0013 + 0.0009 * (1 - view.glasses_rgb[0])
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


def earrings(view: View, body: np.ndarray) -> list[Part]:
    """A stud with a drop, or a hoop, at each ear lobe."""
    ear = head_model().regions["ears"] > 0.5
    hoop = view.seed % 2 == int(body[0, 0] * 1e6) % 2
    parts = []
    for sign in (1, -1):
        side = body[ear & (body[:, 0] * sign > 0)]
        lobe = side[np.argmin(side[:, 1])] + np.array([sign * 0.003, -0.003, 0.005])
        if hoop:
            a = np.linspace(0, 2 * np.pi, 22)
            ring = np.stack([0.3 * np.cos(a) * sign, np.sin(a) - 1, np.cos(a)], 1)
            path, radius = lobe + 0.0105 * ring, 0.0019
        else:
            path = lobe + np.linspace(0.002, -0.014, 6)[:, None] * np.array([0, 1.0, 0])
            radius = 0.0042
        label = regions.CLASS["ear_r"]
        parts.append(tube(path, view.jewel_rgb, label, radius, "metal"))
    return parts


def necklace(view: View, body: np.ndarray) -> Part:
    """A chain around the neck's base."""
    p, _ = st.average_head()
    angle = np.linspace(0, 2 * np.pi, 48)
    axis = np.array([0, 0, -0.09])
    path = []
    for a in angle:
        direction = np.array([np.sin(a), 0, np.cos(a)])
        level = -0.132 - 0.018 * max(np.cos(a), -0.6)
        ring = body[np.abs(p[:, 1] - level) < 0.012]
        outward = (ring - axis) @ direction
        sideways = np.abs(np.cross(direction, ring - axis)[:, 1])
        path.append(ring[np.argmax(outward - 0.6 * sideways)] + direction * 0.003)
    smooth_path = np.array(path)
    for _ in range(3):
        smooth_path = (
            np.roll(smooth_path, 1, 0) + 2 * smooth_path + np.roll(smooth_path, -1, 0)
        ) / 4
    return tube(smooth_path, view.jewel_rgb, regions.CLASS["neck_l"], 0.0026, "metal")


def hat(view: View, body: np.ndarray, normals: np.ndarray) -> list[Part]:
    """A beanie over the scalp, with a brim for `brim`."""
    p, _ = st.average_head()
    level = p[:, 1] - np.interp(st.azimuth(p), [0, 60, 95, 180], [0.056, 0.034, 0.022, -0.03])
    top = regions.smooth(p[:, 1], 0.05, 0.11)
    offset = 0.013 + 0.016 * top
    vertices, faces = clip(body + normals * offset[:, None], head_model().faces["body"], level)
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
