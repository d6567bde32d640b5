"""Verifies a built face world, or a sample of one, shard by shard."""

import io
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.shard_writer import LARGEST, Sample, read_shard
from dmgi_lib.dataset import ATTRIBUTES, EXTRA_SPLITS, FACE_ATTRIBUTES, SPLITS
from dmgi_lib.masks import CLASSES, PALETTE
from dmgi_lib.shards import PICTURES, Shards, shard_paths

SIZE = 128
MODES = {"images": "RGB", "masks": "P", "scribbles": "L", "depth": "I;16"}
SHIPPED = ("images", "masks", "scribbles")  # a sample has no more
SHAPE_CODE = 48
NEAR, FAR = 20_000, 40_000  # depth, 1 / 10,000 of a unit; the camera is 2.7 units from the head
LABELLED = (set(ATTRIBUTES), set(FACE_ATTRIBUTES))  # of faces alone: what ships
LEAST_SKIN = 200  # pixels


def check(root: Path) -> list[str]:
    """Faults of a built set, one line each; an empty list means that all is well.

    Depth maps are verified where they are there.
    """
    faults: list[str] = []
    people: dict[str, set[int]] = {}
    for split in SPLITS + EXTRA_SPLITS:
        folder = root / split
        if split not in SPLITS and not folder.is_dir():
            continue
        faults += [f"{split}: {fault}" for fault in _folder_faults(folder)]
        names: Counter[str] = Counter()
        seeds = people[split] = set()
        for path in sorted(folder.glob("*.parquet")):
            try:
                samples = read_shard(path)
            except ValueError as error:
                faults.append(f"{split}: {error}")
                continue
            for sample in samples:
                names[str(sample["id"])] += 1
                if isinstance(sample.get("seed"), int):
                    seeds.add(sample["seed"])
                found = [*_record_faults(sample), *_picture_faults(sample)]
                faults += [f"{split}/{sample['id']}: {fault}" for fault in found]
        if twice := sorted(name for name, count in names.items() if count > 1):
            faults.append(f"{split}: ids occur twice: {', '.join(twice)}")
    learnt = set().union(
        *(people.get(split, set()) for split in ("train", "styles", "train_views"))
    )
    held_out = people["test"] | people.get("views", set())
    if learnt & held_out:
        faults.append(f"training and test samples share identities: {sorted(learnt & held_out)}")
    return faults


def _folder_faults(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a split as a whole."""
    try:
        paths = shard_paths(folder)
        if not paths:
            yield f"{folder} holds no shards: run the build"
        elif not len(Shards(paths)):
            yield f"{folder} holds no samples: run the build"
    except FileNotFoundError as error:
        yield str(error)
    except ValueError as error:
        if "columns" in str(error):  # a shard that cannot be read is named when its turn comes
            yield str(error)
    for path in sorted(folder.glob("*")):
        if path.name == ".spool":
            yield f"{len(list(path.iterdir()))} samples wait in {path} for others: run the build"
        elif path.suffix != ".parquet" or path.name.startswith("."):
            yield f"{path} is no shard: run the build"
        elif path.stat().st_size > LARGEST:
            yield f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST:,} are expected"


def _record_faults(record: Sample) -> Iterator[str]:
    texts = record.get("captions")
    if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
        yield "captions are no list of texts"
    elif len(set(texts)) < 5:
        yield f"{len(set(texts))} different captions, 5 expected"
    known = record.get("attributes")
    if not isinstance(known, dict) or set(known) not in LABELLED:
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


def _picture_faults(sample: Sample) -> Iterator[str]:
    pictures: dict[str, np.ndarray] = {}
    for kind, mode in MODES.items():
        data = sample.get(PICTURES[kind])
        if data is None:
            if kind in SHIPPED or PICTURES[kind] in sample:
                yield f"{kind} are missing: build it anew"
            continue
        try:
            with Image.open(io.BytesIO(data)) as image:
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
