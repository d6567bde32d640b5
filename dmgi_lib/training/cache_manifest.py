"""manifest.json of a feature cache: all that its features were made from.

Features of another encoder or another data set look like any others, so a cache is compared with
what it would be made from now before anything is read from it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.files import differences, plain, state_hash, write_whole
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.training.features import STORED, CacheConfig
from dmgi_lib.weight_folder import part_name

FROZEN = ("text_encoder", "unet", "vae")
NAME = "manifest.json"


def encoder_facts(config: CacheConfig, pipe: DMGIPipeline) -> dict[str, Any]:
    """Config, weights, vocabulary, noise schedule and precision of E."""
    schedule = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    network = part_name("controlnet", config.condition)
    return plain(
        {
            "config": asdict(config),
            "weights": {name: state_hash(getattr(pipe, name)) for name in (*FROZEN, network)},
            "vocabulary": _digest(json.dumps(pipe.tokenizer.get_vocab(), sort_keys=True).encode()),
            "scheduler": {"class": type(pipe.scheduler).__name__} | schedule,
            "precision": {"weights": str(pipe.unet.dtype), "stored": str(STORED)},
        }
    )


def dataset_facts(config: CacheConfig, dataset: FaceDataset) -> dict[str, Any]:
    """Split, size and labels of the data set, and the pictures that E was shown.

    Pictures count by name and size in bytes: reading all of them would take as long as using them.
    """
    kinds = [f"{config.condition}s", *(["images"] if config.source == "noised" else [])]
    files = [path for kind in kinds for path in sorted((dataset.folder / kind).iterdir())]
    pictures = [(path.parent.name, path.name, path.stat().st_size) for path in files]
    return {
        "split": dataset.split,
        "samples": len(dataset),
        "metadata": _digest((dataset.folder / "metadata.jsonl").read_bytes()),
        "pictures": _digest(json.dumps(pictures).encode()),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a cache.

    Raises:
        ValueError: it is missing or unreadable, so nobody knows what made the shards beside it.
    """
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ValueError(
            f"feature cache {folder} has no readable {NAME} ({error}), so nothing says what made"
            " its shards. Delete the folder and build it anew."
        ) from error


def check_facts(folder: Path, made_from: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError naming all that differs. Parts that `now` lacks are not compared."""
    found = differences({part: made_from.get(part, {}) for part in now}, now)
    if found:
        raise ValueError(
            f"feature cache {folder} was made from something else: {'; '.join(found)}."
            " Delete it and build it anew, or give another --cache folder."
        )


def settle_manifest(folder: Path, now: dict[str, Any], has_shards: bool) -> None:
    """Writes the manifest of a new cache, or compares with the one that is there.

    Raises:
        ValueError: it differs, or there are shards but no manifest.
    """
    if has_shards or (folder / NAME).exists():
        check_facts(folder, read_manifest(folder), now)
        return
    text = json.dumps(now, indent=2) + "\n"
    write_whole(folder / NAME, lambda target: target.write_text(text, encoding="utf-8"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
