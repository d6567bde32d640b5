"""Tri-planes and their decoder by hand."""

import torch
from tiny_models import rng

from dmgi_lib.generators.eg3d.planes import PAPER_AXES, TriPlaneDecoder, sample_planes


def test_planes_carry_the_axes_xy_xz_zx():
    ramp = ((torch.arange(8.0) + 0.5) / 4 - 1).expand(8, 8)  # the coordinate at each pixel centre
    points = (
        torch.tensor([[[0.5, -0.25, 0.125]]]) * 0.6
    )  # box_warp 2 · 0.6: planes see this × 1/0.6
    for plane, (horizontal, vertical) in enumerate(((0.5, -0.25), (0.5, 0.125), (0.125, 0.5))):
        planes = torch.zeros(1, 3, 2, 8, 8)
        planes[0, plane] = torch.stack([ramp, ramp.T])
        expected = torch.tensor([[[horizontal, vertical]]]) / 3
        torch.testing.assert_close(sample_planes(planes, points, box_warp=1.2), expected)
    outside = torch.tensor([[[2.0, 2.0, 2.0]]])
    assert (sample_planes(torch.ones(1, 3, 2, 8, 8), outside, 1.0) == 0).all()


def test_decoder_ranges():
    torch.manual_seed(0)
    rgb, sigma = TriPlaneDecoder(16, 8, 16)(100 * torch.randn(1, 50, 16, generator=rng()))
    assert rgb.shape == (1, 50, 16)
    assert sigma.shape == (1, 50, 1)
    assert rgb.min() >= -0.00101
    assert rgb.max() <= 1.00101
    assert rgb.max() > 1


def test_the_papers_planes_carry_yz():
    ramp = ((torch.arange(8.0) + 0.5) / 4 - 1).expand(8, 8)
    planes = torch.zeros(1, 3, 2, 8, 8)
    planes[0, 2] = torch.stack([ramp, ramp.T])
    found = sample_planes(planes, torch.tensor([[[0.5, -0.25, 0.125]]]), 2.0, PAPER_AXES)
    torch.testing.assert_close(found, torch.tensor([[[-0.25, 0.125]]]) / 3)
