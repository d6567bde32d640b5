"""The autoencoder's loss, its standardised latents and its measurements."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_priors import SMALL

from data_prep.priors.autoencoder import (
    Autoencoder,
    build_autoencoder,
    measure,
    pyramid_l1,
    reconstruct,
    standardise_latents,
)
from data_prep.priors.recipe import Folders
from dmgi_lib.dataset import FaceDataset


def test_pyramid_l1_by_hand():
    weight = torch.ones(1, 1, 4, 4)
    flat = torch.full((1, 3, 4, 4), 0.5)
    assert pyramid_l1(flat, weight, (1.0, 1.0)).item() == pytest.approx(0.5)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert pyramid_l1(checks, weight, (1.0, 1.0)).item() == pytest.approx(1.0)
    assert pyramid_l1(checks, 3 * weight, (0.0, 1.0)).item() == 0.0


def test_standardised_latents_leave_reconstructions_unchanged():
    torch.manual_seed(0)
    vae = build_autoencoder(SMALL["autoencoder"]).eval()
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    before = reconstruct(vae, images).float()
    spread = vae.encode(images / 127.5 - 1).latent_dist.std.mean((0, 2, 3))
    deviation = vae.encode(images / 127.5 - 1).latent_dist.mean.transpose(0, 1).flatten(1).std(1)
    standardise_latents(vae, images)
    after = reconstruct(vae, images).float()
    assert (after - before).abs().max() <= 1
    posterior = vae.encode(images / 127.5 - 1).latent_dist
    latents = posterior.mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(1), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(posterior.std.mean((0, 2, 3)), spread / deviation)
    assert vae.config.scaling_factor == pytest.approx(1.0, abs=1e-2)


class Darker:
    """An autoencoder whose pictures are a fifth of the range darker."""

    device = torch.device("cpu")

    def encode(self, image):
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=image))

    def decode(self, latents):
        return SimpleNamespace(sample=latents - 0.4)


@pytest.fixture
def step(tiny_faces, tmp_path):
    """Parts of the autoencoder that a step moves, and what it decodes, by the settings changed."""

    def taken(**changes):
        settings = replace(SMALL["autoencoder"], **changes)
        recipe = Autoencoder(settings, Folders(tiny_faces, tmp_path), torch.device("cpu"))
        before = {name: p.clone() for name, p in recipe.vae.named_parameters()}
        decoded, decode = [], recipe.vae.decode
        recipe.vae.decode = lambda latents: decoded.append(latents) or decode(latents)
        recipe.step(0, torch.Generator().manual_seed(0))
        now = dict(recipe.vae.named_parameters())
        moved = {name.split(".")[0] for name, p in before.items() if not p.equal(now[name])}
        return moved, decoded[0]

    return taken


def test_the_decoder_alone_leaves_the_latents_as_they_are(step):
    everything, _ = step()
    assert everything == {"encoder", "quant_conv", "post_quant_conv", "decoder"}
    alone, _ = step(decoder_only=True)
    assert alone == {"post_quant_conv", "decoder"}


def test_noise_is_added_to_the_latents(step):
    alone, noisy = (step(latent_noise=noise)[1].std().item() for noise in (0.0, 3.0))
    assert noisy == pytest.approx((alone**2 + 9) ** 0.5, rel=0.05)


def test_a_critic_learns_to_tell_pictures_from_decoded_ones(tiny_faces, weights_of_loss_net):
    seen = weights_of_loss_net / "loss_net"
    settings = replace(SMALL["autoencoder"], decoder_only=True, perceptual=seen)
    folders, cpu = Folders(tiny_faces, weights_of_loss_net), torch.device("cpu")
    moved = {}
    for weight in (0.0, 1e4):  # nothing but the critic counts
        recipe = Autoencoder(replace(settings, adversarial_weight=weight), folders, cpu)
        start = recipe.vae.decoder.conv_out.weight.clone()
        log = recipe.step(0, torch.Generator().manual_seed(0))
        moved[weight] = recipe.vae.decoder.conv_out.weight - start
    assert not torch.equal(moved[0.0].sign(), moved[1e4].sign())
    first = log["critic"]
    for step in range(1, 30):
        log = recipe.step(step, torch.Generator().manual_seed(step))
    assert log["critic"] < first
    assert all(p.grad is None for p in recipe.loss_net.parameters())


def test_a_critic_without_a_loss_network_is_refused(tiny_faces, tmp_path):
    settings = replace(SMALL["autoencoder"], adversarial_weight=0.1)
    with pytest.raises(ValueError, match="came as 0.1 without --perceptual"):
        Autoencoder(settings, Folders(tiny_faces, tmp_path), torch.device("cpu"))


def test_measurements_by_hand(tiny_faces):
    dataset = FaceDataset(tiny_faces, "test")
    found = measure(Darker(), dataset)
    darker = (dataset.images.int() - 51).clamp(min=0)
    error = (darker - dataset.images.int()).abs().float() / 255
    assert found["L1, test"] == pytest.approx(error.mean().item(), rel=1e-2)
    assert found["PSNR at the eyes, test (dB)"] == pytest.approx(-20 * math.log10(0.2), abs=1.0)
