"""Plain words for colours, by thresholds in OKLab, a space of even steps to the eye."""

import itertools

import numpy as np

GRAYS = (("black", 0.33), ("gray", 0.8), ("white", 9.0))  # up to this lightness
GRAY_CHROMA = 0.026  # less is no colour
HUES = (  # up to this hue, in degrees: dark and light, and the lightness between them
    (20, "red", "pink", 0.64),
    (40, "red", "orange", 0.66),
    (75, "brown", "orange", 0.66),
    (98, "brown", "yellow", 0.72),
    (114, "olive", "yellow", 0.76),
    (174, "green", "green", 0.5),
    (212, "teal", "teal", 0.5),
    (283, "blue", "blue", 0.5),
    (318, "purple", "purple", 0.5),
    (357, "purple", "pink", 0.66),
    (360, "red", "pink", 0.64),
)
PALE = 0.075  # light brown and orange of less chroma are beige
LIGHTNESS, CHROMA, HUE = 0.03, 0.007, 5.0  # how far people disagree about a colour


def linear(srgb: np.ndarray) -> np.ndarray:
    """uint8 sRGB (..., 3) → linear RGB in [0, 1]."""
    x = np.asarray(srgb) / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB (..., 3) → lightness 0…1, and green to red and blue to yellow, about ±0.3."""
    cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    mixed = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    response = np.cbrt((np.asarray(rgb)[..., None, :] * np.array(cones)).sum(-1))
    return (response[..., None, :] * np.array(mixed)).sum(-1)


def _word(lightness: float, chroma: float, hue: float) -> str:
    if chroma < GRAY_CHROMA or (lightness < 0.25 and chroma < 0.05):
        return next(name for name, most in GRAYS if lightness < most)
    dark, light, middle = next(row[1:] for row in HUES if hue % 360 < row[0])
    if 20 <= hue % 360 < 98 and lightness > 0.66 and chroma < PALE:
        return "beige"
    return light if lightness > middle else dark


def words(rgb: np.ndarray, slack: float = LIGHTNESS) -> set[str]:
    """What people may call a colour: one word where it is clear, several where it is between.

    Args:
        rgb: (3,) linear RGB.
        slack: how far the lightness may be off, as that of something in unknown light.
    """
    lightness, a, b = oklab(rgb)
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)))
    steps = ((-slack, 0.0, slack), (-CHROMA, CHROMA), (-HUE, 0.0, HUE))
    return {
        _word(lightness + dl, chroma + dc, hue + dh) for dl, dc, dh in itertools.product(*steps)
    }
