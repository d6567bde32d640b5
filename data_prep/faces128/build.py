"""Builds the face world on disk: `python -m data_prep.faces128.build` (or `make faces`).

Every sample is a pure function of its number, so a stopped build goes on where it was, on any
number of processes, and gives the same files; other processors round some pixels differently.
"""

import argparse
import io
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from data_prep.faces128.check import SUFFIXES, check
from data_prep.faces128.person import Identity, View
from dmgi_lib.dataset import EXTRA_SPLITS, SPLITS, built_root
from dmgi_lib.masks import PALETTE

TEST_SEED = 1_000_000  # test identities are drawn from here on, training identities from 0 on
SECOND_VIEW = 500_000  # sample numbers of second views
STYLE = 10_000  # sample number of a stylised render: style * STYLE + identity
CAMERAS = (-40.0, -20.0, 0.0, 20.0, 40.0)  # yaw of the views; number: identity * 10 + camera


def sample_numbers(
    train: tuple[int, int], test: tuple[int, int], styles: int = 0, views: int = 0
) -> dict[str, list[int]]:
    """Split → sample numbers.

    Args:
        train, test: identities, and how many of them get a second view.
        styles: renders of each style, of training identities.
        views: test identities seen from all CAMERAS.
    """
    from data_prep.faces128.styles import STYLES

    numbers = {}
    for split, (identities, second) in (("test", test), ("train", train)):
        numbers[split] = [*range(identities), *(SECOND_VIEW + i for i in range(second))]
    numbers["styles"] = [k * STYLE + i for k in range(len(STYLES)) for i in range(styles)]
    numbers["views"] = [i * 10 + k for i in range(views) for k in range(len(CAMERAS))]
    return numbers


def sample_person(split: str, number: int) -> tuple[int, Identity, View, str]:
    """(identity's number, person, picture, style) of a sample."""
    from data_prep.faces128.person import sample_identity, sample_view
    from data_prep.faces128.styles import STYLES

    style, view_number = "photo", 0
    if split == "styles":
        style, identity_number = STYLES[number // STYLE], number % STYLE
    elif split == "views":
        identity_number = number // 10
    else:
        view_number, identity_number = divmod(number, SECOND_VIEW)
    seed = identity_number + (TEST_SEED if split in ("test", "views") else 0)
    identity = sample_identity(seed)
    view = sample_view(identity, view_number)
    if split == "views":
        view = replace(view, yaw=CAMERAS[number % 10], pitch=view.pitch / 2, roll=0.0)
    return identity_number, identity, view, style


def write(path: Path, data: bytes) -> None:
    """Writes a file whole: to a temporary name, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _sweep(root: Path, split: str) -> None:
    """Removes temporary files that a killed process left."""
    for folder in (root / split, *(root / split / kind for kind in SUFFIXES)):
        for path in folder.glob(".*.*"):
            path.unlink()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def label(split: str, number: int, mask: np.ndarray, camera: list[float]) -> dict:
    """The record of a sample, from what it was made from and what its mask (H, W) shows."""
    from data_prep.faces128.attributes import attributes
    from data_prep.faces128.captions import captions
    from data_prep.faces128.styles import dressed, style_captions

    identity_number, identity, view, style = sample_person(split, number)
    identity, view = dressed(identity, view, style)
    seen = attributes(identity, view, mask)
    if style == "photo":
        texts = captions(seen, identity.seed * 10 + view.seed)
    else:
        texts = style_captions(style, seen, identity.seed)
    return {
        "id": f"{number:06d}",
        "identity": identity_number,
        "seed": identity.seed,
        "captions": texts,
        "attributes": seen,
        "camera": camera,
        "shape_code": [round(float(x), 4) for x in identity.shape_code],
        "hair_color": "none" if identity.hair_style == "bald" else identity.hair_color,
        "skin_tone": round(identity.skin_tone, 4),
        "style": style,
    }


def _write_record(folder: Path, record: dict) -> None:
    write(folder / "records" / f"{record['id']}.json", json.dumps(record).encode())


def make_sample(root: Path, split: str, number: int, spp: int) -> None:
    """Renders sample `number` of `split` and writes its five files, the record last."""
    from data_prep.faces128.render import render
    from data_prep.scribbles import scribble

    folder = root / split
    name = f"{number:06d}"
    _, identity, view, style = sample_person(split, number)
    picture = render(identity, view, spp=spp, style=style)

    buffer = io.BytesIO()
    Image.fromarray(picture.image).save(buffer, "WEBP", quality=94, method=4)
    write(folder / "images" / f"{name}.webp", buffer.getvalue())
    mask = Image.fromarray(picture.mask, "P")
    mask.putpalette(PALETTE.astype(np.uint8).tobytes())
    write(folder / "masks" / f"{name}.png", _png(mask))
    strokes = scribble(picture.mask, picture.image)
    write(folder / "scribbles" / f"{name}.png", _png(Image.fromarray(strokes)))
    depth = np.clip(picture.depth * 10_000, 0, 65_535).round().astype(np.uint16)
    write(folder / "depth" / f"{name}.png", _png(Image.fromarray(depth)))
    camera = [round(float(x), 6) for x in picture.camera]
    _write_record(folder, label(split, number, picture.mask, camera))


def _relabelled(folder: Path, old: str) -> dict:
    """The record of a sample of the split `folder` as `label` makes it now; old: its JSON."""
    was = json.loads(old)
    mask = np.asarray(Image.open(folder / "masks" / f"{was['id']}.png"))
    return label(folder.name, int(was["id"]), mask, was["camera"])


def relabel(root: Path) -> None:
    """Writes attributes and captions of all rendered samples anew, as `label` makes them now.

    Every file is replaced whole; one that was stopped is finished by the next. What ships has no
    records, only their collection.
    """
    for split in SPLITS + EXTRA_SPLITS:
        folder, collection = root / split, root / split / "metadata.jsonl"
        _sweep(root, split)
        records = sorted((folder / "records").glob("*.json"))
        for path in tqdm(records, desc=split, mininterval=10):
            _write_record(folder, _relabelled(folder, path.read_text(encoding="utf-8")))
        if records:
            _collect(root, split)
        elif collection.is_file():
            lines = tqdm(collection.read_text(encoding="utf-8").splitlines(), split, mininterval=10)
            anew = "".join(json.dumps(_relabelled(folder, line)) + "\n" for line in lines)
            write(collection, anew.encode())


def _collect(root: Path, split: str) -> int:
    records = sorted((root / split / "records").glob("*.json"))
    lines = b"\n".join(path.read_bytes() for path in records) + b"\n"
    if records:
        write(root / split / "metadata.jsonl", lines)
    return len(records)


def _begin_worker(scratch: Path) -> None:
    """Ends this worker when the process that started it is gone, even when that was killed.

    Args:
        scratch: where the renderer's temporary files go, which such an end leaves behind.
    """
    tempfile.tempdir = str(scratch)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _missing(root: Path, split: str, numbers: list[int]) -> list[int]:
    """Sample numbers of which a file is missing."""
    done = set(numbers)
    for kind, suffix in SUFFIXES.items():
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        done &= {int(path.stem) for path in (root / split / kind).glob(f"[0-9]*.{suffix}")}
    return [number for number in numbers if number not in done]


def build(root: Path, wanted: dict[str, list[int]], workers: int, spp: int) -> None:
    """Renders what is missing. Only one build at a time may write to a folder.

    Args:
        wanted: split → sample numbers, from `sample_numbers`.
    """
    tasks = []
    for split, numbers in wanted.items():
        if numbers:
            _sweep(root, split)
            tasks += [(split, number) for number in _missing(root, split, numbers)]
    scratch = root / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    started = time.perf_counter()
    pool = ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(scratch,))
    try:
        futures = {pool.submit(make_sample, root, *task, spp): task for task in tasks}
        bar = tqdm(as_completed(futures), total=len(futures), desc="faces128", mininterval=10)
        for finished, future in enumerate(bar, 1):
            if error := future.exception():
                error.add_note(f"while rendering sample {futures[future]}")
                raise error
            if finished % 100 == 0:
                for split in wanted:
                    _collect(root, split)
    finally:  # after a fault or Ctrl-C, nothing new is begun
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(scratch)
    seconds = time.perf_counter() - started
    if tasks:
        print(
            f"rendered {len(tasks):,} samples in {seconds:,.0f} s:"
            f" {seconds / len(tasks):.2f} s a sample with {workers} processes"
        )
    print(
        *(f"{split}: {_collect(root, split)} samples" for split in wanted),
        sep=", ",
        end=f" in {root}\n",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=built_root(), help="folder to build in")
    parser.add_argument("--train", type=int, default=6000, help="training identities")
    parser.add_argument("--test", type=int, default=500, help="test identities")
    parser.add_argument(
        "--second-views", type=int, default=800, help="training identities seen twice"
    )
    parser.add_argument(
        "--test-second-views", type=int, default=100, help="test identities seen twice"
    )
    parser.add_argument("--styles", type=int, default=150, help="renders of each style")
    parser.add_argument("--views", type=int, default=300, help="test identities from 5 cameras")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--spp", type=int, default=16, help="light paths a pixel")
    parser.add_argument("--check", action="store_true", help="only verify what is there")
    parser.add_argument(
        "--relabel", action="store_true", help="only write attributes and captions anew"
    )
    args = parser.parse_args()
    if args.relabel:
        relabel(args.root)
    elif not args.check:
        train, test = (args.train, args.second_views), (args.test, args.test_second_views)
        numbers = sample_numbers(train, test, args.styles, args.views)
        build(args.root, numbers, args.workers, args.spp)
    faults = check(args.root)
    print(*faults or ["all samples are sound"], sep="\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
