"""Section 3, encoder E: features h_t, f_t and attention maps a_t of the frozen denoising U-Net.

    with capture_features(unet, guided=True) as capture:
        unet(latents, t, text, ...)
    capture.features.h    # what enters the first decoder block

    encoder = DiffusionEncoder(unet, controlnet, scheduler)
    for state in encoder.reverse_process(text, empty_text, condition, generator=g, exit_step=0):
        state.features    # one U-Net pass later

h_t is taken where the first decoder block reads it: middle block plus ControlNet's residual, which
diffusers adds *after* the middle block; the middle block's own output carries no mask at t = T. The
features come from a reverse process that starts at noise and sees (x, c) only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.utils.torch_utils import randn_tensor
from torch import nn


@dataclass(frozen=True)
class DiffusionFeatures:
    """Features of one U-Net pass; under classifier-free guidance of its conditional half.

    h: (B, C, H, W)              middle block + ControlNet residual
    f: N x (B, C_n, H_n, W_n)    outputs of the decoder blocks with cross-attention
    a: N x (B, heads, Q_n, L)    cross-attention probabilities of the same blocks, float32;
                                 Q_n = H W of the block's input, L = tokens; rows (last axis) sum
                                 to 1. A block with several cross-attentions gives their mean: our
                                 choice (not specified in the paper's available sources).
    """

    h: torch.Tensor
    f: tuple[torch.Tensor, ...]
    a: tuple[torch.Tensor, ...]


@dataclass
class FeatureCapture:
    """Holds the last pass made inside `capture_features`."""

    h: torch.Tensor | None = None
    f: dict[int, torch.Tensor] = field(default_factory=dict)
    a: dict[int, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def features(self) -> DiffusionFeatures:
        """Features of the last pass. Raises RuntimeError before the first one."""
        if self.h is None:
            raise RuntimeError(
                "no U-Net pass has been captured yet; call unet(...) inside the block."
            )
        a = tuple(torch.stack(maps).mean(0) for _, maps in sorted(self.a.items()))
        return DiffusionFeatures(self.h, tuple(f for _, f in sorted(self.f.items())), a)


@contextmanager
def capture_features(unet: UNet2DConditionModel, *, guided: bool) -> Iterator[FeatureCapture]:
    """Records h_t, f_t and a_t of every pass of `unet` made inside the block.

    The U-Net's output stays bitwise the same: attention is computed by the U-Net's own processor,
    and the probabilities are computed beside it from the same queries and keys.

    Args:
        unet: a diffusers UNet2DConditionModel with cross-attention in its decoder.
        guided: the batch is (unconditional, conditional) halves; keep the second.
    """
    capture = FeatureCapture()
    handles: list[Any] = []

    def kept(x: torch.Tensor) -> torch.Tensor:
        return x[x.shape[0] // 2 :] if guided else x

    def read_h(module: nn.Module, args: tuple, kwargs: dict) -> None:
        capture.f.clear()
        capture.a.clear()
        capture.h = kept(args[0] if args else kwargs["hidden_states"])

    def read_f(n: int) -> Any:
        def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            capture.f[n] = kept(output)

        return hook

    def read_a(n: int, attention: Attention) -> None:
        seen: dict[str, torch.Tensor] = {}

        def read(name: str) -> Any:
            def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
                seen[name] = kept(output)

            return hook

        def hook(module: Attention, args: tuple, kwargs: dict, output: torch.Tensor) -> None:
            mask = kwargs.get("attention_mask")
            maps = _attention_probabilities(
                module, seen.pop("q"), seen.pop("k"), None if mask is None else kept(mask)
            )
            capture.a.setdefault(n, []).append(maps)

        handles.append(attention.to_q.register_forward_hook(read("q")))
        handles.append(attention.to_k.register_forward_hook(read("k")))
        handles.append(attention.register_forward_hook(hook, with_kwargs=True))

    try:
        handles.append(unet.up_blocks[0].register_forward_pre_hook(read_h, with_kwargs=True))
        for n in decoder_blocks_with_attention(unet):
            block = unet.up_blocks[n]
            handles.append(block.register_forward_hook(read_f(n)))
            for name, module in block.named_modules():
                if name.endswith("attn2") and isinstance(module, Attention):
                    read_a(n, module)
        yield capture
    finally:
        for handle in handles:
            handle.remove()


def decoder_blocks_with_attention(unet: UNet2DConditionModel) -> list[int]:
    """Indices into `unet.up_blocks` of the blocks that feed T, deepest first."""
    return [n for n, b in enumerate(unet.up_blocks) if getattr(b, "has_cross_attention", False)]


def _attention_probabilities(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """softmax(q kᵀ · scale) from the layer's own projections.

    Args:
        q: (B, Q, heads·d), k: (B, L, heads·d), mask: None or additive (B, 1, L).

    Returns:
        (B, heads, Q, L) float32.
    """
    batch, heads = q.shape[0], attention.heads
    q = q.view(batch, -1, heads, q.shape[-1] // heads).transpose(1, 2)  # [B, heads, Q, d]
    k = k.view(batch, -1, heads, k.shape[-1] // heads).transpose(1, 2)  # [B, heads, L, d]
    q = q if attention.norm_q is None else attention.norm_q(q)
    k = k if attention.norm_k is None else attention.norm_k(k)
    with torch.autocast(q.device.type, enabled=False):
        logits = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            logits = logits + mask.float().unsqueeze(1)
        return logits.softmax(dim=-1)


@dataclass(frozen=True)
class ReverseState:
    """One step of the reverse process.

    step: 0 (t = T, noisiest) … S-1 (t = 0)      timestep: the scheduler's t
    features: of this step, None if not asked for
    latents: (B, 4, h, w) after the step; None at an early exit, where no step is taken
    """

    step: int
    timestep: int
    features: DiffusionFeatures | None
    latents: torch.Tensor | None


class DiffusionEncoder:
    """E: the ControlNet-conditioned reverse process with feature capture; all of it is frozen.

    Args:
        unet, controlnet: diffusers models of matching sizes.
        scheduler: a diffusers scheduler; never changed, each process works on a copy.
    """

    def __init__(
        self, unet: UNet2DConditionModel, controlnet: ControlNetModel, scheduler: Any
    ) -> None:
        self.unet = unet
        self.controlnet = controlnet
        self.scheduler = scheduler

    def initial_noise(
        self, batch: int, generator: torch.Generator | Sequence[torch.Generator]
    ) -> torch.Tensor:
        """(B, 4, h, w) latents at t = T before the scheduler's scaling: unit normal noise."""
        size = self.unet.config.sample_size
        shape = (batch, self.unet.config.in_channels, size, size)
        source = generator if isinstance(generator, torch.Generator) else list(generator)
        return randn_tensor(shape, source, self.unet.device, self.unet.dtype)

    @torch.no_grad()
    def reverse_process(
        self,
        text: torch.Tensor,
        empty_text: torch.Tensor,
        condition: torch.Tensor,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        num_inference_steps: int = 10,
        guidance_scale: float = 2.5,
        exit_step: int | None = None,
        capture_steps: Collection[int] | None = None,
    ) -> Iterator[ReverseState]:
        """Runs from noise to `exit_step`, yielding one `ReverseState` a step.

        Args:
            text: (B, L, D) hidden states of the text encoder for c.
            empty_text: (1 or B, L, D) the same of the empty prompt.
            condition: (B, 3, H, W) in [0, 1], the picture x that ControlNet reads.
            generator: source of the starting noise, one for the batch or one per sample.
            num_inference_steps: S.
            guidance_scale: classifier-free guidance; at most 1 turns it off (half the cost).
            exit_step: last step made, 0…S-1; None means S-1. Before S-1 the U-Net only reads: one
                pass on the conditional half, no update of the latents. exit_step=0 costs exactly
                one pass.
            capture_steps: steps whose features are wanted; None means the last one made.

        Raises:
            ValueError: exit_step or capture_steps outside 0…S-1.
        """
        last = check_exit_step(exit_step, num_inference_steps)
        wanted = {last} if capture_steps is None else set(capture_steps)
        if not wanted <= set(range(num_inference_steps)):
            raise ValueError(
                f"capture_steps {sorted(wanted)} came, expected steps 0…{num_inference_steps - 1}."
            )
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=self.unet.device)
        step_options = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            step_options["generator"] = generator
        latents = self.initial_noise(len(text), generator) * scheduler.init_noise_sigma
        empty_text = empty_text.expand_as(text)
        embedded = self.controlnet.controlnet_cond_embedding(condition)  # the same at every step
        for step, t in enumerate(scheduler.timesteps[: last + 1]):
            reads_only = step == last and last < num_inference_steps - 1
            guided = guidance_scale > 1.0 and not reads_only
            halves = 2 if guided else 1
            model_input = scheduler.scale_model_input(torch.cat([latents] * halves), t)
            states = torch.cat([empty_text, text]) if guided else text
            x = torch.cat([embedded] * halves)
            if step in wanted:
                with capture_features(self.unet, guided=guided) as capture:
                    prediction = self._denoise(model_input, t, states, x)
                features = capture.features
            else:
                prediction, features = self._denoise(model_input, t, states, x), None
            if reads_only:
                yield ReverseState(step, int(t), features, None)
                return
            if guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + guidance_scale * (conditional - unconditional)
            prediction = prediction.to(latents.dtype)
            latents = scheduler.step(prediction, t, latents, **step_options).prev_sample
            yield ReverseState(step, int(t), features, latents)

    def _denoise(
        self, latents: torch.Tensor, t: torch.Tensor, text: torch.Tensor, embedded: torch.Tensor
    ) -> torch.Tensor:
        """One ControlNet and U-Net pass; `embedded` is x as ControlNet's first layers see it."""
        with _embedded_condition(self.controlnet, embedded):
            down, mid = self.controlnet(latents, t, text, embedded, return_dict=False)
        return self.unet(
            latents,
            t,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]


@contextmanager
def _embedded_condition(controlnet: ControlNetModel, embedded: torch.Tensor) -> Iterator[None]:
    """Lets one pass take an embedded condition: embedding anew costs a third of a mini step."""
    layers = controlnet.controlnet_cond_embedding
    controlnet.controlnet_cond_embedding = nn.Identity()
    try:
        yield
    finally:
        controlnet.controlnet_cond_embedding = layers


def check_exit_step(exit_step: int | None, num_inference_steps: int) -> int:
    """The last step made, 0…S-1. Raises ValueError if S or exit_step is out of range."""
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps came as {num_inference_steps}; expected at least 1.")
    if exit_step is None:
        return num_inference_steps - 1
    if not 0 <= exit_step < num_inference_steps:
        raise ValueError(
            f"exit_step came as {exit_step}; expected 0 (noisiest) … {num_inference_steps - 1}"
            f" (last) for num_inference_steps={num_inference_steps}, or None for the last."
        )
    return int(exit_step)
