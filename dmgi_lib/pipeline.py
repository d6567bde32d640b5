"""The whole method, Fig. 2: (c, x) → E → M, T → w_t = w_t^m ⊙ w_t^γ ⊕ w_t^β → G → I'_t.

pipe = DMGIPipeline.from_pretrained("mini")
out = pipe("a smiling young woman with blond hair", mask="mask.png")
out.images[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image

from dmgi_lib.call_arguments import OUTPUT_TYPES, formatted, noise_sources, paired, visual_input
from dmgi_lib.diffusion_encoder import DiffusionEncoder, check_exit_step
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.presets import MINI, PAPER, load_paper_components, weights_folder
from dmgi_lib.prompts import encode_empty, encode_text, tokenize, word_maps
from dmgi_lib.style_modulation import (
    StyleModulationNetwork,
    modulate,
    pool_attention,
    truncate_detail,
)
from dmgi_lib.weight_folder import OPTIONAL, check_weights, part_name, quiet_loading

Condition = str | Path | Image.Image | np.ndarray | torch.Tensor


@dataclass
class DMGIPipelineOutput(BaseOutput):
    """Result of one call. B = prompts or conditions x num_images_per_prompt, in that order.

    images: I', B PIL images, or array (B, H, W, 3) in [0, 1], or tensor (B, 3, H, W) in [-1, 1]
    latents: (B, num_ws, w_dim) codes w_t, which G draws
    diffusion_images: I_0^d in the same form; None at an early exit, where no image is reached
    attention: per image, word → (H, W) attention map of the last step made; None unless asked for
    """

    images: Any
    latents: torch.Tensor
    diffusion_images: Any = None
    attention: list[dict[str, torch.Tensor]] | None = None


class DMGIPipeline(DiffusionPipeline):
    """Text and a mask (or a scribble) to a face, by diffusion-driven GAN inversion.

    Args:
        tokenizer, text_encoder: transformers tokenizer and CLIPTextModel
        vae, unet, controlnet, scheduler: the diffusion prior, frozen; controlnet reads masks
        mapping_network, style_modulation, generator: M, T, G. Without T, w_t = w_t^m; without M or
            G the pipeline only encodes, which is how their training starts
        controlnet_scribble, mapping_network_scribble, style_modulation_scribble: their
            counterparts for scribbles
        num_inference_steps, guidance_scale, detail_psi: defaults of a call
    """

    _optional_components: ClassVar[list[str]] = list(OPTIONAL)

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    controlnet: Any
    scheduler: Any
    mapping_network: Any
    style_modulation: Any
    controlnet_scribble: Any
    mapping_network_scribble: Any
    style_modulation_scribble: Any
    generator: Any
    config: Any
    progress_bar: Any

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        scheduler: Any,
        mapping_network: MappingNetwork | None = None,
        style_modulation: StyleModulationNetwork | None = None,
        controlnet_scribble: ControlNetModel | None = None,
        mapping_network_scribble: MappingNetwork | None = None,
        style_modulation_scribble: StyleModulationNetwork | None = None,
        generator: Any = None,
        num_inference_steps: int = MINI.num_inference_steps,
        guidance_scale: float = MINI.guidance_scale,
        detail_psi: float = MINI.detail_psi,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            unet=unet,
            controlnet=controlnet,
            scheduler=scheduler,
            mapping_network=mapping_network,
            style_modulation=style_modulation,
            controlnet_scribble=controlnet_scribble,
            mapping_network_scribble=mapping_network_scribble,
            style_modulation_scribble=style_modulation_scribble,
            generator=generator,
        )
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            detail_psi=detail_psi,
        )
        self.set_progress_bar_config(disable=None)  # bars only where somebody watches
        for name, component in self.components.items():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)
            if type(component).__module__.startswith("dmgi_lib."):  # survives a move of the module
                self.register_to_config(**{name: ("dmgi_lib", type(component).__name__)})

    @classmethod
    def from_pretrained(cls, name: str | Path = "mini", **components: Any) -> DMGIPipeline:
        """Loads a preset or a folder. Never downloads.

        Args:
            name: "mini", "paper", or a folder written by `save_pretrained`.
            components: a component to use instead of the stored one, such as generator=G; for
                "paper" also base_model= and controlnet= (folder or hub id), and generator= (path
                or module).

        Raises:
            ValueError: unknown preset, truncated weights. FileNotFoundError: missing weights.
        """
        if str(name) == PAPER.name:
            return cls._paper(**components)
        folder = weights_folder(name)
        check_weights(folder)
        components = {"dtype": torch.float32, "local_files_only": True} | components
        with quiet_loading():
            pipe = super().from_pretrained(str(folder), **components)
        for network in (pipe.unet, pipe.vae, pipe.controlnet, pipe.controlnet_scribble):
            if network is not None:
                network.to(memory_format=torch.channels_last)  # convolutions are faster so on CPUs
        return pipe

    @classmethod
    def _paper(
        cls,
        base_model: str | Path | None = None,
        controlnet: str | Path | None = None,
        generator: Any = None,
        **components: Any,
    ) -> DMGIPipeline:
        if isinstance(generator, (str, Path)):
            from dmgi_lib.generators.checkpoints import load_generator

            generator = load_generator(generator)
        parts = load_paper_components(base_model, controlnet) | {"generator": generator}
        return cls(
            **(parts | components),
            num_inference_steps=PAPER.num_inference_steps,
            guidance_scale=PAPER.guidance_scale,
            detail_psi=PAPER.detail_psi,
        )

    @property
    def image_size(self) -> int:
        """Edge of x and of the diffusion model's image in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encoder(self, condition: str = "mask") -> DiffusionEncoder:
        """E for "mask" or "scribble". Raises ValueError if this model has no ControlNet for it."""
        controlnets = {"mask": self.controlnet, "scribble": self.controlnet_scribble}
        if controlnets.get(condition) is None:
            have = [name for name, net in controlnets.items() if net is not None]
            raise ValueError(
                f"this model has no ControlNet for a {condition!r} condition; it has {have}. Pass"
                " one of those, or load a model trained with the other."
            )
        return DiffusionEncoder(self.unet, controlnets[condition], self.scheduler)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        mask: Condition | Sequence[Condition] | None = None,
        *,
        scribble: Condition | Sequence[Condition] | None = None,
        exit_step: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        detail_psi: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_attention: bool = False,
    ) -> DMGIPipelineOutput:
        """Draws faces.

        Args:
            prompt: c, one or several. One prompt goes with every condition, and one condition with
                every prompt; otherwise both come in equal number.
            mask: x, see `dmgi_lib.masks.load_mask` for the accepted kinds; or a list.
            scribble: x as white strokes on black instead of a mask.
            exit_step: step of the reverse process to decode, 0 (t = T, one U-Net pass) … S-1
                (t = 0); None means S-1.
            num_inference_steps: S.
            guidance_scale: classifier-free guidance; at most 1 turns it off.
            detail_psi: how far the codes of the finest detail are M's and T's, 0 (G's own, crisp)
                … 1 (as predicted, soft); see `truncate_detail`.
            num_images_per_prompt: images with different noise for each prompt and condition.
            generator: noise source, one for all or one per image; None means seed 0, so that a
                call is reproducible by default (our choice).
            output_type: "pil", "np" or "pt".
            return_attention: also return the attention map of each word.

        Raises:
            ValueError: bad mask, prompt, step or counts; no M or G in this model.
        """
        steps = (
            self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        )
        last = check_exit_step(exit_step, steps)
        kind, condition = visual_input(mask, scribble, self.image_size)
        psi = self.config.detail_psi if detail_psi is None else detail_psi
        self._check_call(output_type, num_images_per_prompt, kind, psi)
        encoder = self.encoder(kind)
        prompts: list[Any] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
        rows, columns = paired(len(prompts), len(condition), num_images_per_prompt)
        sources = noise_sources(generator, len(rows))
        if guidance_scale is None:
            guidance_scale = self.config.guidance_scale
        tokens = tokenize(self.tokenizer, prompts)
        text = encode_text(self.text_encoder, tokens.ids)
        with self.progress_bar(total=last + 1) as bar:
            for state in encoder.reverse_process(
                text[rows],
                encode_empty(self.tokenizer, self.text_encoder),
                condition[columns].to(text),
                generator=sources,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                exit_step=last,
            ):
                bar.update()
                final = state
        assert final.features is not None  # the last step made is always captured
        word_mask = tokens.word_mask[rows].to(text.device)
        predicted = self.latents_from_features(final.features, word_mask, kind)
        latents = truncate_detail(predicted, self.generator.mean_latent, psi)
        images = self.generator.synthesis(latents, noise_mode="const")
        denoised = None if final.latents is None else self.decode_latents(final.latents)
        attention = None
        if return_attention:
            attention = [
                word_maps(final.features.a, tokens.words[row], image)
                for image, row in enumerate(rows)
            ]
        return DMGIPipelineOutput(
            images=formatted(images, output_type),
            latents=latents,
            diffusion_images=None if denoised is None else formatted(denoised, output_type),
            attention=attention,
        )

    def latents_from_features(
        self, features: DiffusionFeatures, word_mask: torch.Tensor, condition: str = "mask"
    ) -> torch.Tensor:
        """M and T of a condition: features of one step → w_t (B, num_ws, w_dim), as predicted.

        Args:
            word_mask: (B, L) bool, see `pool_attention`.
        """
        w_m = getattr(self, part_name("mapping_network", condition))(features.h)
        T = getattr(self, part_name("style_modulation", condition))
        if T is None:
            return w_m
        maps = pool_attention(features.a, word_mask, T.config.pool)
        return modulate(w_m, *T(features.f, maps))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Diffusion latents (B, 4, h, w) → images (B, 3, H, W), about [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def _check_call(
        self, output_type: str, num_images_per_prompt: int, condition: str, detail_psi: float
    ) -> None:
        if output_type not in OUTPUT_TYPES:
            raise ValueError(
                f"output_type came as {output_type!r}; expected one of {OUTPUT_TYPES}."
            )
        if num_images_per_prompt < 1:
            raise ValueError(
                f"num_images_per_prompt came as {num_images_per_prompt}; expected at least 1."
            )
        if not 0.0 <= detail_psi <= 1.0:
            raise ValueError(f"detail_psi came as {detail_psi}; expected a number from 0 to 1.")
        for name in (part_name("mapping_network", condition), "generator"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"this model holds no {name}, so it cannot draw. Train one"
                    " (dmgi_lib.training.stages for mapping_network,"
                    " data_prep.priors.trainer stylegan2 for generator) or pass it:"
                    f" from_pretrained(..., {name}=...)."
                )
