"""Verifies a built face world, or a sample of one, file by file."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dmgi_lib.dataset import ATTRIBUTES, EXTRA_SPLITS, SPLITS
from dmgi_lib.masks import CLASSES, PALETTE

SIZE = 128
SUFFIXES = {"images": "webp", "masks": "png", "scribbles": "png", "depth": "png", "records": "json"}
SHIPPED = ("images", "masks", "scribbles")  # a sample has no more
SHAPE_CODE = 48
NEAR, FAR = 20_000, 40_000  # depth, 1 / 10,000 of a unit; the camera is 2.7 units from the head
LEAST_SKIN = 200  # pixels


def check(root: Path) -> list[str]:
    """Faults of a built set, one line each; an empty list means that all is well.

    Folders of depth maps and records are verified where they are there.
    """
    faults: list[str] = []
    people: dict[str, set[int]] = {}
    for split in SPLITS + EXTRA_SPLITS:
        folder = root / split
        path = folder / "metadata.jsonl"
        if not path.is_file():
            if split in SPLITS or folder.is_dir():
                faults.append(f"{path} is missing: run the build")
            continue
        records = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
                records.append(record | {"id": str(record["id"])})
            except (json.JSONDecodeError, TypeError, KeyError) as error:
                faults.append(f"{path}, line {number} is no record: {error!r}")
        people[split] = {r["seed"] for r in records if "seed" in r}
        faults += [f"{split}: {fault}" for fault in _folder_faults(folder, records)]
        for record in records:
            found = [*_record_faults(record), *_picture_faults(folder, record["id"])]
            faults += [f"{split}/{record['id']}: {fault}" for fault in found]
    learnt = people.get("train", set()) | people.get("styles", set())
    held_out = people.get("test", set()) | people.get("views", set())
    if learnt & held_out:
        faults.append(f"training and test samples share identities: {sorted(learnt & held_out)}")
    return faults


def _folder_faults(folder: Path, records: list[dict]) -> Iterator[str]:
    """What does not fit between the lines of metadata.jsonl and the files."""
    if not records:
        yield "metadata.jsonl holds no records"
    names = Counter(r["id"] for r in records)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        yield f"ids occur twice: {', '.join(twice)}"
    for kind, suffix in SUFFIXES.items():
        if kind not in SHIPPED and not (folder / kind).is_dir():
            continue
        wanted = {f"{name}.{suffix}" for name in names}
        there = (
            {path.name for path in (folder / kind).iterdir()} if (folder / kind).is_dir() else set()
        )
        for name in sorted(wanted - there):
            yield f"{kind}/{name} is missing: run the build"
        for name in sorted(there - wanted):
            yield f"{kind}/{name} is not in metadata.jsonl: run the build"
    for record in records:
        path = folder / "records" / f"{record['id']}.json"
        if path.is_file():
            try:
                same = json.loads(path.read_text(encoding="utf-8")) == record
            except ValueError:
                same = False
            if not same:
                yield f"records/{path.name} differs from metadata.jsonl: run the build"


def _record_faults(record: dict) -> Iterator[str]:
    texts = record.get("captions")
    if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
        yield "captions are no list of texts"
    elif len(set(texts)) < 5:
        yield f"{len(set(texts))} different captions, 5 expected"
    known = record.get("attributes")
    if not isinstance(known, dict) or set(known) != set(ATTRIBUTES):
        odd = sorted(set(known or ()) ^ set(ATTRIBUTES))
        yield f"attributes are not those of dmgi_lib.dataset, {', '.join(odd)}: relabel"
    elif any(value not in (True, False, None) for value in known.values()):
        yield "an attribute is neither true, false nor null"
    camera, code = record.get("camera"), record.get("shape_code")
    for name, numbers, count in (("camera", camera, 25), ("shape_code", code, SHAPE_CODE)):
        if not isinstance(numbers, list) or len(numbers) != count:
            yield f"{name} is no list of {count} numbers"
        elif not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
            yield f"{name} holds what is no number"
    tone = record.get("skin_tone")
    if not isinstance(tone, int | float) or not 0 <= tone <= 1:
        yield "skin_tone is not between 0 and 1"
    for name in ("identity", "seed"):
        if not isinstance(record.get(name), int):
            yield f"{name} is no whole number"


def _picture_faults(folder: Path, name: str) -> Iterator[str]:
    """Pictures that are missing are not named again."""
    pictures: dict[str, np.ndarray] = {}
    modes = {"images": "RGB", "masks": "P", "scribbles": "L", "depth": "I;16"}
    for kind, mode in modes.items():
        path = folder / kind / f"{name}.{SUFFIXES[kind]}"
        if not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                image.load()
                pixels, found, palette = np.asarray(image), image.mode, image.getpalette()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            yield f"{kind} cannot be read: {error}"
            continue
        if found != mode or pixels.shape[:2] != (SIZE, SIZE):
            yield f"{kind} is {pixels.shape}, {found}; expected {SIZE} x {SIZE} pixels, {mode}"
            continue
        pictures[kind] = pixels
        if kind == "masks" and palette != PALETTE.astype(int).ravel().tolist():
            yield "the mask's palette is not CelebAMask-HQ's"
    if "images" in pictures and not 12 <= pictures["images"].mean() <= 235:
        yield f"the image's mean is {pictures['images'].mean():.0f}"
    if "masks" in pictures:
        mask = pictures["masks"]
        if mask.max() >= len(CLASSES):
            yield f"the mask holds ids to {mask.max()}"
        if (skin := int((mask == CLASSES.index("skin")).sum())) < LEAST_SKIN:
            yield f"{skin} pixels of skin"
    if "scribbles" in pictures and set(np.unique(pictures["scribbles"])) != {0, 255}:
        yield "the scribble is not black and white"
    if "depth" in pictures:
        depth = pictures["depth"]
        seen = depth[depth > 0]
        if not len(seen) or seen.min() < NEAR or seen.max() > FAR:
            yield f"depth is from {seen.min(initial=65_535)} to {depth.max()}"
        if "masks" in pictures and ((depth > 0) != (pictures["masks"] > 0)).mean() > 0.001:
            yield "depth and mask do not cover the same pixels"
