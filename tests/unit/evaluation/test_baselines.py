"""Encoder baselines: sizes, and the text loss."""

import pytest
import torch
from tiny_models import generator

from dmgi_lib.evaluation.baselines import MaskEncoder, optimise_for_text


def test_text_optimisation_raises_the_similarity_and_can_be_held_back():
    G = generator()
    w = G.mapping(torch.randn(2, G.config.z_dim, generator=torch.Generator().manual_seed(0)))

    def brightness(image: torch.Tensor) -> torch.Tensor:
        return image.mean((1, 2, 3))

    moved = optimise_for_text(G, w, brightness, steps=10)
    held = optimise_for_text(G, w, brightness, steps=10, keep=1e6)
    assert (brightness(G.synthesis(moved)) > brightness(G.synthesis(w))).all()
    assert (held - w).abs().max() < (moved - w).abs().max()


def test_bad_sizes():
    with pytest.raises(ValueError, match="end at 4 pixels"):
        MaskEncoder(image_size=64)
