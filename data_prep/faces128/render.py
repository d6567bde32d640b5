"""Path tracing with mitsuba: image, class mask and depth of one picture.

World units are EG3D's: the camera is 2.7 from the origin, normalised focal length 4.2647.
"""

import tempfile
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, median_filter

from data_prep.faces128 import regions, scene
from data_prep.faces128.lighting import background, lights
from data_prep.faces128.painting import PAINTERS
from data_prep.faces128.person import Identity, View
from data_prep.faces128.styles import dressed, remade
from data_prep.faces128.wearables import Part

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
    mi = scene.renderer()

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


def denoise(linear: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Cross-bilateral filter inside smooth classes (skin, nose, neck, ears, cloth, hat).

    Weights compare colours smoothed over 3x3 pixels, so single noisy pixels do not protect
    themselves; hair, eyes, lips and brows keep their detail but lose single bright pixels.
    """
    eyes = np.isin(mask, [regions.CLASS["l_eye"], regions.CLASS["r_eye"]])[..., None]
    ceiling = 1.6 * median_filter(linear, (3, 3, 1)) + 0.01
    linear = np.where(eyes, linear, np.minimum(linear, ceiling))
    smooth_classes = [
        regions.CLASS[c] for c in ("skin", "nose", "neck", "l_ear", "r_ear", "cloth", "hat")
    ]
    guide = gaussian_filter(np.log(linear + 0.02), (0.8, 0.8, 0))
    total = np.zeros_like(linear)
    weights = np.zeros((*linear.shape[:2], 1))
    for dy in range(-2, 3):
        for dx in range(-2, 3):

            def shifted(a: np.ndarray) -> np.ndarray:
                return np.roll(a, (dy, dx), (0, 1))  # noqa: B023

            distance = ((guide - shifted(guide)) ** 2).sum(-1, keepdims=True)
            same = (mask == shifted(mask))[..., None]
            weight = np.exp(-distance / 0.03 - (dx * dx + dy * dy) / 4.0) * same
            total += weight * shifted(linear)
            weights += weight
    keep = ~np.isin(mask, smooth_classes)[..., None]
    return np.where(keep, linear, total / weights)


def tone_map(linear: np.ndarray) -> np.ndarray:
    """uint8 sRGB with a soft shoulder above 0.7, so that highlights do not clip."""
    x = np.clip(linear, 0, None)
    x = np.where(x > 0.7, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)), x)
    srgb = np.where(
        x <= 0.0031308, 12.92 * x, 1.055 * np.power(np.maximum(x, 1e-8), 1 / 2.4) - 0.055
    )
    return np.clip(srgb * 255 + 0.5, 0, 255).astype(np.uint8)


def to_world(parts: list[Part]) -> list[Part]:
    """Head space (metres) to world units, in place."""
    for part in parts:
        part.vertices = (part.vertices - PIVOT) / METRES_PER_UNIT
        part.radius /= METRES_PER_UNIT
        part.mask_radius /= METRES_PER_UNIT
    return parts


def class_and_depth(
    parts: list[Part], camera: np.ndarray, folder: str, size: int, seed: int, over: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Majority class and its mean ray distance, of over x over rays a pixel.

    Meshes glow with their class id and one bounce-free render reads it; tubes cannot glow, so each
    class of tubes is rendered alone, with the same rays, and wins where it is nearer.
    """
    mi = scene.renderer()

    sensor = mi.load_dict(_sensor(camera, size * over, "box", 1, seed))

    def layer(drawn: object, integrator: dict) -> np.ndarray:
        rays = np.array(
            mi.render(drawn, integrator=mi.load_dict(integrator), sensor=sensor, seed=seed)
        )
        return (
            rays[..., 0]
            .reshape(size, over, size, over)
            .transpose(0, 2, 1, 3)
            .reshape(size, size, -1)
        )

    meshes = [p for p in parts if p.faces is not None]
    glowing = mi.load_dict({"type": "scene", **scene.shapes(meshes, folder, camera[[3, 7, 11]])})
    label = layer(glowing, {"type": "path", "max_depth": 1}) * scene.LABEL_SCALE
    label = label.round().astype(int)
    depth = layer(glowing, {"type": "depth"})
    depth = np.where(depth > 0, depth, np.inf)
    for tube_class in sorted({int(p.classes) for p in parts if p.faces is None}):
        tubes = [p for p in parts if p.faces is None and p.classes == tube_class]
        alone = mi.load_dict({"type": "scene", **scene.shapes(tubes, folder, camera[[3, 7, 11]])})
        distance = layer(alone, {"type": "depth"})
        nearer = (distance > 0) & (distance < depth)
        label, depth = np.where(nearer, tube_class, label), np.where(nearer, distance, depth)
    depth = np.where(np.isfinite(depth), depth, 0)
    mask = np.stack([(label == c).sum(-1) for c in range(len(regions.CLASS))], -1).argmax(-1)
    same = (label == mask[..., None]) & (depth > 0)
    mean = (depth * same).sum(-1) / np.maximum(same.sum(-1), 1)
    return mask.astype(np.uint8), np.where(mask == 0, 0, mean)


def draw(
    parts: list[Part], emitters: dict[str, dict], camera: np.ndarray, size: int, spp: int, seed: int
) -> np.ndarray:
    """Path-traces parts in world units. Returns (size, size, 4) linear RGB and coverage."""
    mi = scene.renderer()
    with tempfile.TemporaryDirectory() as folder:
        # One block for the whole picture: overlapping blocks are added in varying order.
        integrator = {"type": "path", "max_depth": 3, "hide_emitters": True, "block_size": size}
        description = {
            "type": "scene", **scene.shapes(parts, folder), **emitters, "integrator": integrator,
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
    rng = np.random.default_rng([identity.seed, view.seed, 6])
    seed = int(rng.integers(1 << 30))
    camera = camera_label(view.yaw, view.pitch, view.roll)
    identity, view = dressed(identity, view, style)
    parts = to_world(remade(scene.build_parts(identity, view), style, identity.seed))
    rgba = draw(parts, lights(view.light, view.light_power, rng), camera, size, spp, seed)
    with tempfile.TemporaryDirectory() as folder:
        mask, depth = class_and_depth(parts, camera, folder, size, seed)
    linear = rgba[..., :3] + (1 - rgba[..., 3:]) * background(view, size, rng)
    image = tone_map(denoise(linear, mask))
    if style in PAINTERS:
        image = PAINTERS[style](image, mask, rng)
    return Rendering(image, mask, depth, camera)
