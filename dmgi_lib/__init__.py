"""DMGI: diffusion-driven GAN inversion for face generation from text and a mask (CVPR 2024).

The names exported here are imported on first use, so that `import dmgi_lib` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmgi_lib.generators.checkpoints import load_generator
    from dmgi_lib.generators.eg3d import TriPlaneGenerator
    from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
    from dmgi_lib.mapping_network import MappingNetwork
    from dmgi_lib.pipeline import DMGIPipeline
    from dmgi_lib.style_modulation import StyleModulationNetwork

__version__ = "0.1.0"

_HOMES = {
    "DMGIPipeline": "dmgi_lib.pipeline",
    "load_generator": "dmgi_lib.generators.checkpoints",
    "MappingNetwork": "dmgi_lib.mapping_network",
    "StyleModulationNetwork": "dmgi_lib.style_modulation",
    "StyleGAN2Generator": "dmgi_lib.generators.stylegan2",
    "TriPlaneGenerator": "dmgi_lib.generators.eg3d",
    "PatchAutoencoderKL": "dmgi_lib.patch_autoencoder",
    "EditDirections": "dmgi_lib.editing",
    "StyleOffsets": "dmgi_lib.generators.styles",
    "MaskEncoder": "dmgi_lib.mask_encoder",
    "Recognizer": "dmgi_lib.recognizers",
    # diffusers looks up the base class of a component in the library that model_index.json names.
    "ModelMixin": "diffusers",
}

__all__ = [
    "DMGIPipeline",
    "MappingNetwork",
    "StyleGAN2Generator",
    "StyleModulationNetwork",
    "TriPlaneGenerator",
    "load_generator",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dmgi_lib' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
