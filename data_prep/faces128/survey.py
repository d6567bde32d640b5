"""Measures a built face world: `python -m data_prep.faces128.survey`.

Cameras and depth against the mesh's eye centres, mask edges against image edges, and what the
samples are like. Everything is measured on the files, as a reader of the data set sees them.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from scipy import ndimage

from data_prep.faces128.built_sample import Sample, eyeballs, read
from data_prep.faces128.captions import words
from data_prep.faces128.distributions import attribute_shares, distributions, spreads
from data_prep.faces128.regions import CLASS
from dmgi_lib.dataset import built_root

# the people of `styles` look like somebody else
Surveyed = Literal["train", "test", "views", "train_views"]
MIN_EYE = 6  # an eye of fewer pixels is hidden by hair, a lid or the nose
MAX_YAW, MAX_PITCH = 25.0, 12.0  # beyond, nose, brow or lid may stand before an eye's centre


def eye_errors(sample: Sample) -> list[tuple[float, float]]:
    """For each eye in view: pixels from the projected centre to the eye's mask, and depth's error.

    The ray through an eyeball's centre meets its front one radius nearer, so depth there is known;
    its error is relative. Left out, because something may cover the centre: eyes that are closed,
    narrowed, behind glasses or under hair, and faces turned by more than MAX_YAW or MAX_PITCH.
    """
    view = sample.view
    narrowed = view.expression.get("eyeSquintLeft", 0.0) > 0.5
    if view.eyes_closed or narrowed or view.glasses != "none":
        return []
    if abs(view.yaw) > MAX_YAW or abs(view.pitch) > MAX_PITCH:
        return []
    position = np.array(sample.record["camera"])[[3, 7, 11]]
    out = []
    for name, eye in eyeballs(sample).items():
        rows, columns = np.nonzero(sample.mask == CLASS[name])
        if len(rows) < MIN_EYE:
            continue
        x, y = int(eye.x), int(eye.y)
        around = sample.mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        if CLASS["hair"] in around:
            continue
        away = np.hypot(columns + 0.5 - eye.x, rows + 0.5 - eye.y)
        nearest = int(np.argmin(away))
        expected = np.linalg.norm(position - eye.centre) - eye.radius
        depth = sample.depth[rows[nearest], columns[nearest]]
        # a pixel that holds the centre lies up to half a diagonal from its own centre
        out.append((max(0.0, float(away[nearest]) - 0.5**0.5), float(abs(depth / expected - 1))))
    return out


def gradient(image: np.ndarray) -> np.ndarray:
    """(H, W) strength of image edges, of 3-channel uint8."""
    y, x = np.gradient(image.astype(float) / 255.0, axis=(0, 1))
    return np.sqrt((x**2 + y**2).sum(-1))


def edges(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels beside another class."""
    cross = ndimage.generate_binary_structure(2, 1)
    highest, lowest = (
        f(mask, footprint=cross) for f in (ndimage.maximum_filter, ndimage.minimum_filter)
    )
    return highest != lowest


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


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


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
    codes = np.array([s.identity.shape_code for s in samples])
    texts = [text for s in samples for text in s.record["captions"]]
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
        "captions of a sample, fewest": min(len(s.record["captions"]) for s in samples),
        "words and marks of a caption, mean": round(
            float(np.mean([len(words(t)) for t in texts])), 1
        ),
        "words of all captions": len({word for t in texts for word in words(t)}),
        "head-shape numbers, means": _range(codes.mean(0)),
        "head-shape numbers, standard deviations": _range(codes.std(0)),
        "spreads": spreads(samples),
        "distributions": distributions(samples),
        "attributes": attribute_shares(samples),
    }


def main(root: Path | None = None, split: Surveyed = "test", samples: int | None = None) -> None:
    """Measures a built face world on its files, as a reader of the data set sees them.

    Args:
        root: a built face world; None: where it is built
        split: split that is measured
        samples: at most so many
    """
    print(json.dumps(survey(read(root or built_root(), split, samples)), indent=1))


if __name__ == "__main__":
    tyro.cli(main)
