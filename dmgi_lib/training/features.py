"""What the training stages read: features of E for one sample, one caption and one noise.

Each entry is one reverse process, from noise, conditioned on one sample's (x, c): it holds h_t,
f_t and pooled a_t of the chosen steps and, if the process ran to its end, the image I_0^d. Entries
of a second view use the mirrored sample, another caption and other noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from tyro.constructors import PrimitiveConstructorSpec

from dmgi_lib.checks import one_of
from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import autocast
from dmgi_lib.diffusion_encoder import check_exit_step
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.files import plain, state_hash
from dmgi_lib.masks import flip_mask, mask_to_rgb, scribble_to_rgb
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.prompts import encode_empty, encode_text, tokenize
from dmgi_lib.style_modulation import POOLS, pool_attention
from dmgi_lib.training.condition_augmentation import by_hand, check_share
from dmgi_lib.weight_folder import part_name

CONDITIONS = ("mask", "scribble")
SOURCES = ("reverse", "noised")
WHOLE = ("sample", "caption", "diffusion_image")  # what a shard holds once for all steps
STORED = torch.float16  # in shards
FROZEN = ("text_encoder", "unet", "vae")  # and a ControlNet

Steps = Annotated[  # of commands: 0,2,4,7,9
    tuple[int, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="STEP,STEP,…",
        instance_from_str=lambda args: tuple(int(step) for step in args[0].split(",") if step),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]


@dataclass(frozen=True)
class CacheConfig:
    """What the content of an entry depends on; a cache made with another value is refused.

    steps: steps kept, 0 … num_inference_steps - 1
    seed: with view and sample, the seed of caption and noise
    condition: "mask" or "scribble"
    augment: share of entries whose x is as if drawn by hand, see `condition_augmentation`
    source: "reverse" process from noise, or "noised" pictures I, which leak I and hold no I_0^d:
        only to measure how much that flatters M
    shard_size: samples a file
    preset: whose E it is, "mini" or "paper"
    """

    steps: tuple[int, ...] = (0, 2, 4, 7, 9)
    num_inference_steps: int = MINI.num_inference_steps
    guidance_scale: float = MINI.guidance_scale
    seed: int = 0
    condition: str = "mask"
    source: str = "reverse"
    shard_size: int = 128
    preset: str = MINI.name
    augment: float = 0.0

    def __post_init__(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps came as {self.steps}; expected rising, different steps.")
        for step in self.steps:
            check_exit_step(step, self.num_inference_steps)
        one_of("condition", self.condition, CONDITIONS)
        one_of("source", self.source, SOURCES)
        one_of("preset", self.preset, tuple(PRESETS))
        check_share(self.augment)


@dataclass(frozen=True)
class CachedBatch:
    """Entries of a cache, one step each.

    sample: (B,) index into the dataset      mirrored: (B,) bool      step: (B,) 0 … S-1
    caption: (B,) which of the sample's captions was c
    h: (B, C, H, W)   f: N x (B, C_n, H_n, W_n)   maps: N x (B, 1, H'_n, W'_n), float32
    diffusion_images: (B, 3, H, W) uint8, I_0^d; None if the processes stopped early
    """

    sample: torch.Tensor
    caption: torch.Tensor
    mirrored: torch.Tensor
    step: torch.Tensor
    h: torch.Tensor
    f: tuple[torch.Tensor, ...]
    maps: tuple[torch.Tensor, ...]
    diffusion_images: torch.Tensor | None


@torch.no_grad()
def encode_samples(
    config: CacheConfig,
    pipe: DMGIPipeline,
    dataset: FaceDataset,
    samples: Sequence[int],
    view: int,
) -> dict[str, torch.Tensor]:
    """One batch of reverse processes, named as in a shard: sample, caption, h, f1…, a1…, image.

    E runs where the pipeline is, with noise drawn on the CPU; the tensors come back to the CPU.
    """
    generators = [_sample_generator(config.seed, view, sample) for sample in samples]
    picked = [
        int(torch.randint(len(dataset.captions[i]), (1,), generator=g))
        for i, g in zip(samples, generators, strict=True)
    ]
    captions = [dataset.captions[i][k] for i, k in zip(samples, picked, strict=True)]
    tokens = tokenize(pipe.tokenizer, captions)
    text = encode_text(pipe.text_encoder, tokens.ids).to(pipe.unet.dtype)
    encoder, rows, flipped = pipe.encoder(config.condition), torch.tensor(samples), view % 2 == 1
    condition = _condition(config, dataset, rows, flipped, generators).to(text)
    image, features = None, []
    with autocast(text.device, enabled=text.dtype == torch.float32):
        if config.source == "noised":
            clean = to_float(dataset.images[rows]).to(text)
            clean = clean.flip(-1) if flipped else clean
            latents = pipe.vae.encode(clean).latent_dist.mode() * pipe.vae.config.scaling_factor
            features = encoder.noised_features(
                latents.to(text),
                text,
                condition,
                generator=generators,
                steps=config.steps,
                num_inference_steps=config.num_inference_steps,
            )
        else:
            for state in encoder.reverse_process(
                text,
                encode_empty(pipe.tokenizer, pipe.text_encoder).to(text),
                condition,
                generator=generators,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                exit_step=config.steps[-1],
                capture_steps=config.steps,
            ):
                if state.features is not None:
                    features.append(state.features)
            if state.latents is not None:
                image = pipe.decode_latents(state.latents)
    entry = _stacked(features, tokens.word_mask.to(text.device))
    entry |= {"sample": rows, "caption": torch.tensor(picked)}
    return entry if image is None else entry | {"diffusion_image": to_uint8(image).cpu()}


def _stacked(
    features: Sequence[DiffusionFeatures], word_mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Features of all steps as they are stored; steps are the second axis."""
    kept: list[tuple[torch.Tensor, ...]] = []
    for one in features:
        pooled = [pool_attention(one.a, word_mask, p) for p in POOLS]
        maps = [torch.cat(block, dim=1) for block in zip(*pooled, strict=True)]
        kept.append((one.h, *one.f, *maps))
    stacked = [torch.stack(x, dim=1).to(STORED).cpu() for x in zip(*kept, strict=True)]
    blocks = range(1, 1 + (len(stacked) - 1) // 2)
    names = ["h", *(f"f{n}" for n in blocks), *(f"a{n}" for n in blocks)]
    return dict(zip(names, stacked, strict=True))  # each (B, steps, …)


def as_batch(
    rows: dict[str, torch.Tensor], mirrored: torch.Tensor, steps: Sequence[int], pool: str
) -> CachedBatch:
    """Rows of a shard at one step each, as what a stage reads."""
    channel = POOLS.index(pool)
    blocks = range(1, 1 + sum(name.startswith("f") for name in rows))
    return CachedBatch(
        sample=rows["sample"],
        caption=rows["caption"],
        mirrored=mirrored,
        step=torch.tensor(steps),
        h=rows["h"],
        f=tuple(rows[f"f{n}"] for n in blocks),
        maps=tuple(rows[f"a{n}"][:, channel : channel + 1] for n in blocks),
        diffusion_images=rows.get("diffusion_image"),
    )


def _condition(
    config: CacheConfig,
    dataset: FaceDataset,
    rows: torch.Tensor,
    flipped: bool,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """x as the picture (B, 3, H, W) that ControlNet reads."""
    is_mask = config.condition == "mask"
    x = dataset.masks[rows] if is_mask else dataset.scribbles[rows]
    if flipped:
        x = flip_mask(x) if is_mask else x.flip(-1)
    x = by_hand(config.condition, x, config.augment, generators)
    return mask_to_rgb(x) if is_mask else scribble_to_rgb(x)


def _sample_generator(seed: int, view: int, sample: int) -> torch.Generator:
    """Independent of batch and shard sizes, so that an entry is reproducible alone."""
    state = np.random.SeedSequence([seed, view, sample]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def encoder_facts(config: CacheConfig, pipe: DMGIPipeline) -> dict[str, Any]:
    """Config, weights, vocabulary, noise schedule and precision of E.

    augment = 0 is left out: caches from before there was augmentation are the same.
    """
    schedule = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    network = part_name("controlnet", config.condition)
    words = json.dumps(pipe.tokenizer.get_vocab(), sort_keys=True)
    return plain(
        {
            "config": {k: v for k, v in asdict(config).items() if k != "augment" or v},
            "weights": {name: state_hash(getattr(pipe, name)) for name in (*FROZEN, network)},
            "vocabulary": hashlib.sha256(words.encode()).hexdigest()[:16],
            "scheduler": {"class": type(pipe.scheduler).__name__} | schedule,
            "precision": {"weights": str(pipe.unet.dtype), "stored": str(STORED)},
        }
    )


def dataset_facts(dataset: FaceDataset) -> dict[str, Any]:
    """Split, size and content of a data set."""
    return {"split": dataset.split, "samples": len(dataset), "digest": dataset.digest}


class OnlineFeatures:
    """Features without a cache: E runs anew for every batch, for data sets too large to store.

        online = OnlineFeatures(CacheConfig(steps=(0, 9)), pipe, dataset, diffusion_images=True)
        StageTrainer(config, online, dataset, ...)

    Read like a `FeatureCache`. Noise and caption of an entry stay the same from epoch to epoch, as
    they do in a cache.

    Args:
        config: steps that may be asked for.
        views: copies of each sample; odd ones are mirrored.
        diffusion_images: run every process to its end, for stages that need I_0^d.
        batch_size: samples per reverse process.
    """

    folder = "(online)"

    def __init__(
        self,
        config: CacheConfig,
        pipe: DMGIPipeline,
        dataset: FaceDataset,
        views: int = 2,
        diffusion_images: bool = False,
        batch_size: int = 16,
    ) -> None:
        self.batch_size = batch_size
        self.config, self.pipe, self.dataset = config, pipe, dataset
        self.diffusion_images = diffusion_images
        self.steps, self.num_inference_steps = config.steps, config.num_inference_steps
        self.views = [view for view in range(views) for _ in range(len(dataset))]
        self.samples = torch.arange(len(dataset)).repeat(views)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What a cache of the same features would be made from."""
        return encoder_facts(self.config, self.pipe) | {"dataset": dataset_facts(self.dataset)}

    def __len__(self) -> int:
        return len(self.views)

    def batch(
        self, entries: torch.Tensor, slots: torch.Tensor, pool: str = "tokens"
    ) -> CachedBatch:
        """Entries (B,) at `steps[slots]`, slots (B,); pool as in ModulationConfig."""
        wanted = sorted({self.steps[k] for k in slots.tolist()})
        last = self.num_inference_steps - 1
        made = wanted if not self.diffusion_images else sorted({*wanted, last})
        config = replace(self.config, steps=tuple(made))
        rows: list[dict[str, torch.Tensor]] = [{}] * len(entries)
        views = torch.tensor([self.views[e] for e in entries.tolist()])
        for view in views.unique().tolist():
            for part in (views == view).nonzero()[:, 0].split(self.batch_size):
                places = part.tolist()
                samples = self.samples[entries[part]].tolist()
                found = encode_samples(config, self.pipe, self.dataset, samples, view)
                for row, place in enumerate(places):
                    slot = made.index(self.steps[int(slots[place])])
                    rows[place] = {
                        k: v[row] if k in WHOLE else v[row, slot].float() for k, v in found.items()
                    }
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return as_batch(stacked, views % 2 == 1, [self.steps[k] for k in slots.tolist()], pool)
