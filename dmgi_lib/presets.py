"""Presets: sizes and sources of "mini", "mini-3d" (heads instead of pictures) and "paper" (SD 1.5).

Switching from one to the other changes names and sizes, not code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from dmgi_lib.mapping_network import MappingConfig
from dmgi_lib.style_modulation import ModulationConfig

WEIGHTS = Path(__file__).resolve().parent / "weights"
# of a call, kept in model_index.json
CALL_DEFAULTS = ("num_inference_steps", "guidance_scale", "guide_condition", "detail_psi")


@dataclass(frozen=True)
class Preset:
    """Sizes and defaults of one scale.

    folder: diffusers-style weight folder; for "paper" only what DMGI adds: M, T, G and the loss
        net, in $DMGI_PAPER, else ~/.cache/dmgi/paper
    image_size, latent_size: pixels of x and I, edge of the latents
    num_inference_steps, guidance_scale: S and classifier-free guidance of the reverse process
    guide_condition: whether guidance strengthens x too, see `diffusion_encoder.DiffusionEncoder`;
        for "paper" as is usual with ControlNet
    detail_psi: see `style_modulation.truncate_detail`
    base_model, controlnet: hub ids (or folders) of the released diffusion prior; None if in
        `folder`; for "paper" $DMGI_BASE_MODEL and $DMGI_CONTROLNET name others
    training: commands that make the folder, for who lacks it
    """

    name: str
    folder: Path
    image_size: int
    latent_size: int
    num_inference_steps: int
    guidance_scale: float
    guide_condition: bool
    detail_psi: float
    mapping: MappingConfig
    modulation: ModulationConfig
    base_model: str | None = None
    controlnet: str | None = None
    training: str = ""


MINI = Preset(
    name="mini",
    folder=WEIGHTS / "faces128",
    image_size=128,
    latent_size=16,
    num_inference_steps=10,
    guidance_scale=2.5,
    guide_condition=True,
    detail_psi=0.5,
    mapping=MappingConfig(),
    modulation=ModulationConfig(),
)

# M, T and an EG3D generator of its own; the rest is that of "mini", whose folder it lies in. The
# last row of its codes styles super-resolution as a whole, so it stays as predicted.
MINI_3D = replace(
    MINI,
    name="mini-3d",
    folder=MINI.folder / "3d",
    detail_psi=1.0,
    training="python -m data_prep.priors.trainer eg3d, then python -m dmgi_lib.weight_folder"
    " --folder dmgi_lib/weights/faces128/3d, then python -m dmgi_lib.training.stages"
    " --preset mini-3d --stage 1, 2 and 3",
)

PAPER = Preset(
    name="paper",
    folder=Path(os.environ.get("DMGI_PAPER", "~/.cache/dmgi/paper")).expanduser(),
    image_size=512,
    latent_size=64,
    num_inference_steps=50,
    guidance_scale=7.5,
    guide_condition=False,
    detail_psi=1.0,
    mapping=MappingConfig(in_channels=1280, in_resolution=8, num_ws=18, w_dim=512, width=512),
    modulation=ModulationConfig(
        in_channels=(1280, 640, 320), resolution=64, num_ws=18, w_dim=512, reduced_channels=64
    ),
    base_model=os.environ.get("DMGI_BASE_MODEL", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    controlnet=os.environ.get("DMGI_CONTROLNET", "lllyasviel/control_v11p_sd15_seg"),
)

PRESETS: dict[str, Preset] = {"mini": MINI, "mini-3d": MINI_3D, "paper": PAPER}


def weights_folder(name: str | Path) -> Path:
    """The folder of a preset's name, or the folder itself. Raises ValueError if it is neither."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if str(name) not in PRESETS:
        raise ValueError(
            f"unknown preset {str(name)!r}; expected one of {sorted(PRESETS)}, or the path of a"
            " folder that holds model_index.json."
        )
    return PRESETS[str(name)].folder
