"""Features of the whole training set on disk: E is frozen, so its reverse process runs once.

    python -m dmgi_lib.training.feature_cache --data ROOT --steps 0,2,4,7,9 --views 2

Each entry is one reverse process, from noise, conditioned on one sample's (x, c): it holds h_t,
f_t and pooled a_t of the chosen steps and, if the process ran to its end, the image I_0^d. Entries
of a second view use the mirrored sample, another caption and other noise. Features of a noised
ground-truth image would leak I; none are stored.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root, to_uint8
from dmgi_lib.diffusion_encoder import check_exit_step
from dmgi_lib.masks import flip_mask, mask_to_rgb, scribble_to_rgb
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.prompts import encode_empty, encode_text, tokenize
from dmgi_lib.style_modulation import POOLS, pool_attention
from dmgi_lib.training.run_files import write_whole

FROZEN = ("text_encoder", "unet", "vae")


@dataclass(frozen=True)
class CacheConfig:
    """What the content of an entry depends on; a cache made with another value is refused.

    steps: steps kept, 0 … num_inference_steps - 1
    seed: with view and sample, the seed of caption and noise
    condition: "mask" or "scribble"
    shard_size: samples a file
    """

    steps: tuple[int, ...] = (0, 2, 4, 7, 9)
    num_inference_steps: int = MINI.num_inference_steps
    guidance_scale: float = MINI.guidance_scale
    seed: int = 0
    condition: str = "mask"
    shard_size: int = 128

    def __post_init__(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps came as {self.steps}; expected rising, different steps.")
        for step in self.steps:
            check_exit_step(step, self.num_inference_steps)
        if self.condition not in ("mask", "scribble"):
            raise ValueError(f"condition came as {self.condition!r}; expected mask or scribble.")


@dataclass(frozen=True)
class CachedBatch:
    """Entries of a cache, one step each.

    sample: (B,) index into the dataset      mirrored: (B,) bool      step: (B,) 0 … S-1
    h: (B, C, H, W)   f: N x (B, C_n, H_n, W_n)   maps: N x (B, 1, H'_n, W'_n), float32
    diffusion_images: (B, 3, H, W) uint8, I_0^d; None if the processes stopped early
    """

    sample: torch.Tensor
    mirrored: torch.Tensor
    step: torch.Tensor
    h: torch.Tensor
    f: tuple[torch.Tensor, ...]
    maps: tuple[torch.Tensor, ...]
    diffusion_images: torch.Tensor | None


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
        self.steps: tuple[int, ...] = tuple(self.manifest["config"]["steps"])
        self.num_inference_steps: int = self.manifest["config"]["num_inference_steps"]
        self._shards = []
        for path in paths:
            with safe_open(path, framework="pt") as file:
                self._shards.append({name: file.get_tensor(name) for name in sorted(file.keys())})
        sizes = [len(shard["sample"]) for shard in self._shards]
        self.views = [int(p.name[4:7]) for p, n in zip(paths, sizes, strict=True) for _ in range(n)]
        self._home = [(s, row) for s, size in enumerate(sizes) for row in range(size)]
        self.blocks = sum(name.startswith("f") for name in self._shards[0])
        self.samples = torch.cat([shard["sample"] for shard in self._shards])

    def __len__(self) -> int:
        return len(self._home)

    def batch(
        self, entries: torch.Tensor, slots: torch.Tensor, pool: str = "tokens"
    ) -> CachedBatch:
        """Entries (B,) at `steps[slots]`, slots (B,); pool as in ModulationConfig."""
        where = [(*self._home[e], k) for e, k in zip(entries.tolist(), slots.tolist(), strict=True)]
        channel = POOLS.index(pool)

        def rows(name: str) -> torch.Tensor:
            return torch.stack([self._shards[s][name][row, k] for s, row, k in where]).float()

        blocks = range(1, self.blocks + 1)
        images = None
        if "diffusion_image" in self._shards[0]:
            images = torch.stack([self._shards[s]["diffusion_image"][r] for s, r, _ in where])
        return CachedBatch(
            sample=self.samples[entries],
            mirrored=torch.tensor([self.views[e] % 2 == 1 for e in entries.tolist()]),
            step=torch.tensor([self.steps[k] for _, _, k in where]),
            h=rows("h"),
            f=tuple(rows(f"f{n}") for n in blocks),
            maps=tuple(rows(f"a{n}")[:, channel : channel + 1] for n in blocks),
            diffusion_images=images,
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


@torch.no_grad()
def encode_samples(
    config: CacheConfig,
    pipe: DMGIPipeline,
    dataset: FaceDataset,
    samples: Sequence[int],
    view: int,
) -> dict[str, torch.Tensor]:
    """One batch of reverse processes, named as in a shard: sample, caption, h, f1…, a1…, image."""
    generators = [_sample_generator(config.seed, view, sample) for sample in samples]
    picked = [
        int(torch.randint(len(dataset.captions[i]), (1,), generator=g))
        for i, g in zip(samples, generators, strict=True)
    ]
    captions = [dataset.captions[i][k] for i, k in zip(samples, picked, strict=True)]
    tokens = tokenize(pipe.tokenizer, captions)
    last = config.steps[-1]
    kept: list[Any] = []
    with torch.autocast(pipe.unet.device.type, dtype=torch.bfloat16):
        for state in pipe.encoder(config.condition).reverse_process(
            encode_text(pipe.text_encoder, tokens.ids).float(),
            encode_empty(pipe.tokenizer, pipe.text_encoder).float(),
            _condition(config.condition, dataset, samples, mirrored=view % 2 == 1),
            generator=generators,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            exit_step=last,
            capture_steps=config.steps,
        ):
            if state.features is not None:
                pooled = [pool_attention(state.features.a, tokens.word_mask, p) for p in POOLS]
                maps = [torch.cat(block, dim=1) for block in zip(*pooled, strict=True)]
                kept.append((state.features.h, *state.features.f, *maps))
        image = None if state.latents is None else pipe.decode_latents(state.latents)
    stacked = [torch.stack(part, dim=1).half() for part in zip(*kept, strict=True)]  # [B, steps, …]
    blocks = (len(stacked) - 1) // 2
    names = ["h", *(f"f{n + 1}" for n in range(blocks)), *(f"a{n + 1}" for n in range(blocks))]
    result = dict(zip(names, stacked, strict=True))
    result |= {"sample": torch.tensor(samples), "caption": torch.tensor(picked)}
    return result if image is None else result | {"diffusion_image": to_uint8(image)}


def _condition(
    kind: str, dataset: FaceDataset, samples: Sequence[int], mirrored: bool
) -> torch.Tensor:
    rows = torch.tensor(samples)
    if kind == "mask":
        masks = dataset.masks[rows]
        return mask_to_rgb(flip_mask(masks) if mirrored else masks)
    strokes = dataset.scribbles[rows]
    return scribble_to_rgb(strokes.flip(-1) if mirrored else strokes)


def _sample_generator(seed: int, view: int, sample: int) -> torch.Generator:
    """Independent of batch and shard sizes, so that an entry is reproducible alone."""
    state = np.random.SeedSequence([seed, view, sample]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _settle_manifest(
    folder: Path, config: CacheConfig, pipe: DMGIPipeline, dataset: FaceDataset
) -> None:
    """Writes manifest.json, or compares with the one that is there."""
    network = "controlnet" if config.condition == "mask" else "controlnet_scribble"
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
        "--cache", type=Path, default=Path("~/.cache/dmgi/features/mini"), help="cache folder"
    )
    parser.add_argument(
        "--steps", default=",".join(map(str, defaults.steps)), help="steps to keep, by commas"
    )
    parser.add_argument("--num-inference-steps", type=int, default=defaults.num_inference_steps)
    parser.add_argument("--guidance-scale", type=float, default=defaults.guidance_scale)
    parser.add_argument("--condition", default="mask", choices=("mask", "scribble"))
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
    )
    build(
        config,
        DMGIPipeline.from_pretrained(args.weights),
        FaceDataset(args.data, args.split),
        args.cache,
        views=args.views,
        batch_size=args.batch_size,
        minutes=args.minutes,
        limit=args.limit,
    )


if __name__ == "__main__":
    main()
