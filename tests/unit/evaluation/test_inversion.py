"""Inversion by optimisation recovers codes that exist, and tells W from W+."""

import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_models import rng, tiny_eg3d, tiny_stylegan2

from dmgi_lib.evaluation.inversion import InversionConfig, invert, pyramid_distance
from dmgi_lib.generators.eg3d import look_at
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator


@pytest.fixture(scope="module")
def G() -> StyleGAN2Generator:
    torch.manual_seed(0)
    G = StyleGAN2Generator(16, 0, 16, 16, mapping_layers=1, channel_base=128, channel_max=16)
    with torch.no_grad():
        G.mapping.w_avg.copy_(G.mapping(torch.randn(500, 16))[:, 0].mean(0))
    return G.eval().requires_grad_(False)


def error(G, ws, space, steps=150):
    target = G.synthesis(ws)
    found = invert(G, target, InversionConfig(space, steps=steps, latent=0.0))
    assert found.latents.shape == ws.shape and found.curve.shape == (steps, len(ws))
    assert torch.equal(found.images, G.synthesis(found.latents))
    mean_face = pyramid_distance(G.synthesis(G.mean_latent.expand_as(ws)), target, 4)
    return (pyramid_distance(found.images, target, 4) / mean_face).mean()


def test_w_is_found_in_w_and_w_plus_only_in_w_plus(G):
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    in_w = G.mapping(z[:2])
    mixed = in_w.clone()
    mixed[:, ::2] = G.mapping(z[2:])[:, ::2]
    assert error(G, in_w, "W") < 0.15
    assert error(G, mixed, "W+") < 0.15
    assert error(G, mixed, "W") > 2 * error(G, mixed, "W+")


def test_repeats_itself_and_uses_the_perceptual_term(G):
    target = G.synthesis(G.mapping(torch.ones(1, 16)))
    config = InversionConfig(steps=3)
    first, second = invert(G, target, config), invert(G, target, config)
    assert torch.equal(first.latents, second.latents)
    pushed = invert(G, target, config, perceptual=lambda image, _: image.mean((1, 2, 3)))
    assert not torch.equal(first.latents, pushed.latents)


def test_bad_input(G):
    with pytest.raises(ValueError, match=r"expected \(B, 3, 16, 16\)"):
        invert(G, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expected one of"):
        InversionConfig("Z")
    with pytest.raises(ValueError, match="at least 1"):
        InversionConfig(steps=0)


def test_searches_on_the_generators_device(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    G, target = tiny_stylegan2(), torch.zeros(2, 3, 16, 16)
    with fake_cuda(), torch.no_grad():  # autograd of a CPU build knows no CUDA
        on_cuda(G)
        found = invert(G, target, InversionConfig(steps=2, levels=2))
    for tensor in (found.latents, found.images, found.curve):
        assert tensor.device.type == "cuda" and tensor.dtype == torch.float32
    assert found.curve.shape == (2, 2)


def test_heads_are_inverted_by_their_camera():
    G = tiny_eg3d(c_dim=0, img_resolution=16).requires_grad_(False)
    c = look_at([-30.0, 30.0], 0.0)
    w = G.mapping(torch.randn(1, 8, generator=rng(3))).expand(2, -1, -1)
    target = G.synthesis(w, c).image
    found = invert(G, target, InversionConfig(steps=12, noise=0.0), camera=c)
    assert (found.curve[-1] < 0.8 * found.curve[0]).all()
    torch.testing.assert_close(found.images, G.synthesis(found.latents, c).image)
    with pytest.raises(ValueError, match="0 cameras came for 2 targets of a TriPlaneGenerator"):
        invert(G, target)
    with pytest.raises(ValueError, match="2 cameras came .* expected none"):
        invert(tiny_stylegan2(), torch.zeros(2, 3, 16, 16), camera=c)
