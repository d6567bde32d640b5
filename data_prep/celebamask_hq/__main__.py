"""Command line of the CelebAMask-HQ converter: `python -m data_prep.celebamask_hq --help`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from data_prep.celebamask_hq.annotations import Annotations
from data_prep.celebamask_hq.convert import Conversion
from data_prep.celebamask_hq.pictures import Pictures
from data_prep.celebamask_hq.source_masks import ORDERS, MergedMasks, PartMasks

SMALLEST, LARGEST = 32, 1024


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


def open_conversion(args: argparse.Namespace) -> Conversion:
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
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.celebamask_hq",
        description="Converts CelebAMask-HQ to the on-disk format of the face world.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="the unpacked CelebAMask-HQ")
    add(
        "--captions",
        type=Path,
        required=True,
        help="folder celeba-caption of Multi-Modal-CelebA-HQ; a sample without captions is skipped",
    )
    add(
        "--partition",
        type=Path,
        help="CelebA's list_eval_partition (.txt or .csv): 0 and 1 train, 2 tests; looked for in"
        " --source by default",
    )
    add("--cameras", type=Path, help="EG3D's dataset.json of the same pictures; optional")
    add("--identities", type=Path, help="CelebA's identity_CelebA.txt; optional")
    add("--masks", type=Path, help="folder of merged masks {index}.png, to use instead of parts")
    add(
        "--label-order",
        choices=["auto", *ORDERS],
        default="auto",
        help="id of the nose in merged masks; auto tells it from the pictures",
    )
    add("--out", type=Path, required=True, help="root of the data set to write")
    add("--size", type=int, default=512, help="edge of the pictures written, in pixels")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(arguments)
    try:
        conversion = open_conversion(args)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    report = conversion.run(args.workers)
    print(report.table(), f"every skipped sample: {args.out / 'report.json'}", sep="\n")
    if not any(report.converted.values()):
        raise SystemExit("no sample could be converted")


if __name__ == "__main__":
    main()
