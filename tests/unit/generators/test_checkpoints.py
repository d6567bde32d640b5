"""Official .pkl checkpoints: same images as their networks, and their conversion."""

import warnings
from pathlib import Path

import pytest
import torch
from fake_official import EasyDict, Persistent, official_eg3d, official_module, snapshot
from safetensors.torch import load_file
from tiny_checkpoints import EG3D_KWARGS, RENDERING, SIZES, WIDTHS, ada, eg3d, write
from tiny_checkpoints import stylegan2 as tiny
from tiny_models import rng

from dmgi_lib.generators import StyleGAN2Generator, load_generator
from dmgi_lib.generators.convert import convert, main
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.official_networks import official_config
from dmgi_lib.generators.official_pickle import OfficialModule

torch.set_num_threads(1)
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "parity"


@pytest.mark.parametrize("protocol", [3, 4])
@torch.no_grad()
def test_stylegan2_ada_pickle_gives_the_same_images(tmp_path, protocol):
    G = tiny(conv_clamp=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write(snapshot(ada(G)), tmp_path, protocol=protocol)
        loaded = load_generator(path)
    z = torch.randn(2, 8, generator=rng())
    for psi in (1.0, 0.7):
        assert torch.equal(loaded(z, truncation_psi=psi), G(z, truncation_psi=psi))
    assert {k: loaded.config[k] for k in G.config if k[0] != "_"} == {
        k: v for k, v in G.config.items() if k[0] != "_"
    }
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@torch.no_grad()
def test_stylegan3_stylegan2_pickle_gives_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setattr(Persistent, "meta_type", dict)
    G = tiny(c_dim=3, conv_clamp=0.7)
    inline = {"fused_modconv_default": "inference_only", "num_fp16_res": 0}
    official = official_module(  # conv_clamp is a default, known to the layers alone
        G, *(SIZES | {"c_dim": 3}).values(), mapping_kwargs={"num_layers": 2}, **WIDTHS, **inline
    )
    loaded = load_generator(write({"G": official, "G_ema": None}, tmp_path))
    assert loaded.config.conv_clamp == 0.7
    z, c = torch.randn(2, 8, generator=rng()), torch.eye(3)[:2]
    assert torch.equal(loaded(z, c), G(z, c))


@torch.no_grad()
def test_pickle_of_the_reference_weights_gives_the_reference_image(tmp_path):
    weights = load_file(FIXTURES / "stylegan2_weights.safetensors")
    io_ = load_file(FIXTURES / "stylegan2_io.safetensors")
    G = StyleGAN2Generator(64, 0, 64, 32, mapping_layers=4, channel_base=1024, channel_max=64)
    G.load_state_dict({k[2:]: v for k, v in weights.items() if k.startswith("G.")})
    arguments = {"mapping_kwargs": EasyDict(num_layers=4), "channel_base": 1024, "channel_max": 64}
    path = write(snapshot(official_module(G, 64, 0, 64, 32, 3, **arguments)), tmp_path)
    image = load_generator(path)(io_["z"])
    reference = io_["image_const_noise"]
    assert (image - reference).abs().max() / reference.std() < 1e-4


def test_constructor_defaults_apply_to_what_is_not_recorded():
    layer = OfficialModule("SynthesisLayer", (), {}, {"conv_clamp": 256}, {}, {})
    block = OfficialModule("SynthesisBlock", (), {}, {}, {"conv1": layer}, {})
    synthesis = OfficialModule("SynthesisNetwork", (), {}, {}, {"b4": block}, {})
    children = {"synthesis": synthesis}
    network = OfficialModule("Generator", (512, 0, 512, 1024, 3), {}, {}, children, {})
    assert official_config(network, "a file") == {
        "_class_name": "StyleGAN2Generator",
        **{"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 1024, "img_channels": 3},
        **{"mapping_layers": 8, "channel_base": 32768, "channel_max": 512, "conv_clamp": 256},
    }


@torch.no_grad()
def test_eg3d_pickle_gives_the_same_images(tmp_path):
    G = eg3d(sr_conv_clamp=2.0)
    official = official_eg3d(G, EasyDict(RENDERING, depth_resolution=48), **EG3D_KWARGS)
    official.rendering_kwargs = dict(RENDERING)  # set later: counts, not what it was built with
    loaded = load_generator(write(snapshot(official), tmp_path))
    assert isinstance(loaded, TriPlaneGenerator)
    z, c = torch.randn(2, 8, generator=rng()), look_at(yaw=[-20.0, 30.0], pitch=5.0)
    ours, theirs = G(z, c, truncation_psi=0.7), loaded(z, c, truncation_psi=0.7)
    for name in ("image", "image_raw", "image_depth"):
        assert torch.equal(getattr(theirs, name), getattr(ours, name))
    assert loaded.config.sr_conv_clamp == 2.0
    assert loaded.config.conv_clamp is None


@torch.no_grad()
def test_conversion_writes_a_whole_folder_once(tmp_path, capsys):
    G = tiny()
    path, folder = write(snapshot(ada(G)), tmp_path), tmp_path / "deep" / "folder"
    assert main([str(path), str(folder)]) == 0
    z = torch.randn(1, 8, generator=rng())
    for loaded in (load_generator(folder), StyleGAN2Generator.from_pretrained(folder)):
        assert torch.equal(loaded(z), G(z))
    assert {p.name for p in folder.parent.iterdir()} == {"folder", ".folder.lock"}
    assert not list(folder.glob("*.pkl"))

    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(FileExistsError, match="exists already"):
        convert(path, folder)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    empty = tmp_path / "empty"
    empty.mkdir()
    convert(path, empty)
    assert {p.name for p in empty.iterdir()} == {p.name for p in folder.iterdir()}

    capsys.readouterr()
    path.write_bytes(path.read_bytes()[:-1])
    assert main([str(path), str(tmp_path / "new")]) == 1
    assert "no whole pickle" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
