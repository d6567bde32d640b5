"""Features of the whole training set on disk: E is frozen, so its reverse process runs once.

    python -m dmgi_lib.training.feature_cache --data ROOT --steps 0,2,4,7,9 --views 2

Shards of `features.encode_samples`, and manifest.json that says what made them: features of another
encoder or data set look like any others, so it is compared with what would be made now before
anything is read. A build that is killed goes on where it was: shards are written whole, and only
missing or broken ones are made.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import has_room, moved, pick_device
from dmgi_lib.files import read_json, sweep, write_text, write_whole
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import PRESETS
from dmgi_lib.training.features import (
    CacheConfig,
    Features,
    Rows,
    at,
    compare,
    dataset_facts,
    encode_samples,
    encoder_facts,
    stacked,
)
from dmgi_lib.weight_folder import check_safetensors

SHARDS, MANIFEST = "view*.safetensors", "manifest.json"
NUMBERS = ("sample", "caption")  # of entries, by which a CPU looks up the rest


class FeatureCache(Features):
    """Reader. Entries are the finished shards of all views, in file order; files are memory-mapped.

    Raises:
        FileNotFoundError: the folder holds no finished shard.
        ValueError: a shard is broken, or the manifest is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder).expanduser()
        paths = sorted(folder.glob(SHARDS))
        if not paths:
            raise FileNotFoundError(
                f"no feature cache at {folder}; build it first:"
                f" python -m dmgi_lib.training.feature_cache --cache {folder}"
            )
        broken = [str(path) for path in paths if not _is_whole(path)]
        if broken:
            raise ValueError(
                f"truncated or unreadable shards: {', '.join(broken)}. Build the cache again with"
                " the command that made it; whole shards are kept."
            )
        manifest = _read_manifest(folder)
        made_with = manifest["config"]
        config = CacheConfig(**(made_with | {"steps": tuple(made_with["steps"])}))
        self._shards = [load_file(path) for path in paths]
        sizes = [len(shard["sample"]) for shard in self._shards]
        views = torch.tensor([int(path.name[4:7]) for path in paths])
        samples = torch.cat([shard["sample"] for shard in self._shards])
        super().__init__(
            folder, config, manifest, views.repeat_interleave(torch.tensor(sizes)), samples
        )
        self._home = [(shard, row) for shard, size in enumerate(sizes) for row in range(size)]
        self._kept: Rows = {}

    def keep_on(self, device: torch.device) -> None:
        """Moves the features to a GPU that has room for them: there a batch is gathered at once."""
        if has_room(sum(x.nbytes for shard in self._shards for x in shard.values()), device):
            self._kept = {
                name: torch.cat([shard[name] for shard in self._shards]).to(
                    "cpu" if name in NUMBERS else device
                )
                for name in self._shards[0]
            }

    def _read(self, entries: torch.Tensor, slots: torch.Tensor) -> Rows:
        if self._kept:
            return {
                name: at(name, x, moved(entries, x.device), moved(slots, x.device))
                for name, x in self._kept.items()
            }
        homes = [self._home[e] for e in entries.tolist()]
        return stacked(
            [
                {name: at(name, x, row, slot) for name, x in self._shards[shard].items()}
                for (shard, row), slot in zip(homes, slots.tolist(), strict=True)
            ]
        )


def build(
    config: CacheConfig,
    pipe: DMGIPipeline,
    dataset: FaceDataset,
    folder: str | Path,
    *,
    views: int = 1,
    batch_size: int = 16,
    minutes: float | None = None,
    limit: int | None = None,
) -> FeatureCache:
    """Fills `folder` with the shards that it lacks. Interrupt and call again at will.

    Args:
        views: passes over the dataset; odd ones (1, 3, …) use mirrored samples.
        batch_size: samples per reverse process.
        minutes: stop after the shard during which this budget ran out.
        limit: use only the first samples, rounded up to whole shards.

    Raises:
        ValueError: the folder holds a cache of another config, of other weights or of another
            dataset, or the pipeline is not the preset's.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    if pipe.image_size != PRESETS[config.preset].image_size:
        raise ValueError(
            f"preset came as {config.preset!r}, whose pictures have"
            f" {PRESETS[config.preset].image_size} px, but this pipeline's have {pipe.image_size};"
            " name the preset that the weights belong to."
        )
    now = encoder_facts(config, pipe) | {"dataset": dataset_facts(dataset)}
    if any(folder.glob(SHARDS)) or (folder / MANIFEST).exists():
        compare(folder, _read_manifest(folder), now)
    else:
        write_text(folder / MANIFEST, json.dumps(now, indent=2) + "\n")
    sweep(folder, SHARDS)
    size = config.shard_size
    count = min(len(dataset), -(-(limit or len(dataset)) // size) * size)
    todo = [
        (view, start, folder / f"view{view:03d}_{start // size:05d}.safetensors")
        for view in range(views)
        for start in range(0, count, size)
    ]
    begun = time.monotonic()
    for view, start, path in tqdm(todo, desc="feature cache", disable=None):
        if path.exists():
            if _is_whole(path):
                continue
            print(f"{path} is truncated or unreadable and is made anew")
        shard: list[dict[str, torch.Tensor]] = []
        stop = min(start + size, len(dataset))
        for first in range(start, stop, batch_size):
            samples = list(range(first, min(first + batch_size, stop)))
            shard.append(encode_samples(config, pipe, dataset, samples, view))
        tensors = {k: torch.cat([part[k] for part in shard]).contiguous() for k in shard[0]}
        write_whole(path, functools.partial(save_file, tensors))
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            break
    cache = FeatureCache(folder)
    print(f"{folder}: {len(cache)} entries, {(time.monotonic() - begun) / 60:.1f} min")
    return cache


def cache_name(config: CacheConfig, pipe: DMGIPipeline, dataset: FaceDataset, **more: Any) -> str:
    """A folder name that differs wherever the content would: "mask-1f0c93ab42".

    more: what else decides the content, such as the number of samples.
    """
    made_from = [encoder_facts(config, pipe), dataset_facts(dataset), sorted(more.items())]
    facts = json.dumps(made_from, sort_keys=True)
    return f"{config.condition}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a cache. Raises ValueError if it is missing or unreadable."""
    try:
        return read_json(folder / MANIFEST)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"feature cache {folder} has no readable {MANIFEST} ({error}), so nothing says what"
            " made its shards. Delete the folder and build it anew."
        ) from error


def _is_whole(path: Path) -> bool:
    try:
        check_safetensors(path)
    except ValueError:
        return False
    return True


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    config: CacheConfig,
    weights: Path | None = None,
    data: Path | None = None,
    split: str = "train",
    cache: Path = Path("~/.cache/dmgi/features/{condition}"),
    views: int = 2,
    batch_size: int = 16,
    minutes: float | None = None,
    limit: int | None = None,
    device: str = "auto",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Run the frozen diffusion encoder over a dataset and store its features.

    Args:
        config: what is stored
        weights: pipeline folder; None: the preset's
        data: face dataset; None: the full one if it is built, else what ships
        split: train or test
        cache: cache folder
        views: passes over the dataset; odd ones are mirrored
        batch_size: samples per reverse process
        minutes: time budget of this call
        limit: use only the first samples, rounded up to a shard
        device: auto, cpu, cuda or mps
        dtype: of E's weights
    """
    pipe = DMGIPipeline.from_pretrained(weights or config.preset, dtype=getattr(torch, dtype))
    build(
        config,
        pipe.to(pick_device(device)),
        FaceDataset(data, split),
        str(cache).replace("{condition}", config.condition),
        views=views,
        batch_size=batch_size,
        minutes=minutes,
        limit=limit,
    )


if __name__ == "__main__":
    tyro.cli(main)
