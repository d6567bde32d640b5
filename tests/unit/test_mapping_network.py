from dataclasses import asdict

import pytest
import torch
from tiny_models import mapping_network

from dmgi_lib.mapping_network import MappingConfig, MappingNetwork
from dmgi_lib.presets import MINI, PAPER
from dmgi_lib.weight_folder import save_component


def test_starts_at_the_mean_latent():
    network = mapping_network()
    w_avg = torch.randn(16, generator=torch.Generator().manual_seed(0))
    h = torch.randn(5, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    network.calibrate(w_avg, h)
    assert torch.equal(network(h), w_avg.expand(5, 12, 16))


def test_calibration_standardises_the_input():
    network = mapping_network()
    h = 7 + 3 * torch.randn(64, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    network.calibrate(torch.zeros(16), h)
    seen = []
    network.convs.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(h)
    assert seen[0].mean().abs() < 1e-3
    assert (seen[0].std() - 1).abs() < 1e-2


def test_w_gives_equal_rows_and_w_plus_does_not():
    h = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    for latent, equal in (("w", True), ("w_plus", False)):
        network = mapping_network(latent=latent)
        torch.nn.init.normal_(network.fc.weight)
        w = network(h)
        assert w.shape == (2, 12, 16)
        assert torch.allclose(w[:, 0], w[:, 5]) == equal


def test_origin_zero_ignores_the_mean_latent():
    network = mapping_network(origin="zero")
    network.calibrate(torch.ones(16), torch.randn(4, 32, 4, 4))
    assert network(torch.randn(2, 32, 4, 4)).abs().max() == 0


@pytest.mark.parametrize("preset", [MINI, PAPER])
def test_preset_sizes(preset):
    config = preset.mapping
    network = MappingNetwork(**asdict(config))
    h = torch.zeros(1, config.in_channels, config.in_resolution, config.in_resolution)
    assert network(h).shape == (1, config.num_ws, config.w_dim)


def test_mini_is_small():
    count = sum(p.numel() for p in MappingNetwork(**asdict(MINI.mapping)).parameters())
    assert count < 4_000_000


def test_round_trip_keeps_weights_and_calibration(tmp_path):
    network = mapping_network()
    torch.nn.init.normal_(network.fc.weight)
    network.calibrate(torch.randn(16), torch.randn(8, 32, 4, 4) * 5)
    network.save_pretrained(tmp_path)
    again = MappingNetwork.from_pretrained(tmp_path)
    h = torch.randn(2, 32, 4, 4)
    assert torch.equal(again(h), network(h))


def test_a_trained_network_does_not_say_where_it_was_loaded_from(tmp_path):
    mapping_network().save_pretrained(tmp_path / "mine")
    loaded = MappingNetwork.from_pretrained(tmp_path / "mine")
    save_component(loaded, tmp_path / "theirs", "a card")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    assert len(files) == 3 and not any(str(tmp_path).encode() in held for held in files.values())
    assert MappingNetwork.from_pretrained(tmp_path / "theirs").config.width == loaded.config.width


@pytest.mark.parametrize(
    ("options", "message"),
    [({"latent": "z"}, "'z'"), ({"origin": "mean"}, "'mean'"), ({"in_resolution": 3}, "3")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MappingConfig(**options)
    with pytest.raises(ValueError, match=message):
        MappingNetwork(**options)
