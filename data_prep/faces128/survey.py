"""Measures a built face world: `python -m data_prep.faces128.survey`.

Cameras and depth against the mesh's eye centres, mask edges against image edges, and what the
samples are like. Everything is measured on the files, as a reader of the data set sees them.
"""

import argparse
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.faces128.build import sample_person
from data_prep.faces128.person import Identity, View
from data_prep.faces128.regions import CLASS
from dmgi_lib.dataset import ATTRIBUTES, default_root
from dmgi_lib.masks import CLASSES

MIN_EYE = 6  # an eye of fewer pixels is hidden by hair, a lid or the nose
MAX_YAW, MAX_PITCH = 25.0, 12.0  # beyond, nose, brow or lid may stand before an eye's centre
YEARS = ((0.55, 0.67, 1.0), (20.0, 25.0, 90.0))  # anny's scale of ages, and years


@dataclass(frozen=True)
class Sample:
    """One sample as it lies on disk: image (H, W, 3), mask (H, W), depth (H, W) world units."""

    record: dict
    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    identity: Identity
    view: View


def read(root: Path, split: str, count: int | None = None) -> list[Sample]:
    """The first `count` samples of a split, in file order."""
    folder = root / split
    samples = []
    for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:count]:
        record = json.loads(line)
        name = record["id"]
        depth = np.asarray(Image.open(folder / "depth" / f"{name}.png"), float) / 10_000
        _, identity, view, _ = sample_person(split, int(name))
        samples.append(
            Sample(
                record,
                np.asarray(Image.open(folder / "images" / f"{name}.webp").convert("RGB")),
                np.asarray(Image.open(folder / "masks" / f"{name}.png")),
                depth,
                identity,
                view,
            )
        )
    return samples


def project(point: np.ndarray, camera: np.ndarray, size: int) -> tuple[float, float]:
    """Pixel coordinates (x, y), pixel centres at .5, of a world point under an EG3D camera."""
    seen = np.linalg.inv(camera[:16].reshape(4, 4)) @ np.r_[point, 1.0]
    x, y, z = camera[16:].reshape(3, 3) @ seen[:3]
    return float(x / z * size), float(y / z * size)


def eye_errors(sample: Sample) -> list[tuple[float, float]]:
    """For each eye in view: pixels from the projected centre to the eye's mask, and depth's error.

    The ray through an eyeball's centre meets its front one radius nearer, so depth there is known;
    its error is relative. Left out, because something may cover the centre: eyes that are closed,
    narrowed, behind glasses or under hair, and faces turned by more than MAX_YAW or MAX_PITCH.
    """
    from data_prep.faces128.head import head_model
    from data_prep.faces128.render import METRES_PER_UNIT, PIVOT
    from data_prep.faces128.scene import eye_centres

    identity, view = sample.identity, sample.view
    narrowed = view.expression.get("eyeSquintLeft", 0.0) > 0.5
    if view.eyes_closed or narrowed or view.glasses != "none":
        return []
    if abs(view.yaw) > MAX_YAW or abs(view.pitch) > MAX_PITCH:
        return []
    model = head_model()
    body = model.vertices(identity.phenotype, {**identity.shape(), **view.expression})
    camera = np.array(sample.record["camera"])
    out = []
    for name, centre in zip(("l_eye", "r_eye"), eye_centres(body), strict=True):
        rows, columns = np.nonzero(sample.mask == CLASS[name])
        if len(rows) < MIN_EYE:
            continue
        ball = body[np.unique(model.faces[name])]
        radius = 0.97 * float(np.ptp(ball, axis=0)[:2].mean() / 2) / METRES_PER_UNIT
        point = (centre - PIVOT) / METRES_PER_UNIT
        x, y = project(point, camera, len(sample.mask))
        around = sample.mask[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
        if CLASS["hair"] in around:
            continue
        away = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
        nearest = int(np.argmin(away))
        expected = np.linalg.norm(camera[[3, 7, 11]] - point) - radius
        depth = sample.depth[rows[nearest], columns[nearest]]
        # a pixel that holds the centre lies up to half a diagonal from its own centre
        out.append((max(0.0, float(away[nearest]) - 0.5**0.5), abs(depth / expected - 1)))
    return out


def gradient(image: np.ndarray) -> np.ndarray:
    """(H, W) strength of image edges, of 3-channel uint8."""
    y, x = np.gradient(image.astype(float) / 255.0, axis=(0, 1))
    return np.sqrt((x**2 + y**2).sum(-1))


def edges(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels beside another class."""
    out = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        differs = np.diff(mask.astype(int), axis=axis) != 0
        first: list[slice] = [slice(None)] * 2
        second: list[slice] = [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        out[tuple(first)] |= differs
        out[tuple(second)] |= differs
    return out


def edge_agreement(image: np.ndarray, mask: np.ndarray, shift: int = 0) -> float:
    """Mean image gradient on mask edges over the mean of the picture; 1 means chance.

    Args:
        shift: pixels that the mask is moved by, in each of four directions; the mean is returned.
    """
    strength = gradient(image)
    line = edges(mask)
    moves = [(0, 0)] if shift == 0 else [(shift, 0), (-shift, 0), (0, shift), (0, -shift)]
    border = abs(shift) + 1
    inner = (slice(border, -border),) * 2
    found = [strength[inner][np.roll(line, move, (0, 1))[inner]].mean() for move in moves]
    return float(np.mean(found) / strength[inner].mean())


def years(age: float) -> float:
    """Years of anny's age."""
    return float(np.interp(age, *YEARS))


def _shares(values: list, order: list | None = None) -> dict[str, float]:
    found = Counter(values)
    keys = order or sorted(found, key=lambda k: -found[k])
    return {str(k): round(found[k] / max(len(values), 1), 4) for k in keys}


def _bins(values: list[float], borders: list[float]) -> dict[str, float]:
    counts, _ = np.histogram(values, borders)
    names = [f"{a:g} to {b:g}" for a, b in itertools.pairwise(borders)]
    return dict(zip(names, np.round(counts / max(len(values), 1), 4).tolist(), strict=True))


def distributions(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """What the samples are like: table → value → share of the samples."""
    people, views = [s.identity for s in samples], [s.view for s in samples]
    present = [set(np.unique(s.mask)) for s in samples]
    return {
        "sex": _shares(["male" if p.male else "female" for p in people]),
        "age, years": _bins([years(p.age) for p in people], [18, 25, 35, 45, 55, 65, 75, 91]),
        "skin tone, 0 light to 1 dark": _bins([p.skin_tone for p in people],
                                              [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        "yaw, degrees": _bins([v.yaw for v in views], [-46, -30, -15, -5, 5, 15, 30, 46]),
        "pitch, degrees": _bins([v.pitch for v in views], [-21, -10, -4, 4, 10, 21]),
        "roll, degrees": _bins([v.roll for v in views], [-11, -5, -2, 2, 5, 11]),
        "hair colour": _shares([s.record["hair_color"] for s in samples]),
        "hairstyle": _shares([p.hair_style for p in people]),
        "beard": _shares([p.beard for p in people]),
        "garment": _shares([v.cloth for v in views]),
        "backdrop": _shares([v.background_kind for v in views]),
        "light": _shares([v.light for v in views]),
        "mask class in picture": {
            name: round(float(np.mean([i in p for p in present])), 4)
            for i, name in enumerate(CLASSES)
        },
    }  # fmt: skip


def attribute_shares(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Attribute → (share true among those that tell, share that cannot be told)."""
    out = {}
    for name in ATTRIBUTES:
        values = [s.record["attributes"].get(name) for s in samples]
        told = [v for v in values if v is not None]
        out[name] = (
            round(float(np.mean(told)) if told else 0.0, 4),
            round(1 - len(told) / max(len(values), 1), 4),
        )
    return out


def survey(samples: list[Sample], geometry: int = 100) -> dict:
    """All measurements; geometry and edges on the first samples until `geometry` show eyes."""
    errors: list[tuple[float, float]] = []
    measured = 0
    for sample in samples:
        found = eye_errors(sample)
        errors += found
        measured += bool(found)
        if measured >= geometry:
            break
    first = samples[: max(geometry, 1)]
    off = [e[0] for e in errors] or [float("nan")]
    depth = [e[1] for e in errors] or [float("nan")]
    agreement = [edge_agreement(s.image, s.mask) for s in first]
    shifted = [edge_agreement(s.image, s.mask, 2) for s in first]
    return {
        "samples": len(samples),
        "samples with eyes": measured,
        "eyes": len(errors),
        "eye re-projection error, px, largest": round(max(off), 3),
        "eye depth error, relative, largest": round(max(depth), 5),
        "eye depth error, relative, mean": round(float(np.mean(depth)), 5),
        "edge agreement": round(float(np.mean(agreement)), 3),
        "edge agreement, masks shifted by 2 px": round(float(np.mean(shifted)), 3),
        "samples whose agreement drops": round(
            float(np.mean(np.array(shifted) < np.array(agreement))), 4
        ),
        "distributions": distributions(samples),
        "attributes": attribute_shares(samples),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=default_root(), help="a built face world")
    parser.add_argument("--split", default="test", help="train, test or views")
    parser.add_argument("--samples", type=int, default=None, help="at most so many")
    args = parser.parse_args()
    print(json.dumps(survey(read(args.root, args.split, args.samples)), indent=1))


if __name__ == "__main__":
    main()
