"""What the denoisers train on: timesteps, noise, captions."""

import pytest
import torch
from tiny_priors import SMALL

from data_prep.priors.denoiser import LatentSet, stratified_timesteps
from data_prep.priors.recipe import Folders
from data_prep.priors.unet import UNet, build_scheduler


def test_terminal_snr_is_zero_and_velocity_is_salimans_and_ho():
    scheduler = build_scheduler()
    alpha = scheduler.alphas_cumprod
    assert alpha[-1].item() == pytest.approx(0.0, abs=1e-12)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([999, 400])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    noisy = scheduler.add_noise(latents, noise, t)
    velocity = scheduler.get_velocity(latents, noise, t)
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


def test_missing_priors_are_named(tiny_faces, tmp_path):
    with pytest.raises(FileNotFoundError, match="trainer text_image"):
        UNet(SMALL["unet"], Folders(tiny_faces, tmp_path), torch.device("cpu"))
