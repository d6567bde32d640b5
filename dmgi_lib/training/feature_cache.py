"""Features of the whole training set on disk: E is frozen, so its reverse process runs once.

    python -m dmgi_lib.training.feature_cache --data ROOT --steps 0,2,4,7,9 --views 2

Shards of `features.encode_samples`, and a manifest that says what made them.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.training.features import (
    CONDITIONS,
    SOURCES,
    WHOLE,
    CacheConfig,
    CachedBatch,
    as_batch,
    encode_samples,
)
from dmgi_lib.training.run_files import write_whole
from dmgi_lib.weight_folder import part_name

FROZEN = ("text_encoder", "unet", "vae")


class FeatureCache:
    """Reader. Entries are the finished shards of all views, in file order; files are memory-mapped.

    Raises FileNotFoundError if the folder holds no finished shard.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        paths = sorted(self.folder.glob("view*.safetensors"))
        if not paths:
            raise FileNotFoundError(
                f"no feature cache at {self.folder}; build it first:"
                f" python -m dmgi_lib.training.feature_cache --cache {self.folder}"
            )
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
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
            dataset.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    _settle_manifest(folder, config, pipe, dataset)
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
            continue
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


def cache_name(config: CacheConfig, pipe: DMGIPipeline, **more: Any) -> str:
    """A folder name that differs wherever the content would: "mask-1f0c93ab42".

    Args:
        more: what else decides the content, such as dataset and number of samples.
    """
    network = part_name("controlnet", config.condition)
    hashes = [state_hash(getattr(pipe, name)) for name in (*FROZEN, network)]
    facts = json.dumps([asdict(config), hashes, sorted(more.items())])
    return f"{config.condition}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"


def _settle_manifest(
    folder: Path, config: CacheConfig, pipe: DMGIPipeline, dataset: FaceDataset
) -> None:
    """Writes manifest.json, or compares with the one that is there."""
    network = part_name("controlnet", config.condition)
    metadata = (dataset.folder / "metadata.jsonl").read_bytes()
    manifest = {
        "config": json.loads(json.dumps(asdict(config))),
        "weights": {name: state_hash(getattr(pipe, name)) for name in (*FROZEN, network)},
        "dataset": {"samples": len(dataset), "metadata": hashlib.sha256(metadata).hexdigest()[:16]},
    }
    path = folder / "manifest.json"
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        differing = [
            f"{part}.{key}: cache {old[part].get(key)!r}, now {manifest[part].get(key)!r}"
            for part in manifest
            for key in sorted({*manifest[part], *old[part]})
            if old[part].get(key) != manifest[part].get(key)
        ]
        if differing:
            raise ValueError(
                f"feature cache {folder} belongs to another setting ({'; '.join(differing)})."
                " Delete it, or give another --cache folder."
            )
        return
    text = json.dumps(manifest, indent=2) + "\n"
    write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))


def state_hash(module: torch.nn.Module) -> str:
    """16 hex digits of SHA-256 over a module's weights as fp16, the precision they ship in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run the frozen diffusion encoder over a dataset and store its features.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = CacheConfig()
    parser.add_argument("--weights", default="mini", help="preset or pipeline folder")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument("--split", default="train", help="train or test")
    parser.add_argument(
        "--cache", type=Path, help="cache folder; default: ~/.cache/dmgi/features/<condition>"
    )
    parser.add_argument(
        "--steps", default=",".join(map(str, defaults.steps)), help="steps to keep, by commas"
    )
    parser.add_argument("--num-inference-steps", type=int, default=defaults.num_inference_steps)
    parser.add_argument("--guidance-scale", type=float, default=defaults.guidance_scale)
    parser.add_argument("--condition", default="mask", choices=CONDITIONS)
    parser.add_argument("--source", default="reverse", choices=SOURCES, help="noised: leaks I")
    parser.add_argument("--views", type=int, default=2, help="passes; odd ones are mirrored")
    parser.add_argument("--batch-size", type=int, default=16, help="samples per reverse process")
    parser.add_argument("--minutes", type=float, default=None, help="time budget of this call")
    parser.add_argument("--limit", type=int, default=None, help="use only the first samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of captions and noise")
    args = parser.parse_args()
    config = CacheConfig(
        steps=tuple(int(step) for step in args.steps.split(",")),
        num_inference_steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        condition=args.condition,
        source=args.source,
    )
    build(
        config,
        DMGIPipeline.from_pretrained(args.weights),
        FaceDataset(args.data, args.split),
        args.cache or Path(f"~/.cache/dmgi/features/{args.condition}"),
        views=args.views,
        batch_size=args.batch_size,
        minutes=args.minutes,
        limit=args.limit,
    )


if __name__ == "__main__":
    main()
