"""The parts of the "paper" preset: the released diffusion prior, and M, T and G where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from dmgi_lib.generators.checkpoints import load_generator
from dmgi_lib.presets import CALL_DEFAULTS, PAPER
from dmgi_lib.weight_folder import load_part


def load_paper_components(
    base_model: str | Path | None = None,
    controlnet: str | Path | None = None,
    dtype: Any = None,
    generator: Any = None,
    **components: Any,
) -> dict[str, Any]:
    """The released diffusion prior of the "paper" preset, and M, T and G where they are there.

    Nothing is downloaded: parts come from local folders or from the local Hugging Face cache.

    Args:
        base_model: Stable Diffusion 1.x, a folder in diffusers format or a hub id; None: the
            preset's.
        controlnet: its ControlNet, likewise.
        dtype: torch dtype of the weights; None: float32.
        generator: G, or a path that `load_generator` reads; None: the one in PAPER.folder.
        components: used instead of those on disk.

    Returns:
        What `DMGIPipeline` takes, by name; mapping_network, style_modulation and generator are None
        where PAPER.folder does not hold them yet.

    Raises:
        FileNotFoundError: a part is not on this machine; says how to fetch it.
    """
    base, control = str(base_model or PAPER.base_model), str(controlnet or PAPER.controlnet)

    def local(cls: Any, source: str, subfolder: str = "", **options: Any) -> Any:
        try:
            return cls.from_pretrained(
                source, subfolder=subfolder, local_files_only=True, **options
            )
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{cls.__name__} of {source!r} is not on this machine"
                f" ({str(error).splitlines()[0]}). Fetch it once with `hf download {source}`, or"
                " name a local folder in diffusers format with base_model= and controlnet=."
            ) from error

    cast: dict[str, Any] = {"torch_dtype": dtype or torch.float32}
    if isinstance(generator, (str, Path)):
        generator = load_generator(generator, dtype=cast["torch_dtype"])
    added: dict[str, Any] = {}
    for name in ("mapping_network", "style_modulation", "generator"):
        part = load_part(PAPER.folder, name)  # diffusers' own `to` warns of what is meant here
        added[name] = None if part is None else torch.nn.Module.to(part, cast["torch_dtype"])
    if generator is not None:
        added["generator"] = generator
    return {
        "tokenizer": local(CLIPTokenizer, base, "tokenizer"),
        "text_encoder": local(CLIPTextModel, base, "text_encoder", **cast),
        "vae": local(AutoencoderKL, base, "vae", **cast),
        "unet": local(UNet2DConditionModel, base, "unet", **cast),
        "scheduler": local(DDIMScheduler, base, "scheduler"),
        "controlnet": local(ControlNetModel, control, **cast),
        **{name: getattr(PAPER, name) for name in CALL_DEFAULTS},
        **added,
        **components,
    }
