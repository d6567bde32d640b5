"""Hairstyles, brows and beards as strands of control points."""

from dataclasses import dataclass

import numpy as np

from data_prep.faces128 import strands as st
from data_prep.faces128.part import Part
from data_prep.faces128.regions import CLASS
from data_prep.faces128.relief import noise


@dataclass(frozen=True)
class HairStyle:
    """How one style grows. Lengths in metres; the rest are shares in [0, 1].

    Attributes:
        length: range of strand length.
        flow: "crown" (away from the whorl), "back", "bun" or "tail" (to its knot), "side" (away
            from a side parting) or "part".
        stiffness: how long a strand keeps its direction before gravity bends it.
        lift: how much it stands off the skull at the root.
        volume: clearance over the skull, metres.
        amplitude, wavelength, curl: waves, see `strands.wave`.
        bangs: whether the front falls over the forehead.
        clump: how far strands gather in locks.
        count: strands. radius: of a strand, metres, thicker than real hair so that few cover.
    """

    length: tuple[float, float]
    flow: str = "crown"
    stiffness: float = 0.7
    lift: float = 0.25
    volume: float = 0.006
    amplitude: float = 0.0
    wavelength: float = 0.05
    curl: float = 0.0
    bangs: bool = False
    clump: float = 0.5
    count: int = 6000
    radius: float = 0.00055


STYLES: dict[str, HairStyle] = {
    "buzz": HairStyle((0.004, 0.007), lift=0.9, volume=0.0, clump=0.0, count=6500, radius=0.0005),
    "short": HairStyle((0.022, 0.036), stiffness=0.85, lift=0.32, clump=0.35, count=7500),
    "swept_back": HairStyle((0.05, 0.09), "back", 0.75, 0.5, 0.008, 0.002, 0.06, clump=0.45),
    "side_part": HairStyle((0.04, 0.07), "side", 0.5, 0.35, 0.007, 0.001, 0.06, clump=0.35),
    "curly": HairStyle((0.035, 0.07), "crown", 0.95, 0.9, 0.004, 0.006, 0.02, 1.0, clump=0.5),
    "afro": HairStyle((0.05, 0.085), "crown", 1.0, 1.6, 0.002, 0.006, 0.013, 1.0, clump=0.3),
    "wavy": HairStyle((0.13, 0.2), "part", 0.3, 0.3, 0.010, 0.008, 0.055, 0.3, clump=0.55),
    "bob_bangs": HairStyle((0.13, 0.16), "crown", 0.25, 0.25, 0.010, bangs=True, clump=0.3),
    "bob": HairStyle((0.14, 0.18), "side", 0.25, 0.25, 0.012, 0.001, 0.08, clump=0.3),
    "long_straight": HairStyle((0.24, 0.34), "part", 0.2, 0.2, 0.008, 0.001, 0.1, clump=0.3),
    "long_wavy": HairStyle((0.24, 0.34), "side", 0.25, 0.3, 0.012, 0.011, 0.065, 0.4, clump=0.6),
    "bangs_long": HairStyle((0.24, 0.34), "part", 0.2, 0.2, 0.009, bangs=True, clump=0.3),
    "ponytail": HairStyle((0.09, 0.1), "tail", 0.95, 0.04, 0.004, clump=0.3),
    "bun": HairStyle((0.08, 0.1), "bun", 0.95, 0.04, 0.004, clump=0.3),
}
# Flow → where its strands are tied on the average head, and how far off the skull.
KNOTS = {
    "bun": (np.array([0.0, 0.128, -0.112]), np.array([0.0, 0.016, -0.004])),
    "tail": (np.array([0.0, 0.060, -0.200]), np.array([0.0, 0.002, -0.012])),
}
STEPS = 9


def scalp_density(receding: float) -> np.ndarray:
    """Growth density of the scalp over `strands.sample_positions()`."""
    p = st.sample_positions()
    distance = st.hairline_distance(p, receding)
    ear = (np.abs(p[:, 0]) > 0.066) & (np.abs(p[:, 1] + 0.022) < 0.04) & (p[:, 2] > -0.105)
    low = p[:, 1] < -0.075
    return np.clip(distance / 0.008, 0, 1) * ~(ear & (distance < 0.03)) * ~low


def _flow(p: np.ndarray, normal: np.ndarray, style: HairStyle, part_x: float) -> np.ndarray:
    if style.flow in KNOTS:
        direction = KNOTS[style.flow][0] - p
    elif style.flow == "back":
        direction = np.array([0.0, 0.25, -1.0]) + 0 * p
        direction[:, 0] = 2.5 * p[:, 0]
    elif style.flow in ("side", "part"):
        side = np.sign(p[:, 0] - part_x)
        direction = np.stack([side, -0.5 + 0 * side, -0.55 + 0 * side], 1)
    else:
        direction = p - st.CROWN
        direction[:, 1] -= 0.03
    tangential = direction - np.einsum("nd,nd->n", direction, normal)[:, None] * normal
    return st.unit(tangential)


def grow_hair(
    style: HairStyle,
    vertices: np.ndarray,
    normals: np.ndarray,
    receding: float,
    part_x: float,
    face_width: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, STEPS, 3) control points, metres, on a deformed head.

    Args:
        vertices, normals: (V, 3) of the body mesh.
        receding: 0 (full hairline) to 1.
        part_x: parting's lateral position, metres.
        face_width: half width that long hair leaves free, metres.
    """
    roots = st.sample_roots(scalp_density(receding), style.count, rng)
    position, normal = roots.on(vertices, normals)
    average, _ = st.average_head()
    rest, _ = roots.on(average, normals)
    n = len(position)
    length = rng.uniform(*style.length, n)
    knot = _knot(vertices, style.flow) if style.flow in KNOTS else None
    if knot is not None:  # every strand ends in the knot
        length = 1.1 * np.linalg.norm(position - knot, axis=1)
    bangs = np.zeros(n, bool)
    if style.bangs:
        bangs = (st.azimuth(rest) < 42) & (rest[:, 2] > -0.06)
        length[bangs] = np.clip((rest[bangs, 1] - 0.022) * 1.15 + 0.012, 0.03, 0.1)
    flow = _flow(position, normal, style, part_x)
    if style.bangs:
        forward = np.array([0.0, -0.25, 1.0]) + 0 * position[bangs]
        forward[:, 0] = position[bangs, 0] * 4
        flow[bangs] = st.unit(forward)
    nape = (rest[:, 1] < -0.01) & (st.azimuth(rest) > 100)
    length = np.where(nape & (style.length[1] < 0.1), length * 0.4, length)
    temple = (rest[:, 1] < 0.02) & (st.azimuth(rest) < 100)
    length = np.where(temple & (style.length[1] < 0.1), length * 0.35, length)

    side = np.where(position[:, 0] > part_x, 1.0, -1.0)
    collider = st.Collider(vertices, normals)
    clearance = style.volume * rng.uniform(0.3, 1.3, n)
    direction = st.unit(flow + normal * style.lift + rng.normal(0, 0.12, (n, 3)))
    points = [position - normal * 0.002, position]
    p = position
    gravity = np.array([0.0, -1.0, 0.0])
    for k in range(STEPS - 2):
        s = (k + 1) / (STEPS - 2)
        pull = (1 - style.stiffness) * (0.35 + 0.65 * s)
        direction = st.unit(direction * (1 - pull) + gravity * pull)
        if knot is not None:
            direction = st.unit(0.5 * direction + 0.5 * st.unit(knot - p))
        new = p + direction * (length / (STEPS - 2))[:, None]
        new = collider.push_out(new, clearance * min(1.0, 2.5 * s))
        if style.length[1] > 0.1:
            free = st.part_curtain(new, side, face_width)
            new = np.where(bangs[:, None], new, free)
        direction = st.unit(0.35 * direction + 0.65 * st.unit(new - p))
        p = new
        points.append(p)
    hair = np.stack(points, 1)
    if style.clump:
        hair = st.clump(hair, style.clump, 22, rng)
    if style.amplitude:
        hair = st.wave(hair, style.amplitude, style.wavelength, style.curl, rng)
    if style.length[1] > 0.1:  # locks and waves must not fall over the face either
        for k in range(2, STEPS):
            free = st.part_curtain(hair[:, k], side, face_width)
            hair[:, k] = np.where(bangs[:, None], hair[:, k], free)
    return hair


def shades(strands: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) index of each strand's shade, 0 darkest: alike within locks, with single light hairs."""
    root = strands[:, 0]
    lock = noise(root * [1, 1, 0.6], 0.03, rng) + 0.45 * rng.normal(0, 1, len(root))
    return np.clip(np.round(count / 2 - 0.5 + 0.9 * lock), 0, count - 1).astype(int)


def _knot(body: np.ndarray, flow: str) -> np.ndarray:
    """(3,) where strands are tied on the head model's vertices (V, 3)."""
    place, off = KNOTS[flow]
    return body[np.argmin(((st.average_head()[0] - place) ** 2).sum(1))] + off


def bun(body: np.ndarray, rgb: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """A knot of hair on the crown: strands wound around a ball."""
    centre = _knot(body, "bun")
    n, radius = 900, 0.034
    pole = st.unit(np.array([0.0, 0.5, 1.0]) + rng.normal(0, 0.25, (n, 3)))
    first = st.unit(np.cross(pole, rng.normal(0, 1, (n, 3))))
    second = np.cross(pole, first)
    angle = rng.uniform(0, 2 * np.pi, (n, 1)) + np.linspace(0, 2.2, STEPS)
    tilt = rng.uniform(-0.9, 0.9, (n, 1, 1))
    ring = np.cos(angle)[..., None] * first[:, None] + np.sin(angle)[..., None] * second[:, None]
    points = np.sqrt(1 - tilt**2) * ring + tilt * pole[:, None]
    size = radius * rng.uniform(0.82, 1.03, (n, 1, 1))
    strands = centre + size * points * [1.0, 0.85, 1.0]
    parts = []
    for k, gain in enumerate((0.7, 1.0, 1.3)):
        label = CLASS["hair"]
        parts.append(Part(strands[k::3], None, gain * rgb, label, "hair", None, 0.0008, 0.0016))
    return parts


def _short_strands(
    roots: st.Roots,
    vertices: np.ndarray,
    normals: np.ndarray,
    direction: np.ndarray,
    length: np.ndarray,
    lift: float,
    rng: np.random.Generator,
) -> np.ndarray:
    position, normal = roots.on(vertices, normals)
    direction = direction - np.einsum("nd,nd->n", direction, normal)[:, None] * normal
    direction = st.unit(st.unit(direction) + normal * lift + rng.normal(0, 0.15, normal.shape))
    t = np.linspace(0, 1, 5)[None, :, None] * length[:, None, None]
    return (position - 0.0006 * normal)[:, None] + t * direction[:, None]


def grow_brows(
    vertices: np.ndarray,
    normals: np.ndarray,
    arch: float,
    thickness: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Left and right brow, each (N, 5, 3); `arch` 0…1.5, `thickness` 0.5…1.6 of the average."""
    p = st.sample_positions()
    inside = (st.brow_distance(p, arch, thickness) < 0).astype(float)
    brows = []
    for sign in (1.0, -1.0):
        roots = st.sample_roots(inside * (p[:, 0] * sign > 0), int(320 * thickness**0.5), rng)
        rest, _ = roots.on(st.average_head()[0], normals)
        s = np.clip((np.abs(rest[:, 0]) - 0.011) / 0.043, 0, 1)
        direction = np.stack([sign * (0.5 + s), 0.75 - 1.1 * s, -0.3 * s], 1)
        length = rng.uniform(0.005, 0.008, len(s)) * (0.8 + 0.25 * thickness)
        brows.append(_short_strands(roots, vertices, normals, direction, length, 0.08, rng))
    return brows[0], brows[1]


def grow_beard(
    kind: str,
    length: float,
    vertices: np.ndarray,
    normals: np.ndarray,
    lips: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, 5, 3) strands of a `moustache`, `goatee`, `full` beard or `sideburns`, `length` metres.

    Args:
        lips: (V,) weights of the lips, where nothing grows.
    """
    p = st.sample_positions()
    roots_all, _ = st._samples()
    corners = st.head_model().faces["body"][roots_all.face]
    grows = st.sideburn_weight(p) if kind == "sideburns" else st.beard_weight(p, kind)
    density = grows * (lips[corners].max(1) < 0.3)
    count = {"moustache": 700, "goatee": 1100, "full": 3600, "sideburns": 500}[kind]
    roots = st.sample_roots(density, count, rng)
    rest, _ = roots.on(st.average_head()[0], normals)
    down = np.stack(
        [
            0.35 * np.sign(rest[:, 0]) * (np.abs(rest[:, 0]) > 0.004),
            0 * rest[:, 0] - 1,
            0 * rest[:, 0],
        ],
        1,
    )
    lengths = length * rng.uniform(0.6, 1.2, count)
    lengths *= np.where(rest[:, 1] > -0.066, 0.55, 1.0)
    return _short_strands(roots, vertices, normals, down, lengths, 0.45, rng)
