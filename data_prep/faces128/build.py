"""Builds the face world on disk: `python -m data_prep.faces128.build` (or `make faces`).

Every sample is a pure function of its number, so a stopped build goes on where it was, on any
number of processes, and gives the same files; other processors round some pixels differently.
"""

import io
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tqdm.auto import tqdm

from data_prep.faces128.check import check
from data_prep.faces128.person import Identity, View
from data_prep.shard_writer import Sample, Split, read_shard, write_shard
from dmgi_lib.dataset import EXTRA_SPLITS, SPLITS, built_root
from dmgi_lib.masks import PALETTE

TEST_SEED = 1_000_000  # test identities are drawn from here on, training identities from 0 on
SECOND_VIEW = 500_000  # sample numbers of second views
STYLE = 10_000  # sample number of a stylised render: style * STYLE + identity
CAMERAS = (-40.0, -20.0, 0.0, 20.0, 40.0)  # yaw of the views; number: identity * 10 + camera
TRAIN_CAMERAS = 4  # views of a training identity: one drawn from each quarter of +-45 degrees


def sample_numbers(
    train: tuple[int, int],
    test: tuple[int, int],
    styles: int = 0,
    views: int = 0,
    train_views: int = 0,
) -> dict[str, list[int]]:
    """Split → sample numbers.

    Args:
        train, test: identities, and how many of them get a second view.
        styles: renders of each style, of training identities.
        views: test identities seen from all CAMERAS.
        train_views: training identities seen from TRAIN_CAMERAS cameras.
    """
    from data_prep.faces128.styles import STYLES

    numbers = {}
    for split, (identities, second) in (("test", test), ("train", train)):
        numbers[split] = [*range(identities), *(SECOND_VIEW + i for i in range(second))]
    numbers["styles"] = [k * STYLE + i for k in range(len(STYLES)) for i in range(styles)]
    numbers["views"] = [i * 10 + k for i in range(views) for k in range(len(CAMERAS))]
    numbers["train_views"] = [i * 10 + k for i in range(train_views) for k in range(TRAIN_CAMERAS)]
    return numbers


def sample_person(split: str, number: int) -> tuple[int, Identity, View, str]:
    """(identity's number, person, picture, style) of a sample."""
    from data_prep.faces128.person import sample_identity, sample_view
    from data_prep.faces128.styles import STYLES

    style, view_number = "photo", 0
    if split == "styles":
        style, identity_number = STYLES[number // STYLE], number % STYLE
    elif split in ("views", "train_views"):
        identity_number = number // 10
    else:
        view_number, identity_number = divmod(number, SECOND_VIEW)
    seed = identity_number + (TEST_SEED if split in ("test", "views") else 0)
    identity = sample_identity(seed)
    view = sample_view(identity, view_number)
    if split == "views":
        view = replace(view, yaw=CAMERAS[number % 10], pitch=view.pitch / 2, roll=0.0)
    if split == "train_views":
        rng = np.random.default_rng([seed, number % 10, 5])
        band = number % 10 % TRAIN_CAMERAS
        yaw = -45.0 + 90.0 * (band + float(rng.random())) / TRAIN_CAMERAS
        view = replace(view, yaw=yaw, pitch=float(rng.uniform(-15, 15)), roll=0.0)
    return identity_number, identity, view, style


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def label(
    split: str, number: int, mask: np.ndarray, image: np.ndarray, camera: list[float]
) -> dict:
    """The record of a sample, from what it was made from, and what it shows.

    Args:
        mask: (H, W) class ids.
        image: (H, W, 3) uint8, as it is stored.
    """
    from data_prep.faces128.attributes import attributes
    from data_prep.faces128.captions import captions
    from data_prep.faces128.styles import dressed, style_captions

    identity_number, identity, view, style = sample_person(split, number)
    identity, view = dressed(identity, view, style)
    seen = attributes(identity, view, mask, image)
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


def make_sample(split: str, number: int, spp: int) -> Sample:
    """Renders sample `number` of `split`: its labels and its four picture files."""
    from data_prep.faces128.render import render
    from data_prep.scribbles import scribble

    _, identity, view, style = sample_person(split, number)
    picture = render(identity, view, spp=spp, style=style)
    image = io.BytesIO()
    Image.fromarray(picture.image).save(image, "WEBP", quality=94, method=4)
    mask = Image.fromarray(picture.mask, "P")
    mask.putpalette(PALETTE.astype(np.uint8).tobytes())
    depth = np.clip(picture.depth * 10_000, 0, 65_535).round().astype(np.uint16)
    camera = [round(float(x), 6) for x in picture.camera]
    return label(split, number, picture.mask, _opened(image.getvalue()), camera) | {
        "image": image.getvalue(),
        "mask": _png(mask),
        "scribble": _png(Image.fromarray(scribble(picture.mask, picture.image))),
        "depth": _png(Image.fromarray(depth)),
    }


def _render(root: Path, split: str, number: int, spp: int) -> None:
    Split(root / split).add(make_sample(split, number, spp))


def relabel(root: Path) -> None:
    """Writes attributes and captions of all rendered samples anew, as `label` makes them now.

    Every file is replaced whole; one that was stopped is finished by the next.
    """
    for split in SPLITS + EXTRA_SPLITS:
        spool = Split(root / split).spool
        paths = sorted([*(root / split).glob("*.parquet"), *spool.glob("*.parquet")])
        for path in tqdm(paths, desc=split, mininterval=10):
            write_shard(path, [_relabelled(split, sample) for sample in read_shard(path)])


def _relabelled(split: str, sample: Sample) -> Sample:
    mask, image = _opened(sample["mask"]), _opened(sample["image"])
    return sample | label(split, int(sample["id"]), mask, image, sample["camera"])


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


class _Plan:
    """What a build has to render: tasks (split, number), and the shards that wait for them."""

    def __init__(self, root: Path, wanted: dict[str, list[int]]) -> None:
        self.tasks: list[tuple[str, int]] = []
        self.shard_of: dict[tuple[str, int], tuple[Path, list[str]]] = {}
        self.missing: dict[Path, int] = {}
        for split, numbers in wanted.items():
            if numbers:
                self._add(Split(root / split), split, numbers)

    def _add(self, made: Split, split: str, numbers: list[int]) -> None:
        if (made.folder / "metadata.jsonl").is_file() or (made.folder / "records").is_dir():
            raise ValueError(
                f"{made.folder} holds loose files of an earlier version of the kit; name another"
                " folder with --root, or remove that one."
            )
        for path in made.sweep():
            print(f"{path} could not be read; what was in it is rendered again.")
        ids = made.finished() | {f"{number:06d}" for number in numbers}
        for path, names in made.arrange(sorted(ids)):
            if path.is_file():
                continue
            tasks = [(split, int(name)) for name in names if not made.waiting(name).is_file()]
            self.tasks += tasks
            self.shard_of |= dict.fromkeys(tasks, (path, names))
            self.missing[path] = len(tasks)
            if not tasks:
                made.write(path, made.read(path, names))

    def finish(self, task: tuple[str, int]) -> None:
        """Writes the shard of a rendered sample when it was the last one missing there."""
        path, names = self.shard_of[task]
        self.missing[path] -= 1
        if not self.missing[path]:
            made = Split(path.parent)
            made.write(path, made.read(path, names))


def build(root: Path, wanted: dict[str, list[int]], workers: int, spp: int) -> None:
    """Renders what is missing. Only one build at a time may write to a folder.

    Args:
        wanted: split → sample numbers, from `sample_numbers`.

    Raises:
        ValueError: the folder holds a face world of an earlier version.
    """
    plan = _Plan(root, wanted)
    scratch = root / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    started = time.perf_counter()
    pool = ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(scratch,))
    try:
        futures = {pool.submit(_render, root, *task, spp): task for task in plan.tasks}
        for future in tqdm(as_completed(futures), "faces128", len(futures), mininterval=10):
            if error := future.exception():
                error.add_note(f"while rendering sample {futures[future]}")
                raise error
            plan.finish(futures[future])
    finally:  # after a fault or Ctrl-C, nothing new is begun
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(scratch)
    seconds = time.perf_counter() - started
    if plan.tasks:
        print(
            f"rendered {len(plan.tasks):,} samples in {seconds:,.0f} s:"
            f" {seconds / len(plan.tasks):.2f} s a sample with {workers} processes"
        )
    counts = {split: len(Split(root / split).finished()) for split in wanted}
    print(", ".join(f"{split}: {n} samples" for split, n in counts.items()), f"in {root}")


@dataclass
class Command:
    """Builds the face world: renders what is missing, and verifies everything."""

    root: Path = field(default_factory=built_root)
    """folder to build in"""
    train: int = 6000
    """training identities"""
    test: int = 500
    """test identities"""
    second_views: int = 800
    """training identities seen twice"""
    test_second_views: int = 100
    """test identities seen twice"""
    styles: int = 150
    """renders of each style"""
    views: int = 300
    """test identities from 5 cameras"""
    train_views: int = 0
    """training identities from 4 cameras, for generators of heads in three dimensions"""
    workers: int = os.cpu_count() or 1
    """processes"""
    spp: int = 16
    """light paths a pixel"""
    check: bool = False
    """only verify what is there"""
    relabel: bool = False
    """only write attributes and captions anew"""


def main() -> None:
    given = tyro.cli(Command)
    if given.relabel:
        relabel(given.root)
    elif not given.check:
        train, test = (given.train, given.second_views), (given.test, given.test_second_views)
        numbers = sample_numbers(train, test, given.styles, given.views, given.train_views)
        build(given.root, numbers, given.workers, given.spp)
    faults = check(given.root)
    print(*faults or ["all samples are sound"], sep="\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
