"""What the training stages read: features of E for one sample, one caption and one noise.

Each entry is one reverse process, from noise, conditioned on one sample's (x, c): it holds h_t,
f_t and pooled a_t of the chosen steps and, if the process ran to its end, the image I_0^d. Entries
of a second view use the mirrored sample, another caption and other noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import autocast
from dmgi_lib.diffusion_encoder import check_exit_step
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.masks import flip_mask, mask_to_rgb, scribble_to_rgb
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.prompts import encode_empty, encode_text, tokenize
from dmgi_lib.style_modulation import POOLS, pool_attention

CONDITIONS = ("mask", "scribble")
SOURCES = ("reverse", "noised")
WHOLE = ("sample", "caption", "diffusion_image")  # what a shard holds once for all steps
STORED = torch.float16  # in shards


@dataclass(frozen=True)
class CacheConfig:
    """What the content of an entry depends on; a cache made with another value is refused.

    steps: steps kept, 0 … num_inference_steps - 1
    seed: with view and sample, the seed of caption and noise
    condition: "mask" or "scribble"
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

    def __post_init__(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps came as {self.steps}; expected rising, different steps.")
        for step in self.steps:
            check_exit_step(step, self.num_inference_steps)
        choices = {"condition": CONDITIONS, "source": SOURCES, "preset": tuple(PRESETS)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} came as {getattr(self, name)!r}; expected one of {known}."
                )


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
    """One batch of reverse processes, named as in a shard: sample, caption, h, f1…, a1…, image."""
    generators = [_sample_generator(config.seed, view, sample) for sample in samples]
    picked = [
        int(torch.randint(len(dataset.captions[i]), (1,), generator=g))
        for i, g in zip(samples, generators, strict=True)
    ]
    captions = [dataset.captions[i][k] for i, k in zip(samples, picked, strict=True)]
    tokens = tokenize(pipe.tokenizer, captions)
    text = encode_text(pipe.text_encoder, tokens.ids).float()
    condition = _condition(config.condition, dataset, samples, mirrored=view % 2 == 1)
    image, features = None, []
    with autocast(pipe.unet.device.type):
        if config.source == "noised":
            clean = to_float(dataset.images[torch.tensor(samples)])
            clean = clean.flip(-1) if view % 2 == 1 else clean
            latents = pipe.vae.encode(clean).latent_dist.mode() * pipe.vae.config.scaling_factor
            features = pipe.encoder(config.condition).noised_features(
                latents.float(),
                text,
                condition,
                generator=generators,
                steps=config.steps,
                num_inference_steps=config.num_inference_steps,
            )
            return _entry(samples, picked, tokens, features, None)
        for state in pipe.encoder(config.condition).reverse_process(
            text,
            encode_empty(pipe.tokenizer, pipe.text_encoder).float(),
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
    return _entry(samples, picked, tokens, features, image)


def _entry(
    samples: Sequence[int],
    captions: Sequence[int],
    tokens: Any,
    features: Sequence[DiffusionFeatures],
    image: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Tensors of a shard; steps are the second axis."""
    kept: list[tuple[torch.Tensor, ...]] = []
    for one in features:
        pooled = [pool_attention(one.a, tokens.word_mask, p) for p in POOLS]
        maps = [torch.cat(block, dim=1) for block in zip(*pooled, strict=True)]
        kept.append((one.h, *one.f, *maps))
    stacked = [torch.stack(x, dim=1).to(STORED) for x in zip(*kept, strict=True)]  # [B, steps, …]
    blocks = (len(stacked) - 1) // 2
    names = ["h", *(f"f{n + 1}" for n in range(blocks)), *(f"a{n + 1}" for n in range(blocks))]
    result = dict(zip(names, stacked, strict=True))
    result |= {"sample": torch.tensor(samples), "caption": torch.tensor(captions)}
    return result if image is None else result | {"diffusion_image": to_uint8(image)}


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
