"""The whole method, Fig. 2: (c, x) → E → M, T → w_t = w_t^m ⊙ w_t^γ ⊕ w_t^β → G → I'_t.

pipe = DMGIPipeline.from_pretrained("mini")
out = pipe("a smiling young woman with blond hair", mask="mask.png")
out.images[0]

With an EG3D generator ("mini-3d") the same call draws heads: `render`, `turntable` and `mesh` take
`out.latents`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image

from dmgi_lib.call_arguments import (
    MOST_IMAGES,
    OUTPUT_TYPES,
    chosen_dtype,
    formatted,
    noise_sources,
    paired,
    visual_input,
)
from dmgi_lib.checks import number, one_of, whole_number
from dmgi_lib.diffusion_encoder import DiffusionEncoder, check_exit_step, lay_out_for_cpu
from dmgi_lib.editing import EditDirections, mixed
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.generators.eg3d import TriPlaneGenerator, mesh, views
from dmgi_lib.generators.eg3d.cameras import Numbers, look_at
from dmgi_lib.generators.styles import StyleOffsets
from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.mask_camera import mask_angles
from dmgi_lib.masks import rgb_to_mask
from dmgi_lib.paper_components import load_paper_components
from dmgi_lib.patch_autoencoder import downscaling
from dmgi_lib.presets import MINI, PAPER, weights_folder
from dmgi_lib.prompts import encode_empty, encode_text, named_styles, tokenize, word_maps
from dmgi_lib.style_modulation import (
    StyleModulationNetwork,
    modulate,
    pool_attention,
    truncate_detail,
)
from dmgi_lib.weight_folder import OF_G, OPTIONAL, load_checked, part_name, shares_prior

Condition = str | Path | Image.Image | np.ndarray[Any, Any] | torch.Tensor
Style = str | Mapping[str, float] | None


@dataclass
class DMGIPipelineOutput(BaseOutput):
    """Result of one call. B = prompts or conditions x num_images_per_prompt, in that order.

    images: I', B PIL images, or float32: array (B, H, W, 3) in [0, 1] or tensor (B, 3, H, W) in
        [-1, 1]
    latents: (B, num_ws, w_dim) codes w_t, which G draws
    diffusion_images: I_0^d in the same form; None at an early exit, where no image is reached
    attention: per image, word → (H, W) attention map of the last step made; None unless asked for
    camera: (B, 25) from which the heads are seen; None for a generator of pictures
    styles: per image, style → share
    """

    images: Any
    latents: torch.Tensor
    diffusion_images: Any = None
    attention: list[dict[str, torch.Tensor]] | None = None
    camera: torch.Tensor | None = None
    styles: list[dict[str, float]] | None = None


class DMGIPipeline(DiffusionPipeline):
    """Text and a mask (or a scribble) to a face, by diffusion-driven GAN inversion.

    Args:
        tokenizer, text_encoder: transformers tokenizer and CLIPTextModel
        vae, unet, controlnet, scheduler: the diffusion prior, frozen; controlnet reads masks
        mapping_network, style_modulation, generator: M, T, G. Without T, w_t = w_t^m; without M or
            G the pipeline only encodes, which is how their training starts
        controlnet_scribble, mapping_network_scribble, style_modulation_scribble: their
            counterparts for scribbles
        edit_directions, style_offsets: steps in W+ that `edit` takes, and styles, of this G
        num_inference_steps, guidance_scale, detail_psi: defaults of a call
        guide_condition: whether guidance strengthens x too, see `DiffusionEncoder`
    """

    _optional_components: ClassVar[list[str]] = list(OPTIONAL)

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
        edit_directions: EditDirections | None = None,
        style_offsets: StyleOffsets | None = None,
        num_inference_steps: int = MINI.num_inference_steps,
        guidance_scale: float = MINI.guidance_scale,
        guide_condition: bool = MINI.guide_condition,
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
            edit_directions=edit_directions,
            style_offsets=style_offsets,
        )
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guide_condition=guide_condition,
            detail_psi=detail_psi,
        )
        self.set_progress_bar_config(disable=None)  # bars only where somebody watches
        for name, component in self.components.items():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)
            if type(component).__module__.startswith("dmgi_lib."):  # survives a move of the module
                self.register_to_config(**{name: ("dmgi_lib", type(component).__name__)})

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini",
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **components: Any,
    ) -> DMGIPipeline:
        """Loads a preset or a folder. Never downloads.

        Args:
            name: "mini", "mini-3d", "paper", or a folder written by `save_pretrained`.
            dtype: of the weights: torch.float32 (the default), torch.bfloat16 or torch.float16.
            torch_dtype: the same, by diffusers' older name.
            components: a component to use instead of the stored one, such as generator=G; for
                "paper" also base_model= and controlnet= (folder or hub id), and generator= (path
                or module).

        Raises:
            ValueError: unknown preset, truncated weights, two different dtypes.
            FileNotFoundError: missing weights.
        """
        dtype = chosen_dtype(dtype, torch_dtype)
        if str(name) == PAPER.name:
            return cls(**load_paper_components(dtype=dtype, **components))
        folder = weights_folder(name)
        own = {name: None for name in OF_G if name in OPTIONAL}
        options = {"dtype": dtype, "local_files_only": True}
        load = super().from_pretrained

        def checked(folder: Path, given: dict[str, Any]) -> DMGIPipeline:
            pipe: DMGIPipeline = load_checked(
                folder, lambda: load(str(folder), **options, **given), given
            )
            return pipe

        if not shares_prior(folder):
            return checked(folder, components)
        prior = checked(folder.parent, own).components
        return checked(folder, {n: c for n, c in prior.items() if n not in own} | components)

    @property
    def image_size(self) -> int:
        """Edge of x and of the diffusion model's image in pixels."""
        return int(self.unet.config.sample_size) * downscaling(self.vae)

    def encoder(self, condition: str = "mask") -> DiffusionEncoder:
        """E for "mask" or "scribble". Raises ValueError if this model has no ControlNet for it."""
        controlnets = {"mask": self.controlnet, "scribble": self.controlnet_scribble}
        if controlnets.get(condition) is None:
            have = [name for name, net in controlnets.items() if net is not None]
            raise ValueError(
                f"this model has no ControlNet for a {condition!r} condition; it has {have}. Pass"
                " one of those, or load a model trained with the other."
            )
        for network in (self.unet, self.vae, controlnets[condition]):
            lay_out_for_cpu(network)
        networks = (self.unet, controlnets[condition], self.scheduler)
        return DiffusionEncoder(*networks, self.config.guide_condition)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        mask: Condition | Sequence[Condition] | None = None,
        *,
        scribble: Condition | Sequence[Condition] | None = None,
        fit: str | None = None,
        exit_step: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        detail_psi: float | None = None,
        camera: Any = None,
        style: Style = None,
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
            scribble: x as white strokes on black instead of a mask, see
                `dmgi_lib.scribble_input.load_scribble`.
            fit: "pad" or "crop" masks and scribbles that are not square; None refuses them.
            exit_step: step of the reverse process to decode, 0 (t = T, one U-Net pass) … S-1
                (t = 0); None means S-1.
            num_inference_steps: S.
            guidance_scale: classifier-free guidance, 0 … 100; at most 1 turns it off.
            detail_psi: how far the codes of the finest detail are M's and T's, 0 (G's own, crisp)
                … 1 (as predicted, soft); see `truncate_detail`.
            camera: of a 3D generator: (25,) or (B, 25) numbers, or (yaw, pitch) in degrees; None
                means the one that the mask suggests (`mask_camera`), frontal for scribbles.
            style: "marble", or shares such as {"marble": 0.6, "elf": 0.4}; None takes the one that
                a prompt names, {} none. `pipe.style_offsets.names` are the names.
            num_images_per_prompt: images with different noise for each prompt and condition.
            generator: noise source, one for all or one per image; None means seed 0, so that a
                call is reproducible by default (our choice).
            output_type: "pil", "np" or "pt".
            return_attention: also return the attention map of each word.

        Raises:
            ValueError: bad mask, prompt, style, step or counts; no M or G in this model.
        """
        if num_inference_steps is None:
            num_inference_steps = self.config.num_inference_steps
        most = getattr(self.scheduler.config, "num_train_timesteps", 1000)
        last = check_exit_step(exit_step, num_inference_steps, most)
        copies = whole_number("num_images_per_prompt", num_images_per_prompt, 1, MOST_IMAGES)
        guidance = self.config.guidance_scale if guidance_scale is None else guidance_scale
        guidance = number("guidance_scale", guidance, 0.0, 100.0)
        psi = self.config.detail_psi if detail_psi is None else detail_psi
        psi = number("detail_psi", psi, 0.0, 1.0)
        one_of("output_type", output_type, OUTPUT_TYPES)
        kind, condition = visual_input(mask, scribble, self.image_size, fit)
        self._check_parts(kind)
        encoder = self.encoder(kind)
        prompts: list[Any] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
        rows, columns = paired(len(prompts), len(condition), copies)
        sources = noise_sources(generator, len(rows))
        cameras = self._cameras(camera, kind, condition[columns])
        shares, prompts = self._shares(style, prompts)
        tokens = tokenize(self.tokenizer, prompts)
        text = encode_text(self.text_encoder, tokens.ids)
        with self.progress_bar(total=last + 1) as bar:
            for state in encoder.reverse_process(
                text[rows],
                encode_empty(self.tokenizer, self.text_encoder),
                condition[columns],
                generator=sources,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance,
                exit_step=last,
            ):
                bar.update()
                final = state
        assert final.features is not None  # the last step made is always captured
        predicted = self.latents_from_features(final.features, tokens.word_mask[rows], kind)
        w_avg = self.generator.mean_latent
        latents = truncate_detail(predicted.to(w_avg), w_avg, psi)
        cameras = None if cameras is None else cameras.to(latents)
        styles = [shares[row] for row in rows]
        images = self._drawn(latents, cameras, styles)
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
            camera=cameras,
            styles=styles,
        )

    def render(
        self,
        latents: torch.Tensor,
        yaw: Numbers = 0.0,
        pitch: Numbers = 0.0,
        roll: Numbers = 0.0,
        *,
        camera: Any = None,
        style: Style = None,
        output: str = "image",
    ) -> list[Image.Image]:
        """Heads of a 3D generator from any side, see `dmgi_lib.generators.eg3d.views.render`.

        Args:
            latents: (B, num_ws, w_dim), codes of a call.
            yaw, pitch, roll: degrees, numbers or lists of equal length; yaw above 0 shows the
                person's left side, pitch above 0 looks from above.
            camera: (25,) or (V, 25) instead of angles.
            style: as in a call; None draws photographs.
            output: "image", "depth" (near is bright) or "normals".

        Returns:
            All views of the first code, then of the second, ...

        Raises:
            ValueError: a generator of pictures, codes of another generator, bad angles or cameras.
        """
        G = views.as_3d(self.generator)
        cameras = views.view_cameras(G, yaw, pitch, roll, camera)
        with torch.no_grad(), self._styled(style):
            return views.render(G, latents, cameras, output)

    def turntable(
        self, latents: torch.Tensor, *, style: Style = None, **options: Any
    ) -> list[Image.Image]:
        """Frames of one head turning; `options` are those of `views.turntable`: frames, yaw, path.

        pipe.turntable(out.latents[0], yaw=(-40, 40), path="head.webp")
        """
        with torch.no_grad(), self._styled(style):
            return views.turntable(views.as_3d(self.generator), latents, **options)

    def mesh(
        self,
        latents: torch.Tensor,
        resolution: int = 128,
        path: str | Path | None = None,
        *,
        style: Style = None,
    ) -> Any:
        """One head as a `trimesh.Trimesh` with vertex colours, see `mesh.head_mesh`.

        pipe.mesh(out.latents[0]).export("head.glb")
        """
        with torch.no_grad(), self._styled(style):
            return mesh.head_mesh(views.as_3d(self.generator), latents, resolution, path)

    @torch.no_grad()
    def edit(
        self,
        latents: torch.Tensor,
        *,
        style: Style = None,
        output_type: str = "pil",
        **strengths: float,
    ) -> DMGIPipelineOutput:
        """Draws codes anew, moved along directions: `pipe.edit(out.latents, smile=1, age=-0.5)`.

        Args:
            latents: (B, num_ws, w_dim) of an earlier call or edit.
            style: as in a call; None draws photographs.
            output_type: "pil", "np" or "pt".
            strengths: see `EditDirections.forward`; `pipe.edit_directions.names` are the names.
                Without any, the codes are drawn as they are.

        Raises:
            ValueError: an unknown name or strength, other codes, no directions in this model.
        """
        if not strengths:
            return self._redrawn(latents, output_type, style)
        if self.edit_directions is None:
            raise ValueError(
                "this model holds no edit_directions. Find them for its G:"
                " python -m dmgi_lib.training.edit_directions"
            )
        return self._redrawn(self.edit_directions(latents, strengths), output_type, style)

    @torch.no_grad()
    def mix(
        self,
        latents_a: torch.Tensor,
        latents_b: torch.Tensor,
        rows: str | Sequence[int] = "coarse",
        *,
        output_type: str = "pil",
    ) -> DMGIPipelineOutput:
        """Style mixing: draws the faces a with some rows of b, see `dmgi_lib.editing.mixed`."""
        return self._redrawn(mixed(latents_a, latents_b, rows), output_type)

    def _redrawn(
        self, latents: torch.Tensor, output_type: str, style: Style = None
    ) -> DMGIPipelineOutput:
        """G alone, without a pass of the diffusion model."""
        one_of("output_type", output_type, OUTPUT_TYPES)
        if self.generator is None:
            raise ValueError(
                "this model holds no generator; pass one: from_pretrained(..., generator=...)."
            )
        codes = latents.to(self.generator.mean_latent)
        cameras = self._cameras(None, "scribble", codes)  # frontal, where G knows cameras
        cameras = None if cameras is None else cameras.to(codes)
        styles = self._shares(style or {}, [""])[0] * len(codes)
        drawn = formatted(self._drawn(codes, cameras, styles), output_type)
        return DMGIPipelineOutput(images=drawn, latents=codes, camera=cameras, styles=styles)

    def latents_from_features(
        self, features: DiffusionFeatures, word_mask: torch.Tensor, condition: str = "mask"
    ) -> torch.Tensor:
        """M and T of a condition: features of one step → w_t (B, num_ws, w_dim), as predicted.

        Args:
            word_mask: (B, L) bool, see `pool_attention`.
        """
        M = getattr(self, part_name("mapping_network", condition))
        w_m: torch.Tensor = M(features.h.to(M.device, M.dtype))
        T = getattr(self, part_name("style_modulation", condition))
        if T is None:
            return w_m
        maps = pool_attention(features.a, word_mask.to(features.h.device), T.config.pool)
        f, a = ([x.to(T.device, T.dtype) for x in group] for group in (features.f, maps))
        return modulate(w_m, *T(f, a))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Diffusion latents (B, C, h, w) → images (B, 3, H, W), about [-1, 1]."""
        scaled = latents / self.vae.config.scaling_factor
        images: torch.Tensor = self.vae.decode(scaled.to(self.vae.device, self.vae.dtype)).sample
        return images

    @contextmanager
    def _styled(self, style: Style) -> Iterator[None]:
        """Inside, G draws in a style, or in a mixture of some."""
        ((shares,), _) = self._shares(style or {}, [""])
        if not shares:
            yield
            return
        with self.style_offsets.applied(self.generator, shares):
            yield

    def _shares(
        self, style: Style, prompts: Sequence[str]
    ) -> tuple[list[dict[str, float]], list[str]]:
        """Of styles, for each prompt, and the prompts without words that name a known style."""
        known = self.style_offsets
        if known is None and style:
            raise ValueError(
                f"style came as {style!r}, but this model has no styles. Train them for its G:"
                " python -m data_prep.priors.trainer style_offsets"
            )
        named, rest = named_styles(prompts, () if known is None else known.names)
        if known is None:
            return [{} for _ in prompts], rest
        return [known.strengths(of if style is None else style) for of in named], rest

    def _drawn(
        self,
        latents: torch.Tensor,
        cameras: torch.Tensor | None,
        shares: Sequence[Mapping[str, float]],
    ) -> torch.Tensor:
        """G's pictures (B, 3, H, W) of codes, each in its mixture of styles."""
        drawn: dict[int, torch.Tensor] = {}
        for mixture in {tuple(of.items()): of for of in shares}.values():
            rows = [row for row, of in enumerate(shares) if of == mixture]
            given = [latents[rows]] + ([] if cameras is None else [cameras[rows]])
            with self._styled(mixture):
                images = self.generator.synthesis(*given, noise_mode="const")
            drawn |= zip(rows, images if cameras is None else images.image, strict=True)
        return torch.stack([drawn[row] for row in range(len(latents))])

    def _cameras(self, camera: Any, kind: str, condition: torch.Tensor) -> torch.Tensor | None:
        """(B, 25) for x (B, 3, H, W); None if G knows no cameras."""
        if not isinstance(self.generator, TriPlaneGenerator):
            return None if camera is None else views.as_3d(self.generator)  # which refuses it
        if camera is not None:
            return views.as_cameras(camera, self.generator, len(condition))
        if kind != "mask":
            return look_at(0.0, 0.0).expand(len(condition), -1)
        yaw, pitch, roll = mask_angles(rgb_to_mask(condition)).unbind(-1)
        return look_at(yaw, pitch, roll=roll)

    def _check_parts(self, condition: str) -> None:
        for name in (part_name("mapping_network", condition), "generator"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"this model holds no {name}, so it cannot draw. Train one"
                    " (dmgi_lib.training.stages for mapping_network,"
                    " data_prep.priors.trainer stylegan2 for generator) or pass it:"
                    f" from_pretrained(..., {name}=...)."
                )
