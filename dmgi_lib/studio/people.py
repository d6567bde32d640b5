"""Masks of shipped test people to begin a drawing with."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmgi_lib.dataset import FaceDataset, shipped_root
from dmgi_lib.masks import flip_mask

# What shows in a mask, and the attribute that finds somebody who has it.
SEEN = {
    "long hair": "Long_Hair", "bangs": "Bangs", "wavy hair": "Wavy_Hair", "bald": "Bald",
    "open mouth": "Mouth_Slightly_Open", "glasses": "Eyeglasses", "sunglasses": "Sunglasses",
    "hat": "Wearing_Hat", "earrings": "Wearing_Earrings", "necklace": "Wearing_Necklace",
    "necktie": "Wearing_Necktie", "double chin": "Double_Chin",
}  # fmt: skip
CANDIDATES = 8  # of which the one that looks straight ahead is taken


def shipped_masks() -> dict[str, np.ndarray[Any, Any]]:
    """What shows → (H, W) uint8 class ids of a shipped test person, nobody twice."""
    faces = FaceDataset(shipped_root(), "test", memory=0)
    found: dict[str, np.ndarray[Any, Any]] = {}
    seen = [{k for k, v in SEEN.items() if one["attributes"][v]} for one in faces.records]
    by_little_else = sorted(range(len(faces)), key=lambda i: len(seen[i]))
    for name in SEEN:
        rows = [i for i in by_little_else if name in seen[i]][:CANDIDATES]
        if not rows:
            continue
        masks = faces.masks[rows]
        best = (masks == flip_mask(masks)).float().mean((1, 2)).argmax()
        found[name] = masks[best].numpy()
        by_little_else.remove(rows[best])
    return found
