"""Features of the whole training set on disk: E is frozen, so its reverse process runs once.

    python -m dmgi_lib.training.feature_cache --data ROOT --steps 0,2,4,7,9 --views 2

Shards of `features.encode_samples`, and a manifest that says what made them (`cache_manifest`).
A build that is killed goes on where it was: shards are written whole, and only missing or broken
ones are made.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.files import sweep, write_whole
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.training.cache_manifest import (
    check_facts,
    dataset_facts,
    encoder_facts,
    read_manifest,
    settle_manifest,
)
from dmgi_lib.training.features import (
    CONDITIONS,
    SOURCES,
    WHOLE,
    CacheConfig,
    CachedBatch,
    as_batch,
    encode_samples,
)
from dmgi_lib.weight_folder import check_safetensors

SHARDS = "view*.safetensors"


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
        self.manifest = read_manifest(self.folder)
        made_with = self.manifest["config"]
        self.config = CacheConfig(**(made_with | {"steps": tuple(made_with["steps"])}))
        self.steps, self.num_inference_steps = self.config.steps, self.config.num_inference_steps
        self._shards = []
        for path in paths:
            with safe_open(path, framework="pt") as file:
                self._shards.append({name: file.get_tensor(name) for name in sorted(file.keys())})
        sizes = [len(shard["sample"]) for shard in self._shards]
        self.views = [int(p.name[4:7]) for p, n in zip(paths, sizes, strict=True) for _ in range(n)]
        self._home = [(s, row) for s, size in enumerate(sizes) for row in range(size)]
        self.samples = torch.cat([shard["sample"] for shard in self._shards])

    def __len__(self) -> int:
        return len(self._home)

    def check(self, dataset: FaceDataset, pipe: DMGIPipeline | None = None) -> None:
        """Refuses to serve another data set or another E than the features were made from.

        Args:
            pipe: holds E; None compares the data set alone.

        Raises:
            ValueError: naming all that differs.
        """
        now = {"dataset": dataset_facts(self.config, dataset)}
        check_facts(
            self.folder, self.manifest, now | (encoder_facts(self.config, pipe) if pipe else {})
        )

    def batch(
        self, entries: torch.Tensor, slots: torch.Tensor, pool: str = "tokens"
    ) -> CachedBatch:
        """Entries (B,) at `steps[slots]`, slots (B,); pool as in ModulationConfig."""
        where = [(*self._home[e], k) for e, k in zip(entries.tolist(), slots.tolist(), strict=True)]
        rows = {
            name: torch.stack(
                [self._shards[s][name][r] for s, r, _ in where]
                if name in WHOLE
                else [self._shards[s][name][r, k].float() for s, r, k in where]
            )
            for name in self._shards[0]
        }
        mirrored = torch.tensor([self.views[e] % 2 == 1 for e in entries.tolist()])
        return as_batch(rows, mirrored, [self.steps[k] for _, _, k in where], pool)


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
    now = encoder_facts(config, pipe) | {"dataset": dataset_facts(config, dataset)}
    settle_manifest(folder, now, has_shards=any(folder.glob(SHARDS)))
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
    made_from = [encoder_facts(config, pipe), dataset_facts(config, dataset), sorted(more.items())]
    facts = json.dumps(made_from, sort_keys=True)
    return f"{config.condition}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"


def spread_steps(num_inference_steps: int, count: int = 5) -> tuple[int, ...]:
    """`count` steps of 0 … S-1 at equal distances, with the first and the last."""
    last = num_inference_steps - 1
    return tuple(sorted({round(last * k / (count - 1)) for k in range(count)}))


def _is_whole(path: Path) -> bool:
    try:
        check_safetensors(path)
    except ValueError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run the frozen diffusion encoder over a dataset and store its features.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--preset", default=MINI.name, choices=sorted(PRESETS), help="scale of E")
    parser.add_argument("--weights", help="pipeline folder; default: the preset's")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument("--split", default="train", help="train or test")
    parser.add_argument(
        "--cache", type=Path, help="cache folder; default: ~/.cache/dmgi/features/<condition>"
    )
    parser.add_argument("--steps", help="steps to keep, by commas; default: five, evenly spread")
    parser.add_argument("--num-inference-steps", type=int, help="S; default: the preset's")
    parser.add_argument("--guidance-scale", type=float, help="default: the preset's")
    parser.add_argument("--condition", default="mask", choices=CONDITIONS)
    parser.add_argument("--source", default="reverse", choices=SOURCES, help="noised: leaks I")
    parser.add_argument("--views", type=int, default=2, help="passes; odd ones are mirrored")
    parser.add_argument("--batch-size", type=int, default=16, help="samples per reverse process")
    parser.add_argument("--minutes", type=float, default=None, help="time budget of this call")
    parser.add_argument(
        "--limit", type=int, default=None, help="use only the first samples, rounded up to a shard"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of captions and noise")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    total = args.num_inference_steps or preset.num_inference_steps
    scale = preset.guidance_scale if args.guidance_scale is None else args.guidance_scale
    config = CacheConfig(
        steps=tuple(map(int, args.steps.split(","))) if args.steps else spread_steps(total),
        num_inference_steps=total,
        guidance_scale=scale,
        seed=args.seed,
        condition=args.condition,
        source=args.source,
        preset=preset.name,
    )
    build(
        config,
        DMGIPipeline.from_pretrained(args.weights or preset.name),
        FaceDataset(args.data, args.split),
        args.cache or Path(f"~/.cache/dmgi/features/{args.condition}"),
        views=args.views,
        batch_size=args.batch_size,
        minutes=args.minutes,
        limit=args.limit,
    )


if __name__ == "__main__":
    main()
