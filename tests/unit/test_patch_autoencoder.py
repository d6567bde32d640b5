"""The autoencoder on patches: images in and out, latents of every size, a place in pipelines."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tiny_models import face_mask, pipeline

from dmgi_lib import DMGIPipeline
from dmgi_lib.patch_autoencoder import PatchAutoencoderKL, downscaling
from dmgi_lib.weight_folder import check_weights, write_model_index

SIZES = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": (8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 128,
}


def patched(latent_channels=4):
    torch.manual_seed(0)
    return PatchAutoencoderKL(
        in_channels=12, out_channels=12, latent_channels=latent_channels, **SIZES
    ).eval()


@torch.no_grad()
def test_it_is_diffusers_autoencoder_on_patches():
    vae, plain = patched(), AutoencoderKL(in_channels=12, out_channels=12, **SIZES).eval()
    plain.load_state_dict(vae.state_dict())
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    latent = vae.encode(image).latent_dist.mean
    assert latent.shape == (2, 4, 4, 6) and downscaling(vae) == 8
    assert torch.equal(latent, plain.encode(F.pixel_unshuffle(image, 2)).latent_dist.mean)
    decoded = vae.decode(latent).sample
    assert decoded.shape == image.shape
    assert torch.equal(F.pixel_unshuffle(decoded, 2), plain.decode(latent).sample)
    assert torch.equal(vae.decode(latent, return_dict=False)[0], decoded)


@torch.no_grad()
def test_of_pixels_it_is_diffusers_own():
    torch.manual_seed(0)
    plain = AutoencoderKL(**SIZES).eval()
    same = PatchAutoencoderKL(**SIZES).eval()
    same.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(same(image).sample, plain(image).sample)
    assert downscaling(plain) == downscaling(same) == 4


def test_a_pipeline_saves_and_loads_it(tmp_path):
    pipe = pipeline(vae=patched())
    assert pipe.image_size == 8 * pipe.unet.config.sample_size
    pipe.save_pretrained(tmp_path)
    again = DMGIPipeline.from_pretrained(tmp_path)
    assert isinstance(again.vae, PatchAutoencoderKL)
    latents = torch.randn(1, 4, 16, 16)
    torch.testing.assert_close(again.decode_latents(latents), pipe.decode_latents(latents))
    picture = again("a face", mask=face_mask(), num_inference_steps=2, exit_step=1)
    assert picture.images[0].size == pipe("a face", mask=face_mask(), exit_step=0).images[0].size


def test_its_index_names_the_class_of_its_settings(tmp_path):
    pipeline(vae=patched()).save_pretrained(tmp_path)
    assert write_model_index(tmp_path)["vae"] == ["dmgi_lib", "PatchAutoencoderKL"]
    pipeline().save_pretrained(tmp_path)
    assert write_model_index(tmp_path)["vae"] == ["diffusers", "AutoencoderKL"]


def test_an_index_of_another_package_is_refused(tmp_path):
    pipeline(vae=patched()).save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"dmgi_lib",\n    "Patch', '"evil",\n    "Patch'))
    with pytest.raises(ValueError, match=r"vae is \['evil', 'PatchAutoencoderKL'\]; expected"):
        check_weights(tmp_path)
