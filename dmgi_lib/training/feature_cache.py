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
from dmgi_lib.files import differences, read_json, sweep, write_text, write_whole
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.training.features import (
    WHOLE,
    CacheConfig,
    CachedBatch,
    Steps,
    as_batch,
    dataset_facts,
    encode_samples,
    encoder_facts,
)
from dmgi_lib.weight_folder import check_safetensors

SHARDS, MANIFEST = "view*.safetensors", "manifest.json"
NUMBERS = ("sample", "caption")  # of entries, by which a CPU looks up the rest


class FeatureCache:
    """Reader. Entries are the finished shards of all views, in file order; files are memory-mapped.

    Raises:
        FileNotFoundError: the folder holds no finished shard.
        ValueError: a shard is broken, or the manifest is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        paths = sorted(self.folder.glob(SHARDS))
        if not paths:
            raise FileNotFoundError(
                f"no feature cache at {self.folder}; build it first:"
                f" python -m dmgi_lib.training.feature_cache --cache {self.folder}"
            )
        broken = [str(path) for path in paths if not _is_whole(path)]
        if broken:
            raise ValueError(
                f"truncated or unreadable shards: {', '.join(broken)}. Build the cache again with"
                " the command that made it; whole shards are kept."
            )
        self.manifest = _read_manifest(self.folder)
        made_with = self.manifest["config"]
        self.config = CacheConfig(**(made_with | {"steps": tuple(made_with["steps"])}))
        self.steps, self.num_inference_steps = self.config.steps, self.config.num_inference_steps
        self._shards = [load_file(path) for path in paths]
        sizes = [len(shard["sample"]) for shard in self._shards]
        self.views = [int(p.name[4:7]) for p, n in zip(paths, sizes, strict=True) for _ in range(n)]
        self._home = [(s, row) for s, size in enumerate(sizes) for row in range(size)]
        self.samples = torch.cat([shard["sample"] for shard in self._shards])
        self._kept: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._home)

    def check(self, dataset: FaceDataset, pipe: DMGIPipeline | None = None) -> None:
        """Refuses to serve another data set or another E than the features were made from.

        Args:
            pipe: holds E; None compares the data set alone.

        Raises:
            ValueError: naming all that differs.
        """
        now = {"dataset": dataset_facts(dataset)}
        now |= encoder_facts(self.config, pipe) if pipe else {}
        _compare(self.folder, self.manifest, now)

    def keep_on(self, device: torch.device) -> None:
        """Moves the features to a GPU that has room for them: there a batch is gathered at once."""
        if has_room(sum(x.nbytes for shard in self._shards for x in shard.values()), device):
            self._kept = {
                name: torch.cat([shard[name] for shard in self._shards]).to(
                    "cpu" if name in NUMBERS else device
                )
                for name in self._shards[0]
            }

    def batch(
        self, entries: torch.Tensor, slots: torch.Tensor, pool: str = "tokens"
    ) -> CachedBatch:
        """Entries (B,) at `steps[slots]`, slots (B,); pool as in ModulationConfig."""
        mirrored = torch.tensor([self.views[e] % 2 == 1 for e in entries.tolist()])
        rows = self._gathered(entries, slots) if self._kept else self._read(entries, slots)
        return as_batch(rows, mirrored, [self.steps[k] for k in slots.tolist()], pool)

    def _read(self, entries: torch.Tensor, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        where = [(*self._home[e], k) for e, k in zip(entries.tolist(), slots.tolist(), strict=True)]
        return {
            name: torch.stack(
                [self._shards[s][name][r] for s, r, _ in where]
                if name in WHOLE
                else [self._shards[s][name][r, k].float() for s, r, k in where]
            )
            for name in self._shards[0]
        }

    def _gathered(self, entries: torch.Tensor, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = {}
        for name, x in self._kept.items():
            e, k = moved(entries, x.device), moved(slots, x.device)
            rows[name] = x[e] if name in WHOLE else x[e, k].float()
        return rows


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
        _compare(folder, _read_manifest(folder), now)
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

    Args:
        more: what else decides the content, such as the number of samples.
    """
    made_from = [encoder_facts(config, pipe), dataset_facts(dataset), sorted(more.items())]
    facts = json.dumps(made_from, sort_keys=True)
    return f"{config.condition}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"


def spread_steps(num_inference_steps: int, count: int = 5) -> tuple[int, ...]:
    """`count` steps of 0 … S-1 at equal distances, with the first and the last."""
    last = num_inference_steps - 1
    return tuple(sorted({round(last * k / (count - 1)) for k in range(count)}))


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a cache.

    Raises:
        ValueError: it is missing or unreadable, so nobody knows what made the shards beside it.
    """
    try:
        return read_json(folder / MANIFEST)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"feature cache {folder} has no readable {MANIFEST} ({error}), so nothing says what"
            " made its shards. Delete the folder and build it anew."
        ) from error


def _compare(folder: Path, made_from: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError naming all that differs. Parts that `now` lacks are not compared."""
    found = differences({part: made_from.get(part, {}) for part in now}, now)
    if found:
        raise ValueError(
            f"feature cache {folder} was made from something else: {'; '.join(found)}."
            " Delete it and build it anew, or give another --cache folder."
        )


def _is_whole(path: Path) -> bool:
    try:
        check_safetensors(path)
    except ValueError:
        return False
    return True


def main(
    preset: Literal["mini", "paper"] = "mini",
    weights: Path | None = None,
    data: Path | None = None,
    split: str = "train",
    cache: Path = Path("~/.cache/dmgi/features/{condition}"),
    steps: Steps = (),
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    condition: Literal["mask", "scribble"] = "mask",
    augment: float = 0.0,
    source: Literal["reverse", "noised"] = "reverse",
    views: int = 2,
    batch_size: int = 16,
    minutes: float | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Run the frozen diffusion encoder over a dataset and store its features.

    Args:
        preset: scale of E
        weights: pipeline folder; None: the preset's
        data: face dataset; None: the full one if it is built, else what ships
        split: train or test
        cache: cache folder
        steps: steps to keep, by commas; none: five, evenly spread
        num_inference_steps: S; None: the preset's
        guidance_scale: None: the preset's
        condition: kind of x
        augment: share of entries whose x is as if drawn by hand
        source: noised leaks I
        views: passes over the dataset; odd ones are mirrored
        batch_size: samples per reverse process
        minutes: time budget of this call
        limit: use only the first samples, rounded up to a shard
        seed: of captions and noise
        device: auto, cpu, cuda or mps
        dtype: of E's weights
    """
    sizes = PRESETS[preset]
    total = num_inference_steps or sizes.num_inference_steps
    config = CacheConfig(
        steps=steps or spread_steps(total),
        num_inference_steps=total,
        guidance_scale=sizes.guidance_scale if guidance_scale is None else guidance_scale,
        seed=seed,
        condition=condition,
        source=source,
        shard_size=128 if preset == MINI.name else 16,  # below a GB, at 54 MB a sample
        preset=preset,
        augment=augment,
    )
    pipe = DMGIPipeline.from_pretrained(weights or preset, dtype=getattr(torch, dtype))
    build(
        config,
        pipe.to(pick_device(device)),
        FaceDataset(data, split),
        str(cache).replace("{condition}", condition),
        views=views,
        batch_size=batch_size,
        minutes=minutes,
        limit=limit,
    )


if __name__ == "__main__":
    tyro.cli(main)
