"""Copies people of a built face world into the clone: `python -m data_prep.faces128.ship`.

What ships has the format of the full set, without depth maps, stylised renders and views.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from data_prep.faces128.build import SECOND_VIEW
from data_prep.faces128.check import SHIPPED, SUFFIXES, check
from dmgi_lib.dataset import SPLITS, built_root, shipped_root


def ship(root: Path, out: Path, identities: dict[str, int]) -> int:
    """Copies the first identities of each split and replaces `out` whole.

    Test identities come with all their views, training identities with the first one.

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
        for split in SPLITS:
            lines = (root / split / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
            wanted = identities[split]
            chosen = [x for x in lines if int(json.loads(x)["id"]) % SECOND_VIEW < wanted]
            if split == "train":
                chosen = [x for x in chosen if int(json.loads(x)["id"]) < SECOND_VIEW]
            found = len({json.loads(line)["identity"] for line in chosen})
            if found < wanted:
                raise ValueError(
                    f"{root} holds {found} {split} identities, {wanted} were asked for;"
                    " ask for fewer or build more with `make faces`."
                )
            for kind in SHIPPED:
                (made / split / kind).mkdir(parents=True)
                for line in chosen:
                    name = f"{json.loads(line)['id']}.{SUFFIXES[kind]}"
                    shutil.copyfile(root / split / kind / name, made / split / kind / name)
            (made / split / "metadata.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=built_root(), help="a built face world")
    parser.add_argument("--out", type=Path, default=shipped_root(), help="folder of the sample")
    parser.add_argument("--train", type=int, default=6000, help="training identities")
    parser.add_argument("--test", type=int, default=500, help="test identities")
    args = parser.parse_args()
    size = ship(args.root, args.out, {"train": args.train, "test": args.test})
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
