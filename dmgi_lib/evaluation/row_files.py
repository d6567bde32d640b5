"""Rows of a table, each drawn and read once and kept in a file of its own: a killed run goes on.

    files = RowFiles(Path("runs/table"), weights=folder_hash(folder), n=500)
    row = files.row("exit_0", "DMGI, exit step 0", draw, read, 500, condition="mask")

Pictures are drawn in parts, which are kept until their row is read. A file's name holds a hash of
all that the row was made from, so other weights, samples or options never meet an old file. To make
a row anew under equal ones, delete its file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import to_uint8
from dmgi_lib.evaluation.reading import Reading
from dmgi_lib.files import folder_hash, sweep, write_whole
from dmgi_lib.weight_folder import part_name

SHOWN = 8  # pictures that a file keeps
CONDITIONS = ("mask", "scribble")
OWN = ("controlnet", "mapping_network", "style_modulation")  # one for each kind of x


@dataclass(frozen=True)
class FinishedRow:
    """A row of a table.

    Attributes:
        name:     as printed.
        reading:  of all its N pictures.
        pictures: (K, 3, 128, 128) uint8, the first K <= SHOWN of them.
        minutes:  that drawing and reading took.
    """

    name: str
    reading: Reading
    pictures: Tensor
    minutes: float


class RowFiles:
    """The folder of a table's rows.

    Args:
        folder: of the files; made when the first is written.
        facts:  what every row is made from: hashes of weights and data, N, seed.
    """

    def __init__(self, folder: Path, **facts: Any) -> None:
        self.folder, self.facts = folder, facts
        sweep(folder, "*")

    def row(
        self,
        key: str,
        name: str,
        draw: Callable[[slice], Tensor],
        read: Callable[[Tensor], Reading],
        n: int,
        at_once: int = 25,
        **made_from: Any,
    ) -> FinishedRow:
        """The row of that key: from its file, else drawn and read, and then its file is written.

        Args:
            key:       of letters, digits and underscores.
            draw:      makes some of the row's pictures (n, 3, 128, 128) in [-1, 1].
            read:      reads all of them.
            n:         of pictures.
            at_once:   asked of `draw`; what it returned is kept if the run is killed.
            made_from: what this row depends on besides the facts of all rows.
        """
        path = self._path(key, "safetensors", made_from)
        if not path.exists():
            starts = tqdm(range(0, n, at_once), desc=name, disable=None, leave=False)
            parts = [_part(path, slice(start, min(start + at_once, n)), draw) for start in starts]
            begin = time.perf_counter()
            pictures = torch.cat([part for part, _ in parts])
            reading = read(pictures)
            minutes = sum(took for _, took in parts) + (time.perf_counter() - begin) / 60
            tensors = {name: value.clone().contiguous() for name, value in vars(reading).items()}
            tensors["pictures"] = to_uint8(pictures[:SHOWN]).contiguous()
            note = {"minutes": f"{minutes:.3f}"}
            write_whole(path, lambda target: save_file(tensors, target, note))
        for part in self.folder.glob(f"{path.stem}.*{path.suffix}"):
            part.unlink(missing_ok=True)
        with safe_open(path, framework="pt") as file:
            held = {field: file.get_tensor(field) for field in file.keys()}
            minutes = float(file.metadata()["minutes"])
        shown = held.pop("pictures")
        return FinishedRow(name, Reading(**held), shown, minutes)

    def numbers(
        self, key: str, make: Callable[[], dict[str, float]], **made_from: Any
    ) -> dict[str, float]:
        """The same for plain numbers, such as times."""
        path = self._path(key, "json", made_from)
        if not path.exists():
            text = json.dumps(make(), indent=1) + "\n"
            write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))
        return json.loads(path.read_text(encoding="utf-8"))

    def _path(self, key: str, suffix: str, made_from: dict[str, Any]) -> Path:
        facts = json.dumps(self.facts | made_from, sort_keys=True)
        digest = hashlib.sha256(facts.encode()).hexdigest()[:10]
        return self.folder / f"{key}-{digest}.{suffix}"


def _part(row: Path, part: slice, draw: Callable[[slice], Tensor]) -> tuple[Tensor, float]:
    """Some pictures of a row, from their file or drawn now, and the minutes that they took."""
    path = row.with_suffix(f".{part.start}-{part.stop}{row.suffix}")
    if not path.exists():
        begin = time.perf_counter()
        tensors = {"pictures": draw(part).contiguous()}
        note = {"minutes": f"{(time.perf_counter() - begin) / 60:.3f}"}
        write_whole(path, lambda target: save_file(tensors, target, note))
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("pictures"), float(file.metadata()["minutes"])


def shared_hash(folder: Path) -> str:
    """Of a model's networks but those of one kind of x and the mask encoder.

    So networks of scribbles, trained anew, leave finished rows of masks as they are, and defaults
    of a call, in model_index.json, those that no call draws.
    """
    own = {part_name(p, x) for p in OWN for x in CONDITIONS}
    return folder_hash(folder, own | {"mask_encoder", "model_index.json"})
