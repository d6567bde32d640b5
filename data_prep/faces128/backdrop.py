"""What stands behind the person: plain paper, a studio wall, or a place out of focus."""

import numpy as np
from scipy.ndimage import gaussian_filter

from data_prep.faces128.lighting import placing
from data_prep.faces128.person import View

Canvas = np.ndarray  # (size, size, 3) linear RGB, painted in place
THINGS = ("wall", "window", "books", "picture", "lamp", "plant")  # of a room


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of pixel centres, 0…1 from the top left."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    return x, y


def _box(
    canvas: Canvas, left: float, top: float, width: float, height: float, rgb: object
) -> np.ndarray:
    """Paints a box; returns where, (size, size) bool."""
    x, y = _grid(len(canvas))
    inside: np.ndarray = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    canvas[inside] = rgb
    return inside


def _disc(
    canvas: Canvas, cx: float, cy: float, radius: float, rgb: object, share: float
) -> np.ndarray:
    """Paints a disc; returns where, (size, size) bool."""
    x, y = _grid(len(canvas))
    inside: np.ndarray = np.hypot(x - cx, y - cy) < radius
    canvas[inside] = (1 - share) * canvas[inside] + share * np.asarray(rgb)
    return inside


def _clouds(size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """(size, size) smooth noise of deviation 1; `scale` is its grain, a share of the picture."""
    field = gaussian_filter(rng.normal(0, 1, (size, size)), scale * size, mode="wrap")
    return field / field.std()


def _room(size: int, wall: np.ndarray, rng: np.random.Generator) -> tuple[Canvas, np.ndarray]:
    """A wall with a window, shelves, pictures, a lamp or a plant; and which of THINGS is where."""
    things = np.zeros((size, size), np.uint8)

    def put(thing: str, inside: np.ndarray) -> None:
        things[inside] = THINGS.index(thing)

    wall = 0.25 + 0.5 * wall / wall.max() if rng.random() < 0.4 else wall * 0.9
    x, y = _grid(size)
    canvas = np.broadcast_to(wall, (size, size, 3)) * (1.1 - 0.5 * y[..., None])
    canvas = canvas * (1 - 0.3 * np.abs(x - rng.uniform(0, 1))[..., None])
    wood = np.array([0.20, 0.11, 0.055]) * np.exp(rng.normal(0, 0.4))
    if rng.random() < 0.65:  # a window and its curtain
        left, width = rng.choice([rng.uniform(-0.1, 0.12), rng.uniform(0.62, 0.85)]), 0.32
        sky = np.array([0.72, 0.80, 0.88]) * rng.uniform(0.7, 1.0)
        _box(canvas, left - 0.02, 0.0, width + 0.04, 0.66, [0.55, 0.54, 0.52])
        put("window", _box(canvas, left, 0.0, width, 0.63, sky))
        _box(canvas, left, rng.uniform(0.35, 0.5), width, 0.3, sky * [0.45, 0.6, 0.35])
        _box(canvas, left + width / 2 - 0.012, 0.0, 0.024, 0.66, [0.5, 0.49, 0.47])
        cloth = wall[::-1] * 0.5 + 0.2
        put("wall", _box(canvas, left - 0.08, 0.0, 0.10, 0.9, cloth))
    if rng.random() < 0.6:  # shelves with books
        left = rng.choice([0.0, 0.7]) + rng.uniform(-0.05, 0.05)
        for top in np.arange(rng.uniform(0, 0.12), 0.95, 0.24):
            put("books", _box(canvas, left, top, 0.36, 0.24, wood * 0.35))
            place = left
            while place < left + 0.33:
                width = rng.uniform(0.018, 0.05)
                book = np.exp(rng.uniform(-3.2, -1.1)) * np.exp(rng.normal(0, 0.35, 3))
                height = rng.uniform(0.12, 0.19)
                _box(canvas, place, top + 0.21 - height, width, height, np.clip(book, 0.01, 0.6))
                place += width + (rng.random() < 0.15) * 0.05
            _box(canvas, left, top + 0.21, 0.36, 0.025, wood)
    if rng.random() < 0.5:  # a picture on the wall
        left, top = rng.uniform(0.05, 0.7), rng.uniform(0.02, 0.3)
        width, height = rng.uniform(0.14, 0.26), rng.uniform(0.16, 0.28)
        put("picture", _box(canvas, left, top, width, height, wood * 0.6))
        shades = np.clip(np.exp(rng.uniform(-2, -0.5, 3)), 0, 0.7)
        _box(canvas, left + 0.015, top + 0.015, width - 0.03, height - 0.03, shades)
    if rng.random() < 0.35:  # a lamp
        cx, cy = rng.choice([0.12, 0.88]), rng.uniform(0.2, 0.5)
        glow = np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / 0.05))[..., None]
        canvas = canvas + 0.35 * glow * [1.0, 0.75, 0.42]
        put("lamp", _disc(canvas, cx, cy, 0.055, [0.95, 0.85, 0.62], 1.0))
        _box(canvas, cx - 0.008, cy + 0.05, 0.016, 0.5, wood * 0.5)
    if rng.random() < 0.4:  # a plant
        cx, cy = rng.choice([0.08, 0.9]), rng.uniform(0.55, 0.8)
        for _ in range(26):
            spot = rng.normal([cx, cy], [0.07, 0.10])
            green = np.array([0.06, 0.16, 0.04]) * np.exp(rng.normal(0, 0.5))
            put("plant", _disc(canvas, spot[0], spot[1], rng.uniform(0.015, 0.04), green, 0.9))
    return canvas, things


def _garden(size: int, rng: np.random.Generator) -> Canvas:
    """Leaves in light and shade, a lawn, the sky through gaps."""
    _, y = _grid(size)
    leaf = np.array([0.10, 0.22, 0.05]) * np.exp(rng.normal(0, 0.15, 3))
    shade = 0.5 * _clouds(size, 0.09, rng) + 0.4 * _clouds(size, 0.035, rng)
    shade += 0.25 * _clouds(size, 0.015, rng)
    canvas = leaf * np.exp(0.75 * shade)[..., None]
    canvas = canvas * np.exp(0.35 * _clouds(size, 0.07, rng)[..., None] * [0.8, 0.2, -0.4])
    horizon = rng.uniform(0.45, 0.85)
    gaps = _clouds(size, 0.06, rng) + 2.2 * (0.30 - y) + rng.uniform(-1.0, 0.6)
    open_sky = 1 / (1 + np.exp(-5 * gaps))[..., None]
    canvas = canvas * (1 - open_sky) + open_sky * np.array([0.66, 0.76, 0.86])
    if rng.random() < 0.6:
        lawn = np.array([0.20, 0.33, 0.08]) * np.exp(0.25 * _clouds(size, 0.05, rng))[..., None]
        ground = 1 / (1 + np.exp(-(y - horizon) / 0.03))[..., None]
        canvas = canvas * (1 - ground) + ground * lawn * rng.uniform(0.7, 1.2)
    for _ in range(rng.integers(0, 3)):  # trunks
        left, width = rng.uniform(0, 1), rng.uniform(0.03, 0.09)
        _box(canvas, left, 0, width, 0.9, np.array([0.07, 0.05, 0.035]) * rng.uniform(0.6, 1.6))
    if rng.random() < 0.35:  # flowers
        petal = np.clip(np.exp(rng.normal(-0.9, 0.6, 3)), 0.03, 0.8)
        for _ in range(30):
            _disc(canvas, rng.random(), rng.uniform(0.4, 1.0), rng.uniform(0.008, 0.02), petal, 0.9)
    return canvas


def _street(size: int, night: bool, rng: np.random.Generator) -> Canvas:
    """House fronts, and at night their lights."""
    _x, y = _grid(size)
    sky = np.array([0.03, 0.05, 0.10]) if night else np.array([0.62, 0.70, 0.80])
    canvas = np.broadcast_to(sky, (size, size, 3)) * (0.8 + 0.4 * y[..., None])
    left = -0.05
    while left < 1.0:
        width, top = rng.uniform(0.16, 0.34), rng.uniform(-0.2, 0.35)
        front = np.exp(rng.uniform(-2.2, -0.9)) * np.exp(rng.normal(0, 0.15, 3))
        front = front * ([0.22, 0.2, 0.22] if night else [1.0, 0.95, 0.9])
        _box(canvas, left, top, width, 1.2, front)
        for wy in np.arange(max(top, 0) + 0.06, 0.85, 0.16):
            for wx in np.arange(left + 0.03, left + width - 0.05, 0.10):
                glass = front * 0.4
                if night and rng.random() < 0.5:
                    glass = np.array([0.9, 0.6, 0.25]) * rng.uniform(0.4, 1.0)
                _box(canvas, wx, wy, 0.05, 0.09, glass)
        left += width
    _box(canvas, 0, 0.88, 1, 0.2, np.array([0.16, 0.16, 0.165]) * (0.3 if night else 1.0))
    return canvas


def _bokeh(canvas: Canvas, radius: float, count: int, rng: np.random.Generator) -> None:
    """Points of light become discs when they are out of focus."""
    bright = np.clip(canvas.max(axis=(0, 1)) * 1.1, 0.3, 0.9)
    for _ in range(count):
        rgb = np.clip(bright * np.exp(rng.normal(0, 0.2, 3)), 0, 0.95)
        cx, cy = rng.random(2)
        _disc(canvas, cx, cy * 0.9, radius * rng.uniform(0.7, 1.2), rgb, rng.uniform(0.15, 0.45))


def chance(person: int, view: View) -> tuple[int, np.random.Generator]:
    """Seed of the renderer, and the generator of a picture's lights, backdrop and paint, in turn.

    Args:
        person: seed of the identity.
    """
    rng = np.random.default_rng([person, view.seed, 6])
    return int(rng.integers(1 << 30)), rng


def backdrop(person: int, view: View, size: int) -> tuple[Canvas, np.ndarray]:
    """The `background` that `render` paints behind the head.

    Args:
        person: seed of the identity.
    """
    _, rng = chance(person, view)
    placing(rng)  # the lights draw before the backdrop
    return background(view, size, rng)


def background(view: View, size: int, rng: np.random.Generator) -> tuple[Canvas, np.ndarray]:
    """(size, size, 3) linear RGB, at most 0.9; and (size, size), which of THINGS is where."""
    things = np.zeros((size, size), np.uint8)
    first, second = np.array(view.background[0]), np.array(view.background[1])
    kind = view.background_kind
    x, y = _grid(size)
    if kind == "plain":
        fall = 1 - 0.25 * ((x - 0.5) ** 2 + (y - 0.4) ** 2)
        picture = first * fall[..., None]
    elif kind == "gradient":
        angle = rng.uniform(0, np.pi)
        t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
        picture = first * (1 - t) + second * t
    elif kind == "studio":  # a painted cloth with a lit spot behind the head
        spot = np.exp(-(((x - rng.uniform(0.3, 0.7)) / 0.38) ** 2) - ((y - 0.45) / 0.42) ** 2)
        paint = np.exp(0.22 * _clouds(size, 0.09, rng) + 0.10 * _clouds(size, 0.03, rng))
        muted = 0.6 * first + 0.4 * first.mean()
        picture = muted * ((0.28 + 0.85 * spot) * paint)[..., None]
    else:
        night = view.light == "evening"
        if kind == "room":
            picture, things = _room(size, first, rng)
            picture = picture * (0.45 if night else 1.0)
        elif kind == "garden":
            picture = _garden(size, rng) * (0.3 if night else 1.0)
        else:
            picture = _street(size, night, rng)
        blur = rng.uniform(0.014, 0.034)
        picture = gaussian_filter(picture, (0.5 * blur * size,) * 2 + (0,), mode="nearest")
        if kind == "garden" or night:
            _bokeh(picture, 1.3 * blur + 0.012, int(rng.integers(4, 16)), rng)
        picture = gaussian_filter(picture, (0.6 * blur * size,) * 2 + (0,), mode="nearest")
        if view.light == "sunset":
            picture = picture * [1.12, 0.95, 0.74]
    return np.clip(picture, 0.004, 0.9), things
