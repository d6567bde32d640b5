"""Command line of the CelebAMask-HQ converter: `python -m data_prep.celebamask_hq --help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from data_prep.celebamask_hq.annotations import Annotations
from data_prep.celebamask_hq.convert import Conversion
from data_prep.celebamask_hq.pictures import Pictures
from data_prep.celebamask_hq.source_masks import MergedMasks, PartMasks

SMALLEST, LARGEST = 32, 1024


@dataclass
class Settings:
    """Converts CelebAMask-HQ to the format of the face world."""

    source: Path
    """the unpacked CelebAMask-HQ"""
    captions: Path
    """folder celeba-caption of Multi-Modal-CelebA-HQ; a sample without captions is skipped"""
    out: Path
    """root of the data set to write"""
    partition: Path | None = None
    """CelebA's list_eval_partition (.txt or .csv): 0 and 1 train, 2 tests; looked for in --source
    by default"""
    cameras: Path | None = None
    """EG3D's dataset.json of the same pictures; optional"""
    identities: Path | None = None
    """CelebA's identity_CelebA.txt; optional"""
    masks: Path | None = None
    """folder of merged masks {index}.png, to use instead of parts"""
    label_order: Literal["auto", "nose-2", "nose-10"] = "auto"
    """id of the nose in merged masks; auto tells it from the pictures"""
    size: int = 512
    """edge of the pictures written, in pixels"""
    workers: int = os.cpu_count() or 1
    """processes"""


def download_folder(source: Path) -> Path:
    """The folder CelebAMask-HQ, given itself or its parent.

    Raises:
        FileNotFoundError: it is neither.
    """
    for folder in (source, source / "CelebAMask-HQ"):
        if (folder / "CelebA-HQ-img").is_dir():
            return folder
    raise FileNotFoundError(
        f"{source} holds no folder CelebA-HQ-img; name the unpacked CelebAMask-HQ with --source."
    )


def open_conversion(args: Settings) -> Conversion:
    """Checks what was asked for and reads the annotation files.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a file or a setting is not as expected.
    """
    if not SMALLEST <= args.size <= LARGEST:
        raise ValueError(f"--size came as {args.size}; expected {SMALLEST} to {LARGEST} pixels.")
    if args.workers < 1:
        raise ValueError(f"--workers came as {args.workers}; expected at least 1.")
    if args.masks is None and args.label_order != "auto":
        raise ValueError("--label-order is for merged masks; name their folder with --masks too.")
    source = download_folder(args.source)
    masks: PartMasks | MergedMasks
    if args.masks is not None:
        masks = MergedMasks.open(args.masks, args.label_order)
    else:
        masks = PartMasks(source / "CelebAMask-HQ-mask-anno")
        if not masks.folder.is_dir():
            raise FileNotFoundError(
                f"{masks.folder} does not exist; unpack the whole download, or name a folder of"
                " merged masks with --masks."
            )
    annotations = Annotations.read(
        source,
        args.captions,
        args.partition or source / "list_eval_partition.txt",
        args.cameras,
        args.identities,
    )
    pictures = Pictures(source / "CelebA-HQ-img", masks, args.out, args.size)
    conversion = Conversion(pictures, annotations)
    conversion.prepare()
    return conversion


def main(arguments: Sequence[str] | None = None) -> None:
    program = "python -m data_prep.celebamask_hq"
    args = tyro.cli(Settings, args=arguments, prog=program)
    try:
        conversion = open_conversion(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    report = conversion.run(args.workers)
    print(report.table(), f"every skipped sample: {args.out / 'report.json'}", sep="\n")
    if not any(report.converted.values()):
        raise SystemExit("no sample could be converted")


if __name__ == "__main__":
    main()
