"""The test samples of the evaluation: what is drawn for, and what the judges compare with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmgi_lib.dataset import FaceDataset, to_float


@dataclass(frozen=True)
class GroundTruth:
    """The first view of N test identities."""

    images: Tensor  # (N, 3, 128, 128) in [-1, 1]
    masks: Tensor  # (N, 128, 128) uint8
    attributes: Tensor  # (N, A) int8: 1 true, 0 false, -1 unknown
    records: list[dict[str, Any]]  # of the data set
    prompts: list[str]  # c of each sample
    scribbles: Any = None  # (N, 128, 128); None if the data set has none

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def read(cls, dataset: FaceDataset, n: int) -> GroundTruth:
        """The first n identities in file order, or all if there are fewer; their first captions."""
        rows = dataset.first_views()[:n]
        records = [dataset.records[i] for i in rows.tolist()]
        return cls(
            to_float(dataset.images[rows]),
            dataset.masks[rows],
            dataset.attributes[rows],
            records,
            [record["captions"][0] for record in records],
            dataset.scribbles[rows] if dataset.has("scribbles") else None,
        )

    def taken(self, rows: np.ndarray) -> GroundTruth:
        """The samples `rows`, in that order."""
        index = torch.from_numpy(np.ascontiguousarray(rows))
        taken: dict[str, Any] = {
            name: [part[i] for i in rows] if isinstance(part, list) else part[index]
            for name, part in vars(self).items()
            if part is not None
        }
        return replace(self, **taken)

    def first(self, n: int) -> GroundTruth:
        """The first n samples, or all if there are fewer."""
        return self.taken(np.arange(min(n, len(self))))


def others(n: int, seed: int) -> np.ndarray:
    """(N,) the number of another sample for each; nobody keeps the own one."""
    order = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def givers(truth: GroundTruth, seed: int) -> np.ndarray:
    """Whose caption and mask each sample gets in the swaps, (N,): somebody else of the same sex.

    So that text and mask do not contradict each other about beards and hairstyles.
    """
    order, rng = np.arange(len(truth)), np.random.default_rng(seed)
    male = np.array([bool(record["attributes"].get("Male")) for record in truth.records])
    for value in (True, False):
        rows = rng.permutation(np.flatnonzero(male == value))
        order[rows] = np.roll(rows, 1)
    return order


def exchanged(truth: GroundTruth, seed: int) -> dict[str, GroundTruth]:
    """The samples with another's caption ("text"), another's mask ("mask"), and both ("both").

    Pictures and attributes stay the own ones.
    """
    other = truth.taken(givers(truth, seed))
    masks = {"masks": other.masks, "scribbles": other.scribbles}
    return {
        "both": replace(truth, prompts=other.prompts, **masks),
        "text": replace(truth, prompts=other.prompts),
        "mask": replace(truth, **masks),
    }
