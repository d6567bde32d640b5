"""What became of every sample of a conversion: `report.json` and the summary table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Note = tuple[str, str]  # kind of a repair or gap, detail


class Damage(Exception):
    """A sample that cannot be converted: `reason` is one of few kinds, `detail` names the file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass
class Report:
    """Collected while converting; indices are those of CelebA-HQ.

    Attributes:
        converted: split → number of samples.
        skipped: index → damage.
        notes: index → what was repaired or is missing in a converted sample.
        classes: mask class → number of converted samples in which it occurs.
        without_camera: number of converted samples with "camera": null.
        files: remarks on the annotation files as a whole, such as a cut-off last line.
    """

    converted: Counter[str] = field(default_factory=Counter)
    skipped: dict[int, Damage] = field(default_factory=dict)
    notes: dict[int, list[Note]] = field(default_factory=dict)
    classes: Counter[str] = field(default_factory=Counter)
    without_camera: int = 0
    files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; every skipped sample with its reason."""
        return {
            "converted": dict(self.converted),
            "without_camera": self.without_camera,
            "annotation_files": self.files,
            "samples_with_class": dict(self.classes),
            "skipped": [
                {"index": index, "reason": damage.reason, "detail": damage.detail}
                for index, damage in sorted(self.skipped.items())
            ],
            "notes": [
                {"index": index, "kind": kind, "detail": detail}
                for index, notes in sorted(self.notes.items())
                for kind, detail in notes
            ],
        }

    def table(self) -> str:
        """The counts, one a line."""
        rows = list(self.converted.items())
        rows.append(("skipped", len(self.skipped)))
        reasons = Counter(damage.reason for damage in self.skipped.values())
        rows += [(f"  {reason}", count) for reason, count in sorted(reasons.items())]
        rows.append(("converted, with a note", len(self.notes)))
        kinds = Counter(kind for notes in self.notes.values() for kind in {n[0] for n in notes})
        rows += [(f"  {kind}", count) for kind, count in sorted(kinds.items())]
        rows.append(("converted, without camera", self.without_camera))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {count:>6,}" for name, count in rows]
        return "\n".join(lines + [f"note: {remark}" for remark in self.files])
