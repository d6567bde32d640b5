"""The conversion: pictures once, resumable; metadata and report anew in every run.

So captions, cameras or identities may be added later without making pictures again, and what was
skipped is tried again.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from data_prep.celebamask_hq.annotations import Annotations
from data_prep.celebamask_hq.pictures import KINDS, Pictures, sample_name, write
from data_prep.celebamask_hq.report import Damage, Note, Report
from dmgi_lib.dataset import SPLITS


@dataclass(frozen=True)
class Conversion:
    """A data set to be written from pictures and annotations."""

    pictures: Pictures
    annotations: Annotations

    def prepare(self) -> None:
        """Makes the folders and sweeps what a killed run left half-written.

        Raises:
            ValueError: the root holds another data set, or this one at other settings.
        """
        root = self.pictures.out
        settings = {
            "source": "CelebAMask-HQ",
            "size": self.pictures.size,
            "masks": self.pictures.masks.description,
        }
        path = root / "conversion.json"
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before != settings:
                raise ValueError(
                    f"{root} was begun with {before}, now {settings} is asked for; choose another"
                    " --out, or remove that folder to begin anew."
                )
        elif any((root / split).exists() for split in SPLITS):
            raise ValueError(f"{root} holds another data set; choose another --out.")
        root.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(settings).encode())
        for split in SPLITS:
            for kind in KINDS:
                folder = root / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                for leftover in folder.glob(".*.part"):
                    leftover.unlink()

    def run(self, workers: int) -> Report:
        """Converts what is missing, then writes metadata.jsonl of both splits and report.json.

        Args:
            workers: number of processes; 1 works in this one.
        """
        report = Report(files=list(self.annotations.remarks))
        records: dict[tuple[int, str], dict[str, Any]] = {}
        for index in tqdm(self.indices(), desc="annotations", mininterval=5):
            try:
                split, record, notes = self.annotations.join(index)
            except Damage as damage:
                report.skipped[index] = damage
                continue
            records[index, split] = {"id": sample_name(index)} | record
            report.notes[index] = notes
        missing = [sample for sample in records if not self.pictures.is_done(*sample)]
        results = tqdm(
            self._converted(missing, workers), total=len(missing), desc="pictures", mininterval=5
        )
        for (index, _), found in zip(missing, results, strict=True):
            if found is not None:
                report.skipped[index] = found
        self._collect(records, report)
        return report

    def indices(self) -> list[int]:
        """Every sample that the mapping file or the image folder knows."""
        names = (re.fullmatch(r"(\d+)\.jpg", path.name) for path in self.pictures.images.iterdir())
        return sorted({int(name[1]) for name in names if name} | set(self.annotations.files))

    def _converted(self, samples: list[tuple[int, str]], workers: int) -> Iterator[Damage | None]:
        if workers == 1 or len(samples) < 2:
            yield from map(self.pictures.convert, samples)
            return
        with ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),)) as pool:
            yield from pool.map(self.pictures.convert, samples, chunksize=4)

    def _collect(self, records: dict[tuple[int, str], dict[str, Any]], report: Report) -> None:
        lines: dict[str, list[str]] = {split: [] for split in SPLITS}
        report.converted.update(dict.fromkeys(SPLITS, 0))
        noted: dict[int, list[Note]] = {}
        for (index, split), record in records.items():
            if index in report.skipped:
                continue
            classes, notes = self.pictures.record(index, split)
            if notes := report.notes[index] + notes:
                noted[index] = notes
            report.classes.update(classes)
            report.converted[split] += 1
            report.without_camera += record["camera"] is None
            lines[split].append(json.dumps(record, ensure_ascii=False) + "\n")
        report.notes = noted
        root = self.pictures.out
        for split in SPLITS:
            write(root / split / "metadata.jsonl", "".join(lines[split]).encode())
        write(root / "report.json", json.dumps(report.to_json(), indent=1).encode())


def _end_with(parent: int) -> None:
    """Ends this process when its parent is killed; otherwise it would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
