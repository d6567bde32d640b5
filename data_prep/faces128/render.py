"""Path tracing with mitsuba: image, class mask and depth of one picture.

World units are EG3D's: the camera is 2.7 from the origin, normalised focal length 4.2647.
"""

import tempfile
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from data_prep.faces128 import regions, scene, shapes
from data_prep.faces128.backdrop import background, chance
from data_prep.faces128.denoising import FirstHits, denoise, strand_directions
from data_prep.faces128.lighting import lights
from data_prep.faces128.painting import PAINTERS
from data_prep.faces128.part import Part
from data_prep.faces128.person import Identity, View
from data_prep.faces128.styles import STATUES, dressed, remade, tone

RADIUS, FOCAL = 2.7, 4.2647
METRES_PER_UNIT = 0.305 / (RADIUS / FOCAL)  # the frame is 30.5 cm wide at the head
PIVOT = np.array([0.0, -0.016, -0.03])  # head-space point that every camera looks at
FOV = float(np.degrees(2 * np.arctan(0.5 / FOCAL)))


@dataclass(frozen=True)
class Rendering:
    """image (H, W, 3) uint8 sRGB; mask (H, W) uint8; depth (H, W) float, 0 = nothing; camera."""

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    camera: np.ndarray


def camera_label(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(25,) EG3D camera: cam2world (16, row-major, OpenCV axes) and normalised intrinsics (9).

    Args:
        yaw: degrees, positive moves the camera to the person's left.
        pitch: degrees, positive moves it up.
        roll: degrees, turns the picture.
    """
    y, p, r = np.radians([yaw, pitch, roll])
    position = RADIUS * np.array([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])
    forward = -position / RADIUS
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = np.cos(r) * right + np.sin(r) * down, -np.sin(r) * right + np.cos(r) * down
    cam2world = np.eye(4)
    cam2world[:3] = np.stack([right, down, forward, position], 1)
    intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
    return np.r_[cam2world.ravel(), intrinsics.ravel()]


def _sensor(camera: np.ndarray, size: int, rfilter: str, spp: int, seed: int) -> dict:
    mi = shapes.renderer()

    cam2world = camera[:16].reshape(4, 4)
    origin, down, forward = cam2world[:3, 3], cam2world[:3, 1], cam2world[:3, 2]
    to_world = mi.ScalarTransform4f().look_at(
        [float(x) for x in origin], [float(x) for x in origin + forward], [float(-x) for x in down]
    )
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba"}
    return {
        "type": "perspective",
        "fov": FOV,
        "near_clip": 1e-3,  # depth counts from here
        "far_clip": 10.0,
        "to_world": to_world,
        "film": {**film, "rfilter": {"type": rfilter}},
        "sampler": {"type": "multijitter", "sample_count": spp, "seed": seed},
    }  # fmt: skip


def exposure(linear: np.ndarray, coverage: np.ndarray, mask: np.ndarray, darkness: float) -> float:
    """A camera's automatic gain: skin of `darkness` 0…1 comes out as such skin should.

    Args:
        linear: (H, W, 3); coverage: (H, W, 1) in [0, 1]; mask: (H, W) class ids.
    """
    light = (linear * [0.2126, 0.7152, 0.0722]).sum(-1)  # no BLAS: see head
    face = np.isin(mask, [regions.CLASS["skin"], regions.CLASS["nose"]]) & (coverage[..., 0] > 0.99)
    if face.sum() < 50:
        face = coverage[..., 0] > 0.99
    wanted = np.interp(darkness, [0.0, 0.25, 0.5, 0.75, 1.0], [0.40, 0.34, 0.25, 0.18, 0.13])
    gain = wanted / max(float(np.median(light[face])), 1e-4)
    brightest = float(np.quantile(light[coverage[..., 0] > 0.99], 0.985))
    return float(min(gain, 0.95 / max(brightest, 1e-4)))


def soften(linear: np.ndarray, hits: FirstHits) -> np.ndarray:
    """Light that enters skin comes out beside: red widest, blue least; inside the skin only.

    Half of the colour tints it before it spreads and half after.
    """
    names = ("skin", "nose", "neck", "l_ear", "r_ear", "u_lip", "l_lip")
    inside = np.isin(hits.mask, [regions.CLASS[name] for name in names]) * hits.purity
    scale = len(hits.mask) / 128
    out = linear.copy()
    tint = np.sqrt(hits.albedo + 0.02)
    light = linear / tint
    for channel, (sigma, share) in enumerate(((1.5, 0.6), (0.8, 0.45), (0.6, 0.35))):
        weight = gaussian_filter(inside, sigma * scale)
        wide = gaussian_filter(light[..., channel] * inside, sigma * scale)
        wide = wide / np.maximum(weight, 1e-6)
        more = share * inside * (wide - light[..., channel]) * tint[..., channel]
        out[..., channel] += np.where(inside > 0, more, 0)
    return out


def tone_map(linear: np.ndarray) -> np.ndarray:
    """uint8 sRGB with a soft shoulder above 0.7, so that highlights do not clip."""
    x = np.clip(linear, 0, None)
    x = np.where(x > 0.7, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)), x)
    srgb = np.where(
        x <= 0.0031308, 12.92 * x, 1.055 * np.power(np.maximum(x, 1e-8), 1 / 2.4) - 0.055
    )
    curved = srgb * srgb * (3 - 2 * srgb)  # a photograph's contrast
    return np.clip((srgb + 0.2 * (curved - srgb)) * 255 + 0.5, 0, 255).astype(np.uint8)


def to_world(parts: list[Part]) -> list[Part]:
    """Head space (metres) to world units, in place."""
    for part in parts:
        part.vertices = (part.vertices - PIVOT) / METRES_PER_UNIT
        part.radius /= METRES_PER_UNIT
        part.mask_radius /= METRES_PER_UNIT
    return parts


def first_hits(
    parts: list[Part], camera: np.ndarray, folder: str, size: int, seed: int, over: int = 3
) -> FirstHits:
    """Traces over x over rays a pixel; parts are in world units.

    Meshes glow with their class id and colour and one bounce-free render reads them; tubes cannot
    glow, so each class of tubes is rendered alone, with the same rays, and wins where it is nearer.
    """
    mi = shapes.renderer()

    sensor = mi.load_dict(_sensor(camera, size * over, "box", 1, seed))

    def rays(drawn: object, integrator: dict) -> np.ndarray:
        return np.array(
            mi.render(drawn, integrator=mi.load_dict(integrator), sensor=sensor, seed=seed)
        )

    def by_pixel(value: np.ndarray) -> np.ndarray:
        return value.reshape(size, over, size, over).swapaxes(1, 2).reshape(size, size, -1)

    meshes = [p for p in parts if p.faces is not None]
    glowing = mi.load_dict({"type": "scene", **shapes.shapes(meshes, folder, camera[[3, 7, 11]])})
    glow = rays(glowing, {"type": "path", "max_depth": 1})
    label = (glow[..., 0] * shapes.LABEL_SCALE).round().astype(int)
    color = glow[..., [1, 2, 2]]
    depth = rays(glowing, {"type": "depth"})[..., 0]
    depth = np.where(depth > 0, depth, np.inf)
    for tube_class in sorted({int(p.classes) for p in parts if p.faces is None}):
        tubes = [p for p in parts if p.faces is None and p.classes == tube_class]
        alone = mi.load_dict({"type": "scene", **shapes.shapes(tubes, folder, camera[[3, 7, 11]])})
        distance = rays(alone, {"type": "depth"})[..., 0]
        nearer = (distance > 0) & (distance < depth)
        label, depth = np.where(nearer, tube_class, label), np.where(nearer, distance, depth)
        color[nearer] = np.mean([p.colors for p in tubes], 0)
    hit = np.isfinite(depth)
    width = (0.5 * over, 0.5 * over, 0)  # the picture's filter
    covered = np.where(hit, 1.0, 1e-9)[..., None]
    albedo = gaussian_filter(color * covered, width) / gaussian_filter(covered, width)
    albedo = albedo[over // 2 :: over, over // 2 :: over]
    label, depth = by_pixel(label), by_pixel(np.where(hit, depth, 0))
    classes = len(regions.CLASS)
    pixel = np.arange(size * size)[:, None] * classes + label.reshape(size * size, -1)
    share = np.bincount(pixel.ravel(), minlength=size * size * classes) / over**2
    share = share.reshape(size, size, classes)
    mask = share.argmax(-1)
    same = (label == mask[..., None]) & (depth > 0)
    mean = (depth * same).sum(-1) / np.maximum(same.sum(-1), 1)
    purity = np.take_along_axis(gaussian_filter(share, (0.4, 0.4, 0)), mask[..., None], 2)[..., 0]
    return FirstHits(mask.astype(np.uint8), np.where(mask == 0, 0, mean), albedo, purity)


def draw(
    parts: list[Part], emitters: dict[str, dict], camera: np.ndarray, size: int, spp: int, seed: int
) -> np.ndarray:
    """Path-traces parts in world units. Returns (size, size, 4) linear RGB and coverage."""
    mi = shapes.renderer()
    with tempfile.TemporaryDirectory() as folder:
        # One block for the whole picture: overlapping blocks are added in varying order.
        integrator = {"type": "path", "max_depth": 3, "hide_emitters": True, "block_size": size}
        description = {
            "type": "scene", **shapes.shapes(parts, folder), **emitters, "integrator": integrator,
            "sensor": _sensor(camera, size, "gaussian", spp, seed),
        }  # fmt: skip
        # Loading in parallel, or merging equal objects, puts the lights in any order.
        drawn = mi.load_dict(description, parallel=False, optimize=False)
        rgba = np.array(mi.render(drawn, spp=spp, seed=seed))
    return np.concatenate([rgba[..., :3], np.clip(rgba[..., 3:], 0, 1)], 2)


def render(
    identity: Identity, view: View, size: int = 128, spp: int = 16, style: str = "photo"
) -> Rendering:
    """Renders one picture; the same arguments give the same arrays.

    Args:
        style: "photo" or one of `styles.STYLES`.
    """
    seed, rng = chance(identity.seed, view)
    camera = camera_label(view.yaw, view.pitch, view.roll)
    identity, view = dressed(identity, view, style)
    parts = to_world(remade(scene.build_parts(identity, view), style, identity.seed))
    rgba = draw(parts, lights(view.light, view.light_power, rng), camera, size, spp, seed)
    with tempfile.TemporaryDirectory() as folder:
        hits = first_hits(parts, camera, folder, size, seed)
    drawn, coverage = rgba[..., :3], rgba[..., 3:]
    gain = exposure(drawn, coverage, hits.mask, tone(identity, style))
    linear = gain * drawn + (1 - coverage) * background(view, size, rng)[0]
    linear = denoise(linear, hits, strand_directions(parts, camera, hits.depth))
    image = tone_map(soften(linear, hits) if style not in STATUES else linear)
    if style in PAINTERS:
        image = PAINTERS[style](image, hits.mask, rng)
    return Rendering(image, hits.mask, hits.depth, camera)
