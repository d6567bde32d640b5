"""Parts of the diffusion priors' training: norms, noise, captions, losses, pictures."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from data_prep.priors import train_autoencoder, train_controlnet, train_unet
from data_prep.priors.face_parts import region
from data_prep.priors.group_norm import FastGroupNorm, use_fast_group_norm
from data_prep.priors.latents import LatentSet, noised, stratified_timesteps
from data_prep.priors.sampling import picture_grid
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import CLASSES, PALETTE


def test_fast_group_norm_equals_group_norm():
    torch.manual_seed(0)
    usual = nn.GroupNorm(4, 16, eps=1e-6)
    nn.init.normal_(usual.weight)
    nn.init.normal_(usual.bias)
    fast = use_fast_group_norm(nn.Sequential(copy.deepcopy(usual)))
    assert type(fast[0]) is FastGroupNorm
    x, dy = 2.0 * torch.randn(3, 16, 6, 5) + 1.0, torch.randn(3, 16, 6, 5)
    results = []
    for norm in (usual, fast):
        given = x.clone(memory_format=torch.channels_last).requires_grad_()
        y = norm(given)
        y.backward(dy)
        grads = [p.grad for p in norm.parameters()]
        results.append([y.detach(), given.grad, *grads])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_fast_group_norm_keeps_bf16_accuracy():
    torch.manual_seed(0)
    usual = nn.GroupNorm(2, 8)
    fast = use_fast_group_norm(nn.Sequential(copy.deepcopy(usual)))
    x, dy = torch.randn(2, 8, 32, 32) + 2.0, torch.randn(2, 8, 32, 32)
    results = []
    for norm, dtype in ((usual, torch.float32), (fast, torch.bfloat16)):
        given = x.to(dtype, memory_format=torch.channels_last).requires_grad_()
        norm(given).backward(dy.to(dtype))
        grads = [given.grad, *(p.grad for p in norm.parameters())]
        results.append([norm(given).detach(), *grads])
    for expected, got in zip(*results, strict=True):
        assert ((got.float() - expected).norm() / expected.norm()).item() < 0.01


def test_terminal_snr_is_zero_and_velocity_is_salimans_and_ho(tmp_path):
    scheduler = train_unet.build_scheduler()
    alpha = scheduler.alphas_cumprod
    assert alpha[-1].item() == pytest.approx(0.0, abs=1e-12)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([999, 400])
    noisy, velocity = noised(scheduler, latents, t, torch.Generator().manual_seed(2))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(noisy[0], noise[0])
    torch.testing.assert_close(velocity[0], -latents[0])
    a, s = alpha[400].sqrt(), (1 - alpha[400]).sqrt()
    torch.testing.assert_close(velocity[1], a * noise[1] - s * latents[1])
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999


def test_timesteps_cover_the_range_evenly():
    t = stratified_timesteps(10, 1000, torch.Generator().manual_seed(0))
    assert sorted((t // 100).tolist()) == list(range(10))
    assert t.tolist() != sorted(t.tolist())


def test_captions_belong_to_their_image_and_drop_out():
    states = torch.arange(6.0).view(6, 1, 1).half()
    empty = torch.full((1, 1, 1), -1.0)
    data = LatentSet(torch.zeros(6, 4, 2, 2), states, torch.tensor([0, 1, 4, 6]), empty)
    rng = torch.Generator().manual_seed(0)
    rows = torch.tensor([0, 1, 2, 3, 4, 5]).repeat(200)
    drawn = data.captions(rows, rng, 0.0).flatten()
    for row, allowed in {0: {0}, 1: {1, 2, 3}, 2: {4, 5}}.items():
        assert {int(v) for v in drawn[rows % 3 == row]} == allowed
    dropped = (data.captions(rows, rng, 0.1).flatten() == -1).float().mean().item()
    assert 0.06 < dropped < 0.14


def test_pyramid_l1_by_hand():
    weight = torch.ones(1, 1, 4, 4)
    flat = torch.full((1, 3, 4, 4), 0.5)
    assert train_autoencoder.pyramid_l1(flat, weight, (1.0, 1.0)).item() == pytest.approx(0.5)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert train_autoencoder.pyramid_l1(checks, weight, (1.0, 1.0)).item() == pytest.approx(1.0)
    assert train_autoencoder.pyramid_l1(checks, 3 * weight, (0.0, 1.0)).item() == 0.0


def test_region_reaches_its_margin():
    mask = torch.zeros(1, 9, 9, dtype=torch.uint8)
    mask[0, 4, 4] = CLASSES.index("l_eye")
    found = region(mask, ("l_eye",), margin=2)[0, 0]
    assert found.sum() == 25 and found[2, 2] == 1 and found[1, 4] == 0


def test_mirrored_conditions_swap_sides(tiny_faces):
    dataset = FaceDataset(tiny_faces, "test")
    conditions = train_controlnet.Conditions(dataset, "mask")
    plain, mirrored = conditions(torch.tensor([0, len(dataset)]))
    left, right = (
        torch.tensor(PALETTE[CLASSES.index(f"{side}_eye")] / 255.0).float() for side in "lr"
    )
    for picture in (plain, mirrored):  # l_eye lies on the right side of the image, before and after
        columns = (picture == left[:, None, None]).all(0).any(0).nonzero().float().mean()
        others = (picture == right[:, None, None]).all(0).any(0).nonzero().float().mean()
        assert columns > others
    assert not torch.equal(plain, mirrored)
    scribbles = train_controlnet.Conditions(dataset, "scribble")
    plain, mirrored = scribbles(torch.tensor([3, 3 + len(dataset)]))
    assert torch.equal(plain.flip(-1), mirrored) and set(plain.unique().tolist()) == {0.0, 1.0}


def test_picture_grid_places_rows_and_columns():
    rows = [torch.full((3, 3, 2, 2), 10 * r, dtype=torch.uint8) for r in range(2)]
    rows[1][2] = 99
    grid = picture_grid(rows)
    assert grid.shape == (4, 6, 3) and grid.dtype == np.uint8
    assert grid[0, 0, 0] == 0 and grid[3, 0, 0] == 10 and grid[3, 5, 2] == 99
