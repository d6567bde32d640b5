"""Codes of training pictures: the encoder's own, in the order of the samples."""

import torch
from safetensors.torch import load_file

from data_prep.priors import codes
from data_prep.priors.latent_prior import ImageEncoder
from dmgi_lib.dataset import to_float


def test_codes_are_the_encoders_with_what_differs_by_row(dataset, tmp_path):
    torch.manual_seed(0)
    encoder = ImageEncoder(8, 6, 16, 128, 2).eval()
    torch.nn.init.normal_(encoder.offsets.weight)
    encoder.save_pretrained(tmp_path / "encoder")
    codes.main(tmp_path / "encoder", dataset.root, tmp_path / "codes.safetensors", device="cpu")
    found = load_file(tmp_path / "codes.safetensors")["codes"]
    assert found.shape == (len(dataset), 6, 16)
    with torch.no_grad():
        ws, offsets = encoder(to_float(dataset.images[3:5]))
    torch.testing.assert_close(found[3:5], ws + offsets, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found[3], found[4], atol=1e-2)
