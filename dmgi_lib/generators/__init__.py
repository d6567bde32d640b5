"""The frozen generators G and how to load them."""

from dmgi_lib.generators.checkpoints import load_generator
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator

__all__ = ["StyleGAN2Generator", "load_generator"]
