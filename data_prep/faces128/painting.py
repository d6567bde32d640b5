"""Painted and drawn versions of a rendered picture: cartoon, oil, watercolour, pencil.

All work on the picture enlarged three times and shrink it at the end, so that lines stay smooth.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates, sobel, uniform_filter

from data_prep.faces128.regions import CLASS

SCALE = 3
GRAY = np.array([0.299, 0.587, 0.114])
FEATURES = ("l_eye", "r_eye", "l_brow", "r_brow", "eye_g", "nose", "mouth", "u_lip", "l_lip")
INNER = ("nose", "skin", "neck")  # soft borders: drawn thinner


def _enlarged(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) → float [0, 1], SCALE times as large."""
    height, width = image.shape[:2]
    size = (width * SCALE, height * SCALE)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) / 255.0


def _shrunk(image: np.ndarray) -> np.ndarray:
    """float [0, 1], enlarged → uint8 at the original size."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    size = (picture.width // SCALE, picture.height // SCALE)
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def _smooth_mask(mask: np.ndarray) -> np.ndarray:
    """Class ids enlarged with rounded borders."""
    votes = []
    for label in range(len(CLASS)):
        share = np.kron((mask == label).astype(np.float32), np.ones((SCALE, SCALE), np.float32))
        votes.append(gaussian_filter(share, 0.7 * SCALE))
    return np.argmax(votes, 0)


def _outlines(labels: np.ndarray, width: float) -> np.ndarray:
    """(H, W) in [0, 1]: how dark a line of `width` pixels at class borders is."""
    inner = np.isin(labels, [CLASS[name] for name in INNER])
    line = np.zeros(labels.shape)
    for axis in (0, 1):
        other = np.roll(labels, 1, axis)
        weight = np.where(inner & np.roll(inner, 1, axis), 0.45, 1.0)
        line = np.maximum(line, (labels != other) * weight)
    line[0], line[:, 0] = 0, 0
    line = gaussian_filter(line, width / 2) * width * 1.6
    return np.clip(line, 0, 1)


def kuwahara(image: np.ndarray, radius: int) -> np.ndarray:
    """Each pixel takes the mean of the calmest of four neighbouring squares."""
    size = radius + 1
    mean = np.stack([uniform_filter(image[..., c], size) for c in range(3)], -1)
    square = np.stack([uniform_filter(image[..., c] ** 2, size) for c in range(3)], -1)
    variance = (square - mean**2).sum(-1)
    shifts = [(dy, dx) for dy in (-radius // 2, radius // 2) for dx in (-radius // 2, radius // 2)]
    means = np.stack([np.roll(mean, s, (0, 1)) for s in shifts])
    calmest = np.stack([np.roll(variance, s, (0, 1)) for s in shifts]).argmin(0)
    return np.take_along_axis(means, calmest[None, ..., None], 0)[0]


def _saturated(image: np.ndarray, gain: float) -> np.ndarray:
    gray = (image @ GRAY)[..., None]
    return gray + gain * (image - gray)


def cartoon(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flat colours in three tones a region, dark outlines."""
    picture, labels = _enlarged(image), _smooth_mask(mask)
    flat = kuwahara(kuwahara(picture, 2 * SCALE), 2 * SCALE)
    out = np.empty_like(flat)
    eyes = [CLASS["l_eye"], CLASS["r_eye"], CLASS["mouth"]]
    for label in np.unique(labels):
        inside = labels == label
        colors = flat[inside]
        light = colors @ GRAY
        if label in eyes:
            out[inside] = picture[inside]
            continue
        edges = np.quantile(light, [0.35, 0.8]) if label != CLASS["background"] else []
        tone = np.digitize(light, edges)
        for k in np.unique(tone):
            colors[tone == k] = np.median(colors[tone == k], axis=0)
        out[inside] = colors
    out = _saturated(out, 1.45) * 1.08 + 0.03
    line = _outlines(labels, 0.9 * SCALE)[..., None]
    return _shrunk(out * (1 - line) + 0.06 * line)


def _orientation(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Angle along the edges, from the smoothed structure tensor."""
    dx, dy = sobel(gray, 1), sobel(gray, 0)
    xx, yy, xy = (gaussian_filter(v, sigma) for v in (dx * dx, dy * dy, dx * dy))
    return 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2


def oil(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brush strokes along the forms, coarse ones first, finer ones where detail asks for them."""
    picture = _saturated(_enlarged(image), 1.3)
    height, width = picture.shape[:2]
    angle = _orientation(picture @ GRAY, 2.0 * SCALE)
    ground = np.clip(gaussian_filter(picture, (9, 9, 0)), 0, 1)
    canvas = Image.fromarray((ground * 255).astype(np.uint8))
    features = np.isin(mask, [CLASS[name] for name in FEATURES]).astype(float)
    wanted = gaussian_filter(np.kron(features, np.ones((SCALE, SCALE))), 2.0 * SCALE)
    relief = Image.new("L", canvas.size, 128)
    draw, bump = ImageDraw.Draw(canvas), ImageDraw.Draw(relief)
    for thickness, length, spacing in ((16, 44, 9.0), (10, 30, 6.0), (6, 20, 4.0), (3, 10, 2.5)):
        source = gaussian_filter(picture, (thickness / 4, thickness / 4, 0))
        painted = np.asarray(canvas) / 255.0
        error = gaussian_filter(np.abs(painted - source).sum(-1), thickness / 2)
        y, x = np.mgrid[spacing / 2 : height : spacing, spacing / 2 : width : spacing]
        spots = np.stack([y.ravel(), x.ravel()], 1)
        spots += rng.uniform(-spacing / 2, spacing / 2, spots.shape)
        rng.shuffle(spots)
        spots = spots.clip(0, [height - 1, width - 1])
        for py, px in spots:
            iy, ix = int(py), int(px)
            care = 1 + 3 * wanted[iy, ix]  # eyes and mouth get the fine brush
            if thickness < 16 and error[iy, ix] * care < 0.9 / thickness**0.5 * 0.35:
                continue
            color = source[iy, ix] * rng.uniform(0.88, 1.12) + rng.normal(0, 0.02, 3)
            theta = angle[iy, ix] + rng.normal(0, 0.12)
            half = 0.5 * length * rng.uniform(0.7, 1.2)
            step = half * np.array([np.cos(theta), np.sin(theta)])
            ends = [px - step[0], py - step[1], px + step[0], py + step[1]]
            draw.line(ends, tuple(int(255 * v) for v in color.clip(0, 1)), thickness)
            bump.line(ends, int(rng.uniform(100, 156)), max(1, thickness // 2))
    height_map = gaussian_filter(np.asarray(relief, float), 1.2)
    light = 1 + 0.0022 * (sobel(height_map, 0) - sobel(height_map, 1)).clip(-40, 40)
    return _shrunk(np.asarray(canvas) / 255.0 * light[..., None])


def _paper(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Grain around 0, deviation about 1."""
    grain = sum(gaussian_filter(rng.normal(0, 1, shape), s) * s for s in (1.0, 2.0, 5.0))
    return grain / grain.std()


def watercolor(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light washes with wavering borders that dry darker at their rims, on grainy paper."""
    picture = _enlarged(image)
    shape = picture.shape[:2]
    wash = kuwahara(kuwahara(picture, 4 * SCALE), 3 * SCALE)
    fine = kuwahara(picture, SCALE)
    labels = _smooth_mask(mask)
    features = np.isin(labels, [CLASS[name] for name in FEATURES]).astype(float)
    share = 0.35 + 0.6 * np.clip(1.5 * gaussian_filter(features, 1.5 * SCALE), 0, 1)[..., None]
    wash = (1 - share) * wash + share * fine
    drift = [gaussian_filter(rng.normal(0, 1, shape), 9) * 9 * 1.2 for _ in range(2)]
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    place = [y + drift[0], x + drift[1]]
    wash = np.stack(
        [map_coordinates(wash[..., c], place, order=1, mode="nearest") for c in range(3)], -1
    )
    wash = 1 - (1 - _saturated(wash, 1.7)).clip(0, 1) * 0.8  # thin paint lets the paper shine
    rim = np.abs(wash - gaussian_filter(wash, (3, 3, 0))).sum(-1)
    flow = gaussian_filter(rng.normal(0, 1, shape), 14)
    density = 1 + 0.28 * flow / flow.std() * 0.5 + 0.9 * rim + 0.05 * _paper(shape, rng)
    out = np.clip(wash, 0.02, 1) ** density.clip(0.4, 3)[..., None]
    detail = (picture - gaussian_filter(picture, (3, 3, 0))) @ GRAY  # a thin brush at the end
    out = out * (1 + 2.2 * np.clip(detail, -0.25, 0.04) * (labels > 0))[..., None]
    edge = np.minimum.reduce([y, x, shape[0] - 1 - y, shape[1] - 1 - x])
    border = gaussian_filter(rng.normal(0, 1, shape), 12)
    dry = 1 / (1 + np.exp(-(edge - 16 + 14 * border / border.std() * 0.5) / 2.5))
    dry = np.where(mask.repeat(SCALE, 0).repeat(SCALE, 1) > 0, np.maximum(dry, 0.8), dry)[..., None]
    return _shrunk(out * dry + np.array([0.97, 0.96, 0.93]) * (1 - dry))


def pencil(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Graphite: contours, and hatching that thickens in the dark; the background stays paper."""
    picture, labels = _enlarged(image), _smooth_mask(mask)
    shape = labels.shape
    gray = picture @ GRAY
    person = labels > 0
    low, high = np.quantile(gray[person], [0.02, 0.98])
    gray = np.clip((gray - low) / max(high - low, 1e-3), 0, 1)
    blurred = 1 - gaussian_filter(1 - gray, 2.2 * SCALE)
    dodge = np.clip(gray / np.maximum(blurred, 0.05), 0, 1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    wobble = gaussian_filter(rng.normal(0, 1, shape), 6) * 6
    hatch = np.zeros(shape)
    for slope, period, until in ((1.0, 5.2, 0.75), (-0.8, 4.6, 0.45), (0.15, 3.8, 0.22)):
        wave = np.sin(2 * np.pi * ((x * slope + y) / np.hypot(slope, 1) + wobble) / period)
        strength = np.clip((until - gray) / 0.3, 0, 1)
        hatch = np.maximum(hatch, strength * np.clip(wave * 1.5 - 0.1, 0, 1))
    tone = 0.30 * (1 - gray) * person + 0.5 * hatch * person
    lines = np.clip((1 - dodge) * 1.6, 0, 1) * np.where(person, 1.0, 0.0)
    contour = 0.75 * _outlines(labels, 0.5 * SCALE)
    graphite = 1 - (1 - tone) * (1 - 0.8 * lines) * (1 - contour)
    grain = 1 + 0.18 * _paper(shape, rng)
    out = 0.96 - 0.84 * np.clip(graphite * grain, 0, 1) + 0.008 * _paper(shape, rng)
    return _shrunk(out[..., None] * np.array([1.0, 0.995, 0.98]))


Painter = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
PAINTERS: dict[str, Painter] = {
    "cartoon": cartoon,
    "oil": oil,
    "watercolor": watercolor,
    "pencil": pencil,
}
