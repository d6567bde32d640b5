"""EG3D's super-resolution: its variants and what steers it."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import rng

from dmgi_lib.generators.eg3d.super_resolution import SameSizeBlock, SuperResolution


@pytest.mark.parametrize(("side", "start", "doubles"), [(16, 8, False), (16, 4, True)])
@torch.no_grad()
def test_super_resolution_variants(side, start, doubles):
    torch.manual_seed(0)
    network = SuperResolution(5, (6, 4), 8, start, side)
    assert isinstance(network.block0, SameSizeBlock) != doubles
    assert network.block0.conv0.noise_const.shape == (8, 8)
    features, ws = torch.randn(1, 5, 8, 8, generator=rng()), torch.randn(1, 3, 8, generator=rng())
    image = network(features, features[:, :3], ws)
    assert image.shape == (1, 3, side, side)
    for name, buffer in network.named_buffers():  # noise is off
        if name.endswith("noise_const"):
            buffer.zero_()
    ws[:, :-1] = 0  # only the last row steers
    assert torch.equal(network(features, features[:, :3], ws), image)
    ws[:, -1] += 1
    assert not torch.allclose(network(features, features[:, :3], ws), image)
    large = F.interpolate(features, (32, 32), mode="bilinear")
    resized = network(large, large[:, :3], ws)
    assert resized.shape == image.shape
    network.antialias = False
    assert not torch.allclose(network(large, large[:, :3], ws), resized)
    state = network.state_dict()
    del state["resample_filter"]  # some official variants do not store it
    network.load_state_dict(state)


def test_same_size_block_keeps_the_image():
    torch.manual_seed(0)
    network = SuperResolution(5, (6, 4), 8, 8, 16)
    network.block0.torgb.weight.data.zero_()
    image = torch.randn(1, 3, 8, 8, generator=rng())
    x, kept = network.block0(
        torch.randn(1, 5, 8, 8, generator=rng()), image, torch.zeros(1, 3, 8), "none", None
    )
    assert x.shape == (1, 6, 8, 8)
    assert torch.equal(kept, image)
