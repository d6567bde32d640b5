"""The conversion: pictures once, resumable; labels and report anew in every run.

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

from tqdm.auto import tqdm

from data_prep.celebamask_hq.annotations import Annotations
from data_prep.celebamask_hq.pictures import Pictures, sample_name
from data_prep.celebamask_hq.report import Damage, Note, Report
from data_prep.shard_writer import Sample
from dmgi_lib.dataset import SPLITS
from dmgi_lib.files import write_text


@dataclass(frozen=True)
class Conversion:
    """A data set to be written from pictures and annotations."""

    pictures: Pictures
    annotations: Annotations

    def prepare(self) -> None:
        """Takes the folder, and sweeps what a killed run left half-written.

        Raises:
            ValueError: the root holds another data set, or this one at other settings.
        """
        root = self.pictures.out
        settings = {
            "source": "CelebAMask-HQ",
            "size": self.pictures.size,
            "masks": self.pictures.masks.description,
            "format": "parquet",
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
        write_text(path, json.dumps(settings))
        for split in SPLITS:
            for broken in self.pictures.split(split).sweep():
                print(f"{broken} could not be read; what was in it is converted again.")

    def run(self, workers: int) -> Report:
        """Converts what is missing, then writes the shards of both splits and report.json.

        Args:
            workers: number of processes; 1 works in this one.
        """
        report = Report(files=list(self.annotations.remarks))
        records: dict[str, dict[str, Sample]] = {split: {} for split in SPLITS}
        for index in tqdm(self.indices(), desc="annotations", mininterval=5):
            try:
                split, record, notes = self.annotations.join(index)
            except Damage as damage:
                report.skipped[index] = damage
                continue
            records[split][sample_name(index)] = {"id": sample_name(index)} | record
            report.notes[index] = notes
        missing = []
        for split, wanted in records.items():
            done = self.pictures.split(split).finished()
            missing += [(split, record) for name, record in wanted.items() if name not in done]
        results = tqdm(
            self._converted(missing, workers), total=len(missing), desc="pictures", mininterval=5
        )
        for (split, record), found in zip(missing, results, strict=True):
            if found is not None:
                report.skipped[int(record["id"])] = found
                del records[split][record["id"]]
        self._collect(records, report)
        return report

    def indices(self) -> list[int]:
        """Every sample that the mapping file or the image folder knows."""
        names = (re.fullmatch(r"(\d+)\.jpg", path.name) for path in self.pictures.images.iterdir())
        return sorted({int(name[1]) for name in names if name} | set(self.annotations.files))

    def _converted(
        self, samples: list[tuple[str, Sample]], workers: int
    ) -> Iterator[Damage | None]:
        if workers == 1 or len(samples) < 2:
            yield from map(self.pictures.convert, samples)
            return
        with ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),)) as pool:
            yield from pool.map(self.pictures.convert, samples, chunksize=4)

    def _collect(self, records: dict[str, dict[str, Sample]], report: Report) -> None:
        noted: dict[int, list[Note]] = {}
        for split, wanted in records.items():
            made = self.pictures.split(split)
            report.converted[split] = len(wanted)
            for path, names in made.arrange(list(wanted)):
                before = made.read(path, names)
                samples = [old | wanted[old["id"]] for old in before]
                if samples != before or not path.is_file():
                    made.write(path, samples)
                for sample in samples:
                    index = int(sample["id"])
                    found = [(kind, detail) for kind, detail in sample["notes"]]
                    if notes := report.notes[index] + found:
                        noted[index] = notes
                    report.classes.update(sample["classes"])
                    report.without_camera += sample["camera"] is None
        report.notes = noted
        write_text(self.pictures.out / "report.json", json.dumps(report.to_json(), indent=1))


def _end_with(parent: int) -> None:
    """Ends this process when its parent is killed; otherwise it would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
