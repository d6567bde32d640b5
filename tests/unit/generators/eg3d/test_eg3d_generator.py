"""EG3D generator: sizes, inputs, repeatability, gradients and storage."""

import copy
import json
from dataclasses import asdict

import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_models import FEW, rng
from tiny_models import tiny_eg3d as tiny

from dmgi_lib.generators import load_generator
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d import volume_rendering as rendering
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.volume_rendering import RenderingConfig

torch.set_num_threads(1)


def latents(G: TriPlaneGenerator, count: int = 2) -> torch.Tensor:
    return torch.randn(count, G.num_ws, G.w_dim, generator=rng(2))


def test_sizes_of_the_release_and_of_the_mini_preset():
    with torch.device("meta"):
        release = TriPlaneGenerator()
    shapes = {name: tuple(v.shape) for name, v in release.state_dict().items()}
    assert release.num_ws == 14
    assert shapes["backbone.mapping.embed.weight"] == (512, 25)
    assert shapes["backbone.mapping.fc1.weight"] == (512, 512)
    assert shapes["backbone.synthesis.b256.torgb.weight"] == (96, 128, 1, 1)
    assert shapes["decoder.net.2.weight"] == (33, 64)
    assert shapes["superresolution.block0.conv0.weight"] == (256, 32, 3, 3)
    assert shapes["superresolution.block1.conv1.noise_const"] == (512, 512)

    torch.manual_seed(0)
    mini = TriPlaneGenerator(
        z_dim=128,
        w_dim=128,
        img_resolution=128,
        channel_base=2048,
        channel_max=128,
        plane_resolution=64,
        plane_channels=16,
        feature_channels=16,
        neural_rendering_resolution=32,
        sr_channels=(32, 16),
        rendering=RenderingConfig(12, 12),
    )
    with torch.no_grad():
        out = mini(torch.randn(1, 128, generator=rng()), look_at(10.0, 0.0)[None])
    assert mini.num_ws == 10
    assert out.image.shape == (1, 3, 128, 128)
    assert out.image_raw.shape == (1, 3, 32, 32)
    assert out.image_depth.shape == (1, 1, 32, 32)
    assert ((out.image_depth > 2.25) & (out.image_depth < 3.3)).all()


@torch.no_grad()
def test_chunks_change_nothing():
    G = tiny()
    ws, c = latents(G), look_at([0.0, 30.0], 5.0)
    for deterministic in (True, False):
        outputs = [
            G.synthesis(ws, c, 16, generator=rng(4), deterministic=deterministic, max_points=points)
            for points in (None, 1000, 1)
        ]
        for other in outputs[1:]:
            torch.testing.assert_close(asdict(other), asdict(outputs[0]), atol=1e-5, rtol=0)
    points = torch.rand(2, 77, 3, generator=rng()) - 0.5
    torch.testing.assert_close(G.sample(points, ws, max_points=20), G.sample(points, ws))
    assert G.sample(points[:, :0], ws)[0].shape == (2, 0, 5)


@torch.no_grad()
def test_jitter_takes_a_generator():
    G = tiny()
    ws, c = latents(G, 1), look_at([0.0], 0.0)

    def draw(seed):
        return G.synthesis(ws, c, generator=rng(seed), deterministic=False).image

    fixed = G.synthesis(ws, c).image
    assert torch.equal(fixed, G.synthesis(ws, c, generator=rng(5)).image)
    assert torch.equal(draw(5), draw(5))
    assert not torch.allclose(draw(5), draw(6))
    assert not torch.allclose(draw(5), fixed)


@torch.no_grad()
def test_camera_enters_only_the_rendering():
    G = tiny()
    ws = latents(G, 1)
    c = look_at([-40.0, 40.0], 0.0)
    views = G.synthesis(ws.expand(2, -1, -1), c)
    assert not torch.allclose(views.image[0], views.image[1], atol=1e-2)
    again = G.synthesis(ws, c[1:], planes=G.planes(ws))
    torch.testing.assert_close(again.image[0], views.image[1])


@torch.no_grad()
def test_mapping_conditions_on_the_camera():
    z = torch.randn(2, 8, generator=rng())
    c = look_at([-30.0, 30.0], 0.0)
    G = tiny()
    ws = G.mapping(z, c)
    assert ws.shape == (2, G.num_ws, 8)
    assert not torch.allclose(ws, G.mapping(z, c.flip(0)))
    half = tiny(c_scale=0.5)
    torch.testing.assert_close(half.mapping(z, 2 * c), ws)
    blind = tiny(c_gen_conditioning_zero=True)
    torch.testing.assert_close(blind.mapping(z), G.mapping(z, torch.zeros(2, 25)))
    assert torch.equal(blind.mapping(z, c), blind.mapping(z))
    unconditional = tiny(c_dim=0)
    assert torch.equal(unconditional.mapping(z, c), unconditional.mapping(z))


@torch.no_grad()
def test_truncation():
    G = tiny()
    z, c = torch.randn(2, 8, generator=rng()), look_at([0.0, 5.0], 0.0)
    full, zero = G.mapping(z, c), G.mapping(z, c, truncation_psi=0.0)
    assert torch.equal(zero, G.mean_latent.expand_as(zero))
    cut = G.mapping(z, c, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(cut[:, :2], (G.mean_latent + full[:, :2]) / 2)
    assert torch.equal(cut[:, 2:], full[:, 2:])


@torch.no_grad()
def test_noise_modes_reach_the_backbone():
    G = tiny()
    ws = latents(G, 1)
    const, none = G.planes(ws), G.planes(ws, "none")
    assert not torch.allclose(const, none)
    c = look_at([0.0], 0.0)
    first = G.synthesis(ws, c, noise_mode="random", generator=rng(5)).image
    assert torch.equal(first, G.synthesis(ws, c, noise_mode="random", generator=rng(5)).image)
    assert not torch.allclose(
        first, G.synthesis(ws, c, noise_mode="random", generator=rng(6)).image
    )


def test_gradient_to_w_plus(monkeypatch):
    torch.manual_seed(0)
    G = TriPlaneGenerator(
        z_dim=3,
        w_dim=3,
        img_resolution=8,
        channel_base=16,
        channel_max=2,
        plane_resolution=8,
        plane_channels=2,
        decoder_hidden=3,
        feature_channels=3,
        neural_rendering_resolution=2,
        sr_channels=(2, 2),
        rendering=RenderingConfig(4, 3),
    )
    for parameter in G.parameters():
        parameter.data = parameter.data.double()
    for module in G.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.double())
    G.requires_grad_(False)
    # Where fine samples lie carries no gradient, so finite differences must not move them.
    fine = torch.linspace(2.3, 3.1, 3, dtype=torch.float64)
    monkeypatch.setattr(
        rendering, "importance_depths", lambda depths, *_: fine.expand(*depths.shape[:2], 3)
    )
    ws = torch.randn(1, G.num_ws, 3, generator=rng(), dtype=torch.float64, requires_grad=True)
    c = look_at([15.0], 5.0).double()

    def everything(x):
        out = G.synthesis(x, c, max_points=14)
        return out.image, out.image_raw, out.image_depth

    assert torch.autograd.gradcheck(everything, (ws,))


def test_gradients_are_the_same_in_chunks():
    G = tiny()
    c = look_at([15.0, -15.0], 5.0)
    gradients = []
    for points in (None, 500):
        ws = latents(G).requires_grad_(True)
        out = G.synthesis(ws, c, generator=rng(), deterministic=False, max_points=points)
        out.image.square().mean().backward()
        gradients.append(ws.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
@torch.no_grad()
def test_half_precision_draws_the_same_view(dtype, tolerance):
    G = tiny()
    ws, c = latents(G), look_at([0.0, 20.0], 0.0)
    expected = G.synthesis(ws, c)
    half = copy.deepcopy(G).to(dtype)
    out = half.synthesis(ws.to(dtype), c.to(dtype))
    for name in ("image", "image_raw", "image_depth"):
        came, should = getattr(out, name), getattr(expected, name)
        assert came.dtype == torch.float32
        assert (came - should).norm() / should.norm() < tolerance
    points = torch.rand(2, 7, 3, generator=rng()) - 0.5
    assert half.sample(points, ws.to(dtype))[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_everything_happens_on_the_generators_device(dtype, monkeypatch):
    # what a camera says cannot be read off tensors without values
    monkeypatch.setattr("dmgi_lib.generators.eg3d.generator.validate_camera", lambda c: None)
    sizes = {"z_dim": 8, "w_dim": 8, "img_resolution": 16, "channel_base": 64, "channel_max": 8}
    sizes |= {"plane_resolution": 16, "plane_channels": 4, "neural_rendering_resolution": 4}
    with fake_cuda():
        G = on_cuda(TriPlaneGenerator(**sizes, sr_channels=(6, 4), rendering=FEW), dtype)
        c = torch.zeros(2, 25)  # as from look_at, on the CPU
        ws = G.mapping(torch.zeros(2, 8), c, truncation_psi=0.5)
        for options in ({}, {"deterministic": False, "noise_mode": "random"}):
            out = G.synthesis(ws.cpu(), c, **options)
            assert {v.device.type for v in vars(out).values()} == {"cuda"}
        assert G.sample(torch.zeros(2, 7, 3), ws.cpu())[1].device.type == "cuda"


@torch.no_grad()
def test_save_pretrained_round_trip(tmp_path):
    G = tiny(sr_conv_clamp=256)
    ws, c = latents(G), look_at([0.0, 20.0], 0.0)
    image = G.synthesis(ws, c).image
    G.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["rendering"] == asdict(FEW)
    for loaded in (TriPlaneGenerator.from_pretrained(tmp_path), load_generator(tmp_path)):
        assert loaded.rendering == FEW
        assert torch.equal(loaded.synthesis(ws, c).image, image)
        assert torch.equal(loaded.mean_latent, G.mean_latent)


def test_bad_inputs_are_named():
    G = tiny()
    ws, c = latents(G), look_at([0.0, 20.0], 0.0)
    for change, message in (
        ({"ws": ws[:, 0]}, r"ws \(2, 8\) and cameras \(2, 25\) came"),
        ({"ws": ws[:, 1:]}, r"expected \(B, \*\(6, 8\)\)"),
        ({"c": c[:1]}, "with the same B"),
        ({"c": c * 2}, "last row"),
        ({"noise_mode": "constant"}, "noise_mode came as 'constant'"),
        ({"max_points": 0}, "max_points came as 0"),
        ({"planes": torch.zeros(2, 4, 4, 4)}, "planes came as"),
        ({"neural_rendering_resolution": -1}, "resolution came as -1"),
    ):
        with pytest.raises(ValueError, match=message):
            G.synthesis(**({"ws": ws, "c": c} | change))
    with pytest.raises(ValueError, match="label c came as nothing"):
        G.mapping(torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"points came as \(1, 5, 3\); expected \(2, P, 3\)"):
        G.sample(torch.zeros(1, 5, 3), ws)
    for change, message in (
        ({"c_dim": 3}, "c_dim came as 3"),
        ({"feature_channels": 2}, "feature_channels came as 2"),
        ({"plane_resolution": 128}, "channel_base came as 64"),
        ({"plane_resolution": 20}, "power of two"),
        ({"sr_input_resolution": 3}, "sr_input_resolution came as 3 for images of 16"),
        ({"sr_channels": (4,)}, r"sr_channels came as \(4,\)"),
        ({"rendering": {"depth_resolution": 3}}, "depth_resolution=3"),
        ({"rendering": {"ray_start": 4.0}}, r"ray_start=4\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**change)
