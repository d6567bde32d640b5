"""Section 3, encoder E: the ControlNet-conditioned reverse process and its features h_t, f_t, a_t.

    encoder = DiffusionEncoder(unet, controlnet, scheduler)
    for state in encoder.reverse_process(text, empty_text, condition, generator=g, exit_step=0):
        state.features    # one U-Net pass later

The features come from a reverse process that starts at noise and sees (x, c) only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from dmgi_lib.checks import whole_number
from dmgi_lib.feature_capture import DiffusionFeatures, capture_features


@dataclass(frozen=True)
class ReverseState:
    """One step of the reverse process.

    step: 0 (t = T, noisiest) … S-1 (t = 0)      timestep: the scheduler's t
    features: of this step, None if not asked for
    latents: (B, C, h, w) after the step; None at an early exit, where no step is taken
    """

    step: int
    timestep: int
    features: DiffusionFeatures | None
    latents: torch.Tensor | None


class DiffusionEncoder:
    """E: the ControlNet-conditioned reverse process with feature capture; all of it is frozen.

    Inputs may be of any device and dtype: the networks get them in their own. Between the passes,
    latents stay float32, so that many small steps add up.

    Args:
        unet, controlnet: diffusers models of matching sizes.
        scheduler: a diffusers scheduler; never changed, each process works on a copy.
        guide_condition: guidance strengthens x as it does c, since the pass without c lacks x too
            (our choice); otherwise, as usual with ControlNet, c alone.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        scheduler: Any,
        guide_condition: bool = True,
    ) -> None:
        self.unet = unet
        self.controlnet = controlnet
        self.scheduler = scheduler
        self.guide_condition = guide_condition

    def initial_noise(
        self, batch: int, generator: torch.Generator | Sequence[torch.Generator]
    ) -> torch.Tensor:
        """(B, C, h, w) float32 latents at t = T before the scheduler's scaling: unit normal noise.

        A CPU generator gives the same noise to every device and dtype.
        """
        size = self.unet.config.sample_size
        shape = (batch, self.unet.config.in_channels, size, size)
        source = generator if isinstance(generator, torch.Generator) else list(generator)
        noise: torch.Tensor = randn_tensor(shape, source, self.unet.device, torch.float32)
        return noise

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
        scheduler.set_timesteps(num_inference_steps)
        step_options = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            step_options["generator"] = generator
        latents = self.initial_noise(len(text), generator) * scheduler.init_noise_sigma
        text, empty_text, condition = (self._cast(x) for x in (text, empty_text, condition))
        empty_text = empty_text.expand_as(text)
        embedded = self.controlnet.controlnet_cond_embedding(condition)  # the same at every step
        for step, t in enumerate(scheduler.timesteps[: last + 1]):
            reads_only = step == last and last < num_inference_steps - 1
            guided = guidance_scale > 1.0 and not reads_only
            halves = 2 if guided else 1
            model_input = scheduler.scale_model_input(torch.cat([latents] * halves), t)
            states = torch.cat([empty_text, text]) if guided else text
            x = embedded if self.guide_condition else torch.cat([embedded] * halves)
            if step in wanted:
                with capture_features(self.unet, guided=guided) as capture:
                    prediction = self._denoise(model_input, t, states, x)
                features = capture.features
            else:
                prediction, features = self._denoise(model_input, t, states, x), None
            if reads_only:
                yield ReverseState(step, int(t), features, None)
                return
            prediction = prediction.float()
            if guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + guidance_scale * (conditional - unconditional)
            latents = scheduler.step(prediction, t, latents, **step_options).prev_sample
            yield ReverseState(step, int(t), features, latents)

    @torch.no_grad()
    def noised_features(
        self,
        clean: torch.Tensor,
        text: torch.Tensor,
        condition: torch.Tensor,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        steps: Sequence[int],
        num_inference_steps: int = 10,
    ) -> list[DiffusionFeatures]:
        """Features of a noised picture, one pass a step. They leak the picture: ablations only.

        Args:
            clean: (B, C, h, w) latents of the ground truth I, scaled as the U-Net's own.
            text, condition, generator, num_inference_steps: as in `reverse_process`.
            steps: 0 … S-1.
        """
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(num_inference_steps)
        noise = self.initial_noise(len(text), generator)
        text = self._cast(text)
        embedded = self.controlnet.controlnet_cond_embedding(self._cast(condition))
        found = []
        for step in steps:
            t = scheduler.timesteps[check_exit_step(step, num_inference_steps)]
            noised = scheduler.add_noise(clean.to(noise), noise, t[None])
            with capture_features(self.unet, guided=False) as capture:
                self._denoise(scheduler.scale_model_input(noised, t), t, text, embedded)
            found.append(capture.features)
        return found

    def _denoise(
        self, latents: torch.Tensor, t: torch.Tensor, text: torch.Tensor, embedded: torch.Tensor
    ) -> torch.Tensor:
        """One ControlNet and U-Net pass.

        embedded: x as ControlNet's first layers see it, of the last samples; the others have none.
        """
        latents, free = self._cast(latents), len(latents) - len(embedded)
        with _embedded_condition(self.controlnet, embedded):
            down, mid = self.controlnet(latents[free:], t, text[free:], embedded, return_dict=False)
        *down, mid = (F.pad(x, (0, 0, 0, 0, 0, 0, free, 0)) for x in (*down, mid))
        prediction: torch.Tensor = self.unet(
            latents,
            t,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        return prediction

    def _cast(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.unet.device, self.unet.dtype)


@contextmanager
def _embedded_condition(controlnet: ControlNetModel, embedded: torch.Tensor) -> Iterator[None]:
    """Lets one pass take an embedded condition: embedding anew costs a third of a mini step."""
    layers = controlnet.controlnet_cond_embedding
    controlnet.controlnet_cond_embedding = nn.Identity()
    try:
        yield
    finally:
        controlnet.controlnet_cond_embedding = layers


def lay_out_for_cpu(network: nn.Module) -> None:
    """Channels last, with which a CPU convolves faster; does nothing on other devices."""
    weights = [p for p in network.parameters() if p.ndim == 4]
    last = torch.channels_last
    if any(p.device.type == "cpu" and not p.is_contiguous(memory_format=last) for p in weights):
        network.to(memory_format=last)  # type: ignore[call-overload]  # torch's stub lacks it


def check_exit_step(exit_step: int | None, num_inference_steps: int, most_steps: int = 1000) -> int:
    """The last step made, 0…S-1. Raises ValueError if S or exit_step is out of range.

    Args:
        most_steps: the largest S, that of the scheduler's training.
    """
    steps = whole_number("num_inference_steps", num_inference_steps, 1, most_steps)
    if exit_step is None:
        return steps - 1
    try:
        return whole_number("exit_step", exit_step, 0, steps - 1)
    except ValueError as error:
        raise ValueError(
            f"{error} 0 is the noisiest, the last of num_inference_steps={steps} is {steps - 1};"
            " None means the last."
        ) from None
