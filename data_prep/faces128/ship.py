"""Copies people of a built face world into the clone: `python -m data_prep.faces128.ship`.

What ships has the format of the full set, without stylised renders, and with depth maps only of
people who are seen by several cameras.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from data_prep.faces128.build import SECOND_VIEW
from data_prep.faces128.check import check
from data_prep.shard_writer import Sample, read_shard, write_split
from dmgi_lib.dataset import SPLITS, built_root, shipped_root
from dmgi_lib.shards import shard_paths


def ship(root: Path, out: Path, identities: dict[str, int]) -> int:
    """Copies the first identities of each split and replaces `out` whole.

    Training identities come with their first view, those of other splits with all their views.

    Args:
        root: a built face world.
        out: the sample's folder.
        identities: split → how many identities.

    Returns:
        The sample's size in bytes.

    Raises:
        ValueError: the built set has faults or too few identities; `out` is left as it was.
    """
    faults = check(root)
    if faults:
        raise ValueError(f"{root} has {len(faults)} faults, first {faults[0]!r}; run `make faces`.")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    made.chmod(0o755)
    try:
        for split, wanted in identities.items():
            if wanted:
                write_split(made / split, _chosen(root, split, wanted))
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _chosen(root: Path, split: str, wanted: int) -> list[Sample]:
    chosen: list[Sample] = []
    people: set[int] = set()
    for path in shard_paths(root / split):
        for sample in read_shard(path):
            if split == "train" and int(sample["id"]) >= SECOND_VIEW:
                continue
            if len(people) < wanted:
                people.add(sample["identity"])
            if sample["identity"] in people:
                if split in SPLITS:
                    sample.pop("depth", None)
                chosen.append(sample)
    found = len(people)
    if found < wanted:
        raise ValueError(
            f"{root} holds {found} {split} identities, {wanted} were asked for;"
            " ask for fewer or build more with `make faces`."
        )
    return chosen


@dataclass
class Command:
    """Copies people of a built face world into the clone, in place of those that are there."""

    root: Path = field(default_factory=built_root)
    """a built face world"""
    out: Path = field(default_factory=shipped_root)
    """folder of the sample"""
    train: int = 6000
    """training identities"""
    test: int = 500
    """test identities"""
    views: int = 40
    """test identities with depth, seen by five cameras"""
    train_views: int = 180
    """training identities with depth, seen by four cameras"""


def main() -> None:
    given = tyro.cli(Command)
    splits = (*SPLITS, "views", "train_views")
    size = ship(given.root, given.out, {split: getattr(given, split) for split in splits})
    print(f"{given.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
