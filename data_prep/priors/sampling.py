"""Pictures from a denoiser in training: DDIM sampling with classifier-free guidance, and grids.

Only for the sample images of the trainings; `dmgi_lib.DMGIPipeline` is what users call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from dmgi_lib.dataset import to_uint8
from dmgi_lib.devices import autocast


def predicted_velocity(
    unet: UNet2DConditionModel,
    noisy: Tensor,
    t: Tensor,
    text: Tensor,
    controlnet: ControlNetModel | None = None,
    condition: Tensor | None = None,
) -> Tensor:
    """What the U-Net predicts, (B, C, h, w) float32, under a ControlNet if there is one.

    Args:
        noisy:     (B, C, h, w) latents; t: () or (B,) timesteps
        text:      (B, L, D) hidden states
        condition: (B, 3, H, W) in [0, 1], what `controlnet` reads
    """
    down = mid = None
    if controlnet is not None:
        down, mid = controlnet(noisy, t, text, condition, return_dict=False)
    output = unet(
        noisy, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid
    )
    return output.sample.float()


@torch.no_grad()
def sample_images(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    vae: AutoencoderKL,
    text: Tensor,
    empty: Tensor,
    *,
    generator: torch.Generator,
    controlnet: ControlNetModel | None = None,
    condition: Tensor | None = None,
    guidance_scale: float = 2.5,
    steps: int = 20,
) -> Tensor:
    """Draws one image per prompt.

    Args:
        text:      (B, L, D) hidden states of the prompts
        empty:     (1, L, D) hidden states of the empty prompt
        generator: of the initial noise
        condition: (B, 3, H, W) in [0, 1], what `controlnet` reads

    Returns:
        uint8 (B, 3, H, W), on the CPU
    """
    size = unet.config.sample_size
    latents = torch.randn(len(text), unet.config.in_channels, size, size, generator=generator)
    latents = latents.to(text)
    states = torch.cat([empty.expand_as(text), text])
    scheduler = DDIMScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(steps)
    with autocast(text.device):
        for t in scheduler.timesteps:
            x = torch.cat([latents, latents])
            shown = None if condition is None else condition.repeat(2, 1, 1, 1)
            both = predicted_velocity(unet, x, t, states, controlnet, shown)
            without, with_text = both.chunk(2)
            velocity = without + guidance_scale * (with_text - without)
            latents = scheduler.step(velocity, t, latents).prev_sample
        images = vae.decode(latents / vae.config.scaling_factor).sample
    return to_uint8(images).cpu()


def picture_grid(rows: Sequence[Tensor]) -> np.ndarray:
    """Rows of uint8 (B, 3, H, W), equal B -> one picture, uint8 (rows * H, B * W, 3)."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).permute(1, 2, 0).numpy()
