"""Encoder baselines: mask → W+, and codes that follow a text loss."""

import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_evaluation import tiny_clip, tiny_encoder
from tiny_models import face_mask, generator, pipeline

from dmgi_lib.evaluation.baselines import optimise_for_text, text_similarity
from dmgi_lib.mask_encoder import MaskEncoder


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


def test_similarity_is_the_cosine_of_both_embeddings():
    pipe = pipeline()
    clip, prompts = tiny_clip(pipe), ["a young woman", "an old man"]
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    found = text_similarity(clip, pipe.tokenizer, prompts)(images)
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=12, return_tensors="pt")
    out = clip(input_ids=ids["input_ids"], pixel_values=images)
    expected = torch.cosine_similarity(out.text_embeds, out.image_embeds)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_codes_are_found_and_moved_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    encoder, G = tiny_encoder(), generator()
    with fake_cuda(), torch.no_grad():  # autograd of a CPU build knows no CUDA
        on_cuda(encoder)
        on_cuda(G)
        w = encoder(face_mask()[None].to(encoder.device))
        moved = optimise_for_text(G, w, lambda image: image.mean((1, 2, 3)), steps=1)
    assert w.shape == moved.shape == (1, 12, 16) and moved.device.type == "cuda"
