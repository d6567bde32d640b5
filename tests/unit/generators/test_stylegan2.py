"""StyleGAN2 generator and discriminator against the reference numbers, and their contracts."""

import copy
import json
from pathlib import Path

import pytest
import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from tiny_devices import fake_cuda, on_cuda
from tiny_models import rng
from tiny_models import tiny_stylegan2 as tiny

from data_prep.priors.discriminator import Discriminator
from dmgi_lib.generators import StyleGAN2Generator, load_generator
from dmgi_lib.generators.stylegan2_layers import SynthesisLayer, _ChannelAffine

torch.set_num_threads(1)
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "parity"


@pytest.fixture(scope="module")
def io() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "stylegan2_io.safetensors")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "stylegan2_weights.safetensors")


@pytest.fixture(scope="module")
def G(weights) -> StyleGAN2Generator:
    G = StyleGAN2Generator(64, 0, 64, 32, mapping_layers=4, channel_base=1024, channel_max=64)
    G.load_state_dict({k[2:]: v for k, v in weights.items() if k.startswith("G.")})
    return G.eval().requires_grad_(False)


def assert_parity(ours: torch.Tensor, reference: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() / reference.std() < tolerance


@pytest.mark.parametrize(("psi", "name"), [(1.0, "ws"), (0.7, "ws_psi07")])
def test_mapping_parity(G, io, psi, name):
    assert_parity(G.mapping(io["z"], truncation_psi=psi), io[name])


@pytest.mark.parametrize(
    ("latents", "mode", "name"),
    [
        ("ws", "const", "image_const_noise"),
        ("ws", "none", "image_no_noise"),
        ("w_plus", "const", "image_w_plus"),
    ],
)
def test_synthesis_parity(G, io, latents, mode, name):
    assert_parity(G.synthesis(io[latents], noise_mode=mode), io[name])


def test_discriminator_parity(weights, io):
    D = Discriminator(32, 3, channel_base=1024, channel_max=64)
    D.load_state_dict({k[2:]: v for k, v in weights.items() if k.startswith("D.")})
    with torch.no_grad():
        assert_parity(D(io["d_input"]), io["d_logits"])


def test_bf16_autocast_stays_within_two_percent(G, io):
    with torch.autocast("cpu", torch.bfloat16):
        image = G.synthesis(io["ws"])
    reference = io["image_const_noise"]
    assert image.dtype == torch.float32
    assert 1e-5 < (image - reference).norm() / reference.norm() < 0.02


@pytest.mark.parametrize(("resolution", "rows"), [(4, 2), (16, 6), (128, 12), (1024, 18)])
def test_num_ws(resolution, rows):
    G = tiny(img_resolution=resolution, channel_base=1024, channel_max=4)
    assert G.num_ws == rows
    assert G.mapping(torch.randn(2, 8, generator=rng())).shape == (2, rows, 8)


def test_equal_rows_of_w_plus_are_w_and_every_row_matters():
    G = tiny()
    w = torch.randn(1, 8, generator=rng())
    ws = w[:, None].repeat(1, G.num_ws, 1)
    with torch.no_grad():
        image = G.synthesis(ws)
        torch.testing.assert_close(G.synthesis(w[:, None].expand(-1, G.num_ws, -1)), image)
        for row in range(G.num_ws):
            changed = ws.clone()
            changed[:, row] += 1.0
            assert (G.synthesis(changed) - image).abs().max() > 1e-3


@torch.no_grad()
def test_truncation():
    G = tiny()
    z = torch.randn(3, 8, generator=rng())
    full, mean = G.mapping(z), G.mean_latent
    zero = G.mapping(z, truncation_psi=0.0)
    assert torch.equal(zero, mean.expand_as(zero))
    assert torch.equal(G.synthesis(zero)[0], G.synthesis(zero)[2])
    cut = G.mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(cut[:, :2], mean + 0.5 * (full[:, :2] - mean))
    assert torch.equal(cut[:, 2:], full[:, 2:])
    assert torch.equal(G.mapping(z, truncation_psi=0.5, truncation_cutoff=0), full)


@torch.no_grad()
def test_noise_modes():
    G = tiny()
    ws = G.mapping(torch.randn(2, 8, generator=rng()))
    const, none = G.synthesis(ws), G.synthesis(ws, noise_mode="none")
    first = G.synthesis(ws, noise_mode="random", generator=rng(5))
    assert torch.equal(const, G.synthesis(ws, noise_mode="const"))
    assert torch.equal(first, G.synthesis(ws, noise_mode="random", generator=rng(5)))
    for other in (const, none, G.synthesis(ws, noise_mode="random", generator=rng(6))):
        assert not torch.allclose(first, other)
    assert not torch.allclose(const, none)


@torch.no_grad()
def test_synthesis_up_to_a_resolution_is_the_skip_image_of_that_block():
    G = tiny()
    ws = G.mapping(torch.randn(2, 8, generator=rng()))
    small = G.synthesis(ws, resolution=8)
    assert small.shape == (2, 3, 8, 8)
    G.synthesis.b16.torgb.weight.zero_()  # then the last block only enlarges what came before
    G.synthesis.b16.torgb.bias.zero_()
    assert torch.allclose(G.synthesis(ws), G.synthesis.b16.upsample(small), atol=1e-6)
    with pytest.raises(ValueError, match=r"resolution came as 12; expected one of \[4, 8, 16\]"):
        G.synthesis(ws, resolution=12)


@torch.no_grad()
def test_label_conditions_mapping():
    G = tiny(c_dim=3)
    z = torch.randn(2, 8, generator=rng())
    labels = torch.eye(3)[:2]
    assert G.mapping.fc0.weight.shape == (8, 16)
    assert not torch.allclose(G.mapping(z, labels), G.mapping(z, labels.flip(0)))


def test_demodulation_gives_unit_variance_whatever_the_style():
    torch.manual_seed(0)
    layer = SynthesisLayer(64, 64, 8, 32)
    x = torch.randn(2, 64, 32, 32, generator=rng())
    w = torch.stack([torch.zeros(8), 9.0 * torch.ones(8)])
    with torch.no_grad():
        out = layer(x, w, "none", None)
    # E[(√2 lrelu(n))²] = 1 + 0.2² for a standard normal n
    assert out.square().mean(dim=(1, 2, 3)) == pytest.approx([1.04, 1.04], rel=0.05)


def test_conv_clamp_limits_features():
    torch.manual_seed(0)
    layer = SynthesisLayer(4, 4, 8, 8, conv_clamp=0.5)
    x = torch.randn(1, 4, 8, 8, generator=rng())
    assert layer(x, torch.randn(1, 8, generator=rng()), "none", None).abs().max() == 0.5


@pytest.mark.parametrize("mode", ["const", "none"])
def test_gradient_to_w_plus(mode):
    G = tiny(img_resolution=8, channel_base=16, channel_max=2, w_dim=3, z_dim=3).double()
    G.requires_grad_(False)
    ws = torch.randn(1, G.num_ws, 3, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: G.synthesis(x, noise_mode=mode), (ws,))


def test_gradients_of_channel_affine():
    def draw(*shape):
        return torch.randn(shape, generator=rng(), dtype=torch.float64, requires_grad=True)

    x, scale, bias = draw(2, 3, 4, 4), draw(2, 3), draw(3)
    for noise in (draw(1, 4, 4), draw(2, 4, 4), None):
        assert torch.autograd.gradcheck(_ChannelAffine.apply, (x, scale, noise, bias))
    assert torch.autograd.gradgradcheck(_ChannelAffine.apply, (x, scale, None, None))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
@torch.no_grad()
def test_half_precision_draws_the_same_image(G, io, dtype, tolerance):
    half = copy.deepcopy(G).to(dtype)
    ws = half.mapping(io["z"], truncation_psi=0.7)
    assert ws.dtype == half.mean_latent.dtype == dtype
    for mode in ("const", "none", "random"):
        image = half.synthesis(io["ws"].to(dtype), mode, rng())
        expected = G.synthesis(io["ws"], mode, rng())
        assert image.dtype == torch.float32
        assert (image - expected).norm() / expected.norm() < tolerance


@torch.no_grad()
def test_large_styles_stay_finite_in_fp16():
    torch.manual_seed(0)
    layer = SynthesisLayer(512, 4, 8, 8)
    layer.affine.bias.fill_(300.0)
    x, w = 20 * torch.randn(1, 512, 8, 8, generator=rng()), torch.zeros(1, 8)
    expected = layer(x, w, "none", None)
    half = layer.half()(x.half(), w.half(), "none", None).float()
    assert (half - expected).norm() / expected.norm() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_everything_happens_on_the_generators_device(dtype):
    sizes = {"z_dim": 8, "w_dim": 8, "img_resolution": 16, "channel_base": 64, "channel_max": 8}
    with fake_cuda():
        G = on_cuda(StyleGAN2Generator(c_dim=3, **sizes), dtype)
        ws = G.mapping(torch.zeros(2, 8), torch.zeros(2, 3), truncation_psi=0.5)
        assert ws.device.type == "cuda"
        for mode in ("const", "none", "random"):
            image = G.synthesis(ws.cpu(), mode)
            assert image.device.type == "cuda"
            assert image.is_contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_dim": 0}, "z_dim came as 0; expected a whole number from 1 to 16384"),
        ({"w_dim": 10**7}, "w_dim came as 10000000"),
        ({"mapping_layers": 10**7}, "mapping_layers came as 10000000; expected .* 1 to 64"),
        ({"img_resolution": "16"}, "img_resolution came as '16'; expected a whole number"),
        ({"img_resolution": 2**40}, "img_resolution came as 1099511627776"),
        ({"channel_max": 8.0}, r"channel_max came as 8\.0"),
        ({"c_dim": True}, "c_dim came as True"),
        ({"w_dim": [8] * 10**6}, r"w_dim came as \[8, 8, .*\.\.\.\]"),
    ],
)
def test_impossible_sizes_are_refused_before_anything_is_built(change, message, monkeypatch):
    monkeypatch.setattr(
        torch.nn.Module, "add_module", lambda *_: pytest.fail("something was built")
    )
    with pytest.raises(ValueError, match=message):
        StyleGAN2Generator(**({"img_resolution": 16, "channel_base": 64} | change))


@torch.no_grad()
def test_save_pretrained_round_trip(tmp_path):
    G = tiny()
    ws = G.mapping(torch.randn(2, 8, generator=rng()))
    image = G.synthesis(ws)
    G.save_pretrained(tmp_path)
    for loaded in (StyleGAN2Generator.from_pretrained(tmp_path), load_generator(tmp_path)):
        assert torch.equal(loaded.synthesis(ws), image)
        assert torch.equal(loaded.mean_latent, G.mean_latent)
    tiny().half().save_pretrained(tmp_path)
    half = load_generator(tmp_path)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    for dtype in (torch.float16, torch.bfloat16):
        network = load_generator(tmp_path, device="cpu", dtype=dtype)
        assert {t.dtype for t in (*network.parameters(), *network.buffers())} == {dtype}
        assert network.synthesis(ws).isfinite().all()
    assert not half.training
    assert not any(p.requires_grad for p in half.parameters())
    torch.testing.assert_close(half.synthesis(ws), image, atol=0.02, rtol=0.02)


def test_sizes_are_read_off_a_bare_file(weights, io, tmp_path):
    file = tmp_path / "released.safetensors"
    save_file(weights, file)  # holds G. and D.
    G = load_generator(file)
    assert (G.config.z_dim, G.config.img_resolution, G.config.mapping_layers) == (64, 32, 4)
    assert (G.config.channel_base, G.config.channel_max) == (1024, 64)
    with torch.no_grad():
        assert_parity(G.synthesis(io["ws"]), io["image_const_noise"])


def test_damaged_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no generator at"):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_generator(tmp_path)

    tiny().save_pretrained(tmp_path)
    config, file = tmp_path / "config.json", tmp_path / WEIGHTS_NAME
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:5], b""):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a safetensors file"):
            load_generator(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors file"):
        load_generator(tmp_path)

    file.write_bytes(whole)
    good = json.loads(config.read_text())
    for change, message in (
        ({"w_dim": 9}, "do not fit its config"),
        ({"_class_name": "UNet2DModel"}, "names the class 'UNet2DModel'"),
        ({"colour": 1}, r"unknown to StyleGAN2Generator: \['colour'\]"),
        ({"img_resolution": 20}, "power of two"),
        ({"img_resolution": "16"}, "img_resolution came as '16'"),
        ({"mapping_layers": 10**7}, "mapping_layers came as 10000000"),
        ({"w_dim": 10**7}, "w_dim came as 10000000"),
        ({"z_dim": 0}, "z_dim came as 0"),
        ({"w_dim": 2**14, "mapping_layers": 64}, "do not fit its config"),  # 64 GB if it were built
        ({"_class_name": ["StyleGAN2Generator"]}, r"names the class \['StyleGAN2Generator'\]"),
    ):
        config.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            load_generator(tmp_path)
    config.write_text("[]")
    with pytest.raises(ValueError, match="holds a list; expected a dict"):
        load_generator(tmp_path)
    config.write_text('{"w_dim": ')
    with pytest.raises(ValueError, match="no JSON"):
        load_generator(tmp_path)

    other = tmp_path / "other.safetensors"
    config.unlink()
    save_file({"conv.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="official names of a StyleGAN2 generator"):
        load_generator(other)
    official = load_file(file)
    save_file(official | {"synthesis.b1099511627776.torgb.weight": torch.zeros(3, 1, 1, 1)}, other)
    with pytest.raises(ValueError, match="makes no generator: channel_base came as 1099511627776"):
        load_generator(other)
    save_file(official | {"mapping.w_avg": torch.zeros([])}, other)
    with pytest.raises(ValueError, match="official names with tensors of another shape"):
        load_generator(other)
    official["mapping.fc1.weight"][0, 0] = float("nan")
    save_file(official, other)
    with pytest.raises(ValueError, match=r"tensor mapping\.fc1\.weight of .* holds NaN"):
        load_generator(other)
    official["mapping.fc1.weight"][0, 0] = 1e6
    save_file(official, other)
    with pytest.raises(ValueError, match=r"infinite numbers in torch\.float16"):
        load_generator(other, dtype=torch.float16)
    renamed = tmp_path / "network.txt"
    renamed.write_bytes(whole)
    with pytest.raises(ValueError, match=r"suffix '\.txt'"):
        load_generator(renamed)


def test_bad_inputs_are_named():
    G = tiny()
    with pytest.raises(ValueError, match=r"z came as \(2, 9\); expected \(B, 8\)"):
        G.mapping(torch.zeros(2, 9))
    with pytest.raises(ValueError, match=r"Repeat w for every style row"):
        G.synthesis(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="noise_mode came as 'constant'"):
        G.synthesis(torch.zeros(1, G.num_ws, 8), noise_mode="constant")
    with pytest.raises(ValueError, match="label c came as nothing"):
        tiny(c_dim=3).mapping(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="power of two"):
        tiny(img_resolution=24)
    with pytest.raises(ValueError, match="channel_base"):
        tiny(img_resolution=128, channel_base=64)
