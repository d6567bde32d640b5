"""Several exits of one reverse process: E is frozen, so it runs once for all M and T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.evaluation.protocol import GroundTruth, judged_size
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.masks import mask_to_rgb
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.prompts import encode_empty, encode_text, tokenize


@dataclass(frozen=True)
class ExitFeatures:
    """What M and T read of some samples, at each exit.

    Attributes:
        word_mask: (B, L) bool, see `pool_attention`.
        features:  exit step → h_t, f_t, a_t.
    """

    word_mask: Tensor
    features: dict[int, DiffusionFeatures]


@torch.no_grad()
def encode_exits(
    pipe: DMGIPipeline,
    truth: GroundTruth,
    steps: Sequence[int],
    seed: int = 0,
    batch_size: int = 25,
) -> list[ExitFeatures]:
    """E of every test sample's mask and caption, from the noise that `protocol.draw` starts from.

    Args:
        steps: exits to keep, rising.
        seed:  sample i starts from noise of seed + i.

    Returns:
        One entry for each batch, in the order of the samples.
    """
    empty = encode_empty(pipe.tokenizer, pipe.text_encoder)
    batches: list[ExitFeatures] = []
    for start in tqdm(range(0, len(truth.prompts), batch_size), desc="E", disable=None):
        part = slice(start, start + batch_size)
        tokens = tokenize(pipe.tokenizer, truth.prompts[part])
        states = pipe.encoder("mask").reverse_process(
            encode_text(pipe.text_encoder, tokens.ids),
            empty,
            mask_to_rgb(truth.masks[part]),
            generator=[
                torch.Generator().manual_seed(seed + start + i) for i in range(len(tokens.ids))
            ],
            num_inference_steps=pipe.config.num_inference_steps,
            guidance_scale=pipe.config.guidance_scale,
            exit_step=steps[-1],
            capture_steps=tuple(steps),
        )
        kept = [state.features for state in states if state.features is not None]
        batches.append(ExitFeatures(tokens.word_mask, dict(zip(steps, kept, strict=True))))
    return batches


@torch.no_grad()
def draw_exit(pipe: DMGIPipeline, encoded: Sequence[ExitFeatures], step: int) -> Tensor:
    """I' (N, 3, 128, 128) in [-1, 1] by the pipeline's M, T and G, as `protocol.draw` would."""
    images = []
    for batch in encoded:
        latents = pipe.latents_from_features(batch.features[step], batch.word_mask)
        images.append(judged_size(pipe.generator.synthesis(latents, noise_mode="const")))
    return torch.cat(images)
