"""One reverse process a test sample, kept at every step and decoded by any M and T.

    study = StepStudy(pipe, truth, steps=range(10))
    study.images(0, pipe.mapping_network, pipe.style_modulation)    # as pipe(..., exit_step=0)

E costs most of a call, so decoding one process many times shows at little cost how steps, networks
and words differ: an exit at step k decodes the very features that the full process had at k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dmgi_lib.evaluation.draw import judged_size, synthesised
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.prompts import encode_text, tokenize
from dmgi_lib.style_modulation import modulate, pool_attention, truncate_detail
from dmgi_lib.training.features import captured


class StepStudy:
    """Features of N samples at chosen steps, on the CPU, where figures and probes read them.

    Args:
        pipe:       its E, text encoder and G; M and T come with each question.
        truth:      N samples: masks or scribbles, prompts, pictures.
        steps:      kept, 0 … S-1.
        seed:       sample i starts from noise of seed + i, as in `draw.draw`, or of seed[i].
        condition:  "mask" or "scribble".
        leaking:    take features of the noised picture I instead: they leak I, to show how much.
        batch_size: samples a reverse process.

    Attributes:
        features:         step → features of all N samples.
        tokens:           of the prompts.
        diffusion_images: (N, 3, 128, 128), I_0^d; None unless the last step is kept.
    """

    @torch.no_grad()
    def __init__(
        self,
        pipe: DMGIPipeline,
        truth: GroundTruth,
        steps: Iterable[int],
        seed: int | Sequence[int] = 0,
        condition: str = "mask",
        leaking: bool = False,
        batch_size: int = 16,
    ) -> None:
        self.pipe, self.steps = pipe, sorted(set(steps))
        self.tokens = tokenize(pipe.tokenizer, truth.prompts)
        seeds = range(seed, seed + len(truth)) if isinstance(seed, int) else seed
        inputs = getattr(truth, f"{condition}s")
        parts: list[list[DiffusionFeatures]] = []
        finished: list[Tensor] = []
        for rows in torch.arange(len(truth)).split(batch_size):
            text = encode_text(pipe.text_encoder, self.tokens.ids[rows])
            found, image = captured(
                *(pipe, condition, text, inputs[rows], self.steps),
                generator=[torch.Generator().manual_seed(seeds[i]) for i in rows.tolist()],
                num_inference_steps=pipe.config.num_inference_steps,
                guidance_scale=pipe.config.guidance_scale,
                leaked=truth.images[rows] if leaking else None,
            )
            parts.append(found)
            if image is not None:
                finished.append(judged_size(image))
        batches = zip(*parts, strict=True)  # of each step
        self.features = {k: _joined(of) for k, of in zip(self.steps, batches, strict=True)}
        self.diffusion_images = torch.cat(finished) if finished else None

    @torch.no_grad()
    def modulation(self, step: int, style_modulation: Any) -> tuple[Tensor, Tensor]:
        """w_t^γ and w_t^β of T at a step, each (N, num_ws, w_dim)."""
        T, features = style_modulation, self.features[step]
        words = self.tokens.word_mask
        maps = pool_attention(features.a, words, T.config.pool)
        f, a = ([x.to(T.device, T.dtype) for x in group] for group in (features.f, maps))
        return T(f, a)

    @torch.no_grad()
    def codes(self, step: int, mapping_network: Any, style_modulation: Any = None) -> Tensor:
        """w_t (N, num_ws, w_dim) of M, or of M and T, at a step."""
        M, T = mapping_network, style_modulation
        w_m = M(self.features[step].h.to(M.device, M.dtype))
        return w_m if T is None else modulate(w_m, *self.modulation(step, T))

    def images(self, step: int, mapping_network: Any, style_modulation: Any = None) -> Tensor:
        """I'_t (N, 3, 128, 128) in [-1, 1], on the CPU."""
        return self.draw(self.codes(step, mapping_network, style_modulation))

    def draw(self, w: Tensor) -> Tensor:
        """G(w) for any codes (B, num_ws, w_dim), truncated as in a call, as the judges read it."""
        G = self.pipe.generator
        w = truncate_detail(w.to(G.mean_latent), G.mean_latent, self.pipe.config.detail_psi)
        return synthesised(G, w)


def _joined(parts: Sequence[DiffusionFeatures]) -> DiffusionFeatures:
    """Batches of one step, one behind the other, on the CPU."""

    def whole(batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([batch.cpu() for batch in batches])

    f, a = (map(whole, zip(*(getattr(p, n) for p in parts), strict=True)) for n in "fa")
    return DiffusionFeatures(whole(part.h for part in parts), tuple(f), tuple(a))
