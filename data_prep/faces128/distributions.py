"""What the samples of a built face world are like: people, pictures, framing, attributes."""

import itertools
from collections import Counter

import numpy as np

from data_prep.faces128.built_sample import Sample, eyeballs
from data_prep.faces128.traits import OPEN_NECKS
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.masks import CLASSES

YEARS = ((0.55, 0.67, 1.0), (20.0, 25.0, 90.0))  # anny's scale of ages, and years
SHOWN = 0.2  # a facial action of less than this is no expression


def years(age: float) -> float:
    """Years of anny's age."""
    return float(np.interp(age, *YEARS))


def framing(sample: Sample) -> tuple[float, float, float]:
    """Where the eyes' midpoint is (x, y, pixels), and how their line is tilted (degrees)."""
    eyes = eyeballs(sample)
    left, right = eyes["l_eye"], eyes["r_eye"]
    tilt = np.degrees(np.arctan2(left.y - right.y, left.x - right.x))
    return (left.x + right.x) / 2, (left.y + right.y) / 2, float(tilt)


def _shares(values: list) -> dict[str, float]:
    found = Counter(values)
    return {str(k): round(n / len(values), 4) for k, n in found.most_common()}


def _bins(values: list[float], borders: list[float]) -> dict[str, float]:
    counts, _ = np.histogram(values, borders)
    names = [f"{a:g} to {b:g}" for a, b in itertools.pairwise(borders)]
    return dict(zip(names, np.round(counts / len(values), 4).tolist(), strict=True))


def _occurrence(conditions: dict[str, list[bool]]) -> dict[str, float]:
    return {name: round(float(np.mean(values)), 4) for name, values in conditions.items()}


def spreads(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Quantity → (mean, standard deviation) over the samples."""
    x, y, tilt = zip(*map(framing, samples), strict=True)
    people, views = [s.identity for s in samples], [s.view for s in samples]
    columns = {
        "midpoint of the eyes, x, px": x,
        "midpoint of the eyes, y, px": y,
        "tilt of the eyes' line, degrees": tilt,
        "yaw, degrees": [v.yaw for v in views],
        "pitch, degrees": [v.pitch for v in views],
        "roll, degrees": [v.roll for v in views],
        "age, years": [years(p.age) for p in people],
        "skin tone, 0 light to 1 dark": [p.skin_tone for p in people],
    }
    return {
        k: (round(float(np.mean(v)), 3), round(float(np.std(v)), 3)) for k, v in columns.items()
    }


def distributions(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Table → value → share of the samples."""
    people, views = [s.identity for s in samples], [s.view for s in samples]
    actions = [v.expression for v in views]
    present = [set(np.unique(s.mask)) for s in samples]

    def acting(name: str) -> list[bool]:
        return [a.get(f"{name}Left", 0.0) >= SHOWN for a in actions]

    return {
        "sex": _shares(["male" if p.male else "female" for p in people]),
        "age, years": _bins([years(p.age) for p in people], [18, 25, 35, 45, 55, 65, 75, 91]),
        "skin tone, 0 light to 1 dark": _bins([p.skin_tone for p in people],
                                              [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        "iris": _shares([p.iris for p in people]),
        "hair colour": _shares([s.record["hair_color"] for s in samples]),
        "hairstyle": _shares([p.hair_style for p in people]),
        "beard": _shares([p.beard for p in people]),
        "expression": _occurrence({
            "smile": acting("mouthSmile"),
            "mouth corners down": acting("mouthFrown"),
            "mouth open": [v.mouth_open for v in views],
            "eyes closed": [v.eyes_closed for v in views],
            "eyes narrowed": acting("eyeSquint"),
            "eyes wide": acting("eyeWide"),
            "brows raised": acting("browOuterUp"),
            "brows lowered": acting("browDown"),
        }),
        "yaw, degrees": _bins([v.yaw for v in views], [-46, -30, -15, -5, 5, 15, 30, 46]),
        "pitch, degrees": _bins([v.pitch for v in views], [-21, -10, -4, 4, 10, 21]),
        "roll, degrees": _bins([v.roll for v in views], [-11, -5, -2, 2, 5, 11]),
        "garment": _shares([v.cloth for v in views]),
        "worn": _occurrence({
            "eyeglasses": [v.glasses == "eyeglasses" for v in views],
            "sunglasses": [v.glasses == "sunglasses" for v in views],
            "hat": [v.hat != "none" for v in views],
            "earrings": [v.earrings for v in views],
            "necklace": [v.necklace and v.cloth in OPEN_NECKS for v in views],
            "necktie": [v.necktie for v in views],
            "lipstick": [v.lipstick is not None for v in views],
            "eye make-up": [v.eye_makeup > 0 for v in views],
        }),
        "backdrop": _shares([v.background_kind for v in views]),
        "light": _shares([v.light for v in views]),
        "mask class in picture": _occurrence(
            {name: [i in p for p in present] for i, name in enumerate(CLASSES)}
        ),
    }  # fmt: skip


def attribute_shares(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Attribute → (share true among those that tell, share that cannot be told)."""
    out = {}
    for name in ATTRIBUTES:
        values = [s.record["attributes"].get(name) for s in samples]
        told = [v for v in values if v is not None]
        true = float(np.mean(told)) if told else 0.0
        out[name] = (round(true, 4), round(1 - len(told) / len(values), 4))
    return out
