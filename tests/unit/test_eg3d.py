"""EG3D generator: against the reference numbers, its parts by hand, and its contracts."""

import copy
import gzip
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, load_file

from dmgi_lib.generators import load_generator
from dmgi_lib.generators import volume_rendering as rendering
from dmgi_lib.generators.cameras import camera_rays, look_at
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.super_resolution import SameSizeBlock, SuperResolution
from dmgi_lib.generators.tri_planes import TriPlaneDecoder, sample_planes
from dmgi_lib.generators.volume_rendering import RenderingConfig, render_rays

torch.set_num_threads(1)
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "parity"
FEW = RenderingConfig(8, 8)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(**changes) -> TriPlaneGenerator:
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "w_dim": 8, "img_resolution": 16, "channel_base": 64, "channel_max": 8}
    planes = {"plane_resolution": 16, "plane_channels": 4, "decoder_hidden": 8}
    rest = {"feature_channels": 5, "neural_rendering_resolution": 8, "sr_channels": (6, 4)}
    G = TriPlaneGenerator(**(sizes | planes | rest | {"rendering": FEW} | changes))
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    G.mean_latent.normal_(generator=rng(1))
    return G.eval()


def latents(G: TriPlaneGenerator, count: int = 2) -> torch.Tensor:
    return torch.randn(count, G.num_ws, G.w_dim, generator=rng(2))


@pytest.fixture(scope="module")
def io() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "eg3d_io.safetensors")


@pytest.fixture(scope="module")
def reference() -> TriPlaneGenerator:
    G = TriPlaneGenerator(
        z_dim=64,
        img_resolution=128,
        channel_base=1024,
        channel_max=32,
        neural_rendering_resolution=32,
        sr_channels=(128, 64),
        rendering=RenderingConfig(12, 12),
    )
    weights = load(gzip.decompress((FIXTURES / "eg3d_weights.safetensors.gz").read_bytes()))
    assert G.state_dict().keys() == weights.keys()
    G.load_state_dict(weights)
    return G.eval().requires_grad_(False)


def error(ours: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    assert ours.shape == expected.shape
    return (ours - expected).abs() / expected.std()


def test_mapping_parity(reference, io):
    ws = reference.mapping(io["z"], io["camera"], truncation_psi=0.7)
    assert error(ws, io["ws"]).max() < 1e-4


def test_planes_parity(reference, io):
    planes = reference.planes(io["ws"]).flatten(1, 2)
    assert error(F.avg_pool2d(planes, 16), io["planes_16x16"]).max() < 1e-4


def test_point_query_parity(reference, io):
    rgb, sigma = reference.sample(io["points"], io["ws"])
    assert error(rgb, io["points_rgb"]).max() < 1e-4
    assert error(sigma, io["points_sigma"]).max() < 1e-4


def test_ray_parity(io):
    origins, directions = camera_rays(io["camera"], 32)
    assert error(origins, io["ray_origins"]).max() < 1e-4
    assert error(directions, io["ray_directions"]).max() < 1e-4


def test_rendering_parity(reference, io):
    """The image agrees to 1e-4; a few of the 9,216 raw values and 3,072 depths need not.

    On a ray through almost nothing 1 - exp(-x) comes in units of 6e-8, of which the whole ray has a
    few thousand, so one unit moves its depth by up to 4e-4; and where x lies at the border of two
    units, the last digit of the planes decides (see the next tests). No order of operations mends
    that: per-sample kernels, demodulation before or after the convolution, one image at a time, no
    oneDNN, the published formulas term by term, or planes, decoder and exponentials computed in
    double precision left 7 to 22 raw values and 4 to 11 depths beyond, the farthest at 3.8e-4.
    """
    out = reference.synthesis(io["ws"], io["camera"])
    assert error(out.image, io["image"]).max() < 1e-4
    for name in ("image_raw", "image_depth"):
        found = error(getattr(out, name), io[name]).flatten()
        assert (found > 1e-4).float().mean() < 0.01
        assert found.median() < 1e-5
        assert found.max() < 1e-3


def test_reference_is_sensitive_to_the_last_digit(reference, io):
    planes = reference.planes(io["ws"])
    ulp = planes * (1 + 6e-8 * torch.randn(planes.shape, generator=rng()).sign())
    first, second = (reference.synthesis(io["ws"], io["camera"], planes=p) for p in (planes, ulp))
    assert error(second.image_raw, first.image_raw).max() > 5e-5


def test_closer_to_the_reference_than_the_reference_is_to_exact_arithmetic(reference, io):
    exact = copy.deepcopy(reference).double()
    truth = exact.synthesis(io["ws"].double(), io["camera"].double())
    out = reference.synthesis(io["ws"], io["camera"])
    for name in ("image", "image_raw", "image_depth"):
        ours, expected = getattr(out, name), io[name]
        distance = (ours - expected).square().mean().sqrt()
        rounding = (expected - getattr(truth, name)).square().mean().sqrt()
        assert distance < rounding / 5


def test_bf16_autocast_stays_within_two_percent(reference, io):
    expected = reference.synthesis(io["ws"], io["camera"]).image
    with torch.autocast("cpu", torch.bfloat16):
        image = reference.synthesis(io["ws"], io["camera"]).image
    assert image.dtype == torch.float32
    assert 1e-5 < (image - expected).norm() / expected.norm() < 0.02


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


def ball(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense ball of radius 0.3 whose colour is its position."""
    return points, 4e5 * (0.3 - points.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (70.0, 0.0), (-30.0, 40.0)])
def test_rendered_ball(yaw, pitch):
    c = look_at(yaw, pitch)[None]
    color, depth = render_rays(ball, *camera_rays(c, 17), RenderingConfig(64, 64))
    color, depth = color.unflatten(1, (17, 17)), depth.unflatten(1, (17, 17))[..., 0]
    assert depth[0, 8, 8] == pytest.approx(2.7 - 0.3, abs=0.01)
    assert depth[0, 0, 0] == pytest.approx(3.3)  # nothing there: the far end
    assert color[0, 0, 0].abs().max() == 0
    facing = c[0, :16].view(4, 4)[:3, 3] / 2.7 * 0.3
    torch.testing.assert_close(color[0, 8, 8], facing, atol=0.01, rtol=0)


def test_picture_is_upright():
    color, _ = render_rays(ball, *camera_rays(look_at(0.0, 0.0)[None], 16), RenderingConfig(64, 64))
    color = color.unflatten(1, (16, 16))[0]
    assert color[8, 11, 0] > 0.1  # the person's left is on the right
    assert color[4, 8, 1] > 0.1  # up is up


def test_weights_of_a_uniform_medium():
    depths = torch.tensor([1.0, 1.5, 1.75, 3.0], dtype=torch.float64)
    raw = torch.full((4,), 1.0, dtype=torch.float64)  # softplus(1 − 1) = ln 2
    weights = rendering.interval_weights(raw, depths)
    expected = 0.5 ** (depths[:-1] - 1) - 0.5 ** (depths[1:] - 1)
    torch.testing.assert_close(weights, expected)


def test_colour_is_the_mean_of_an_intervals_ends():
    """Two passes, sorted together, against the plain sums over sorted samples."""

    def field(points):
        z = points[..., 2:]
        return torch.cat([z.sin(), z.cos()], dim=-1), 3 * (5 * z).cos()

    origins, directions = torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0.0, 1.0], [0.6, 0.0, 0.8]]])
    config = RenderingConfig(6, 5, 1.0, 2.0, white_back=True)
    color, depth = render_rays(field, origins, directions, config)
    coarse = torch.linspace(1, 2, 6).expand(1, 2, 6)

    def at(t):
        return field(origins[:, :, None] + t[..., None] * directions[:, :, None])

    weights = rendering.interval_weights(at(coarse)[1][..., 0], coarse)
    quantiles = torch.linspace(0, 1, 5).expand(1, 2, 5)
    fine = rendering.importance_depths(coarse, weights, quantiles)
    t = torch.cat([coarse, fine], dim=-1).sort().values
    colors, sigma = at(t)
    weights = rendering.interval_weights(sigma[..., 0], t)[..., None]
    middle = (colors[:, :, 1:] + colors[:, :, :-1]) / 2
    torch.testing.assert_close(color, (weights * middle).sum(2) + 1 - weights.sum(2))
    middle = (t[..., 1:] + t[..., :-1])[..., None] / 2
    torch.testing.assert_close(depth, (weights * middle).sum(2) / weights.sum(2))


def test_fine_samples_follow_the_weights():
    depths = torch.linspace(0, 1, 11, dtype=torch.float64).expand(1, 1, 11)
    weights = torch.zeros(1, 1, 10, dtype=torch.float64)
    weights[..., 5] = 1.0  # between 0.5 and 0.6
    quantiles = torch.linspace(0, 1, 101, dtype=torch.float64).expand(1, 1, 101)
    fine = rendering.importance_depths(depths, weights, quantiles)[0, 0]
    assert (fine.diff() > 0).all()
    assert fine[0] == pytest.approx(0.05)
    assert fine[-1] == pytest.approx(0.85)
    assert ((fine > 0.35) & (fine < 0.65)).double().mean() > 0.9
    # Equal weights make equal bins.
    even = rendering.importance_depths(depths, torch.ones_like(weights), quantiles)[0, 0]
    torch.testing.assert_close(even, torch.linspace(0.05, 0.85, 101, dtype=torch.float64))


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


def test_chunks_keep_the_budget():
    sizes = []

    def counting(points):
        sizes.append(points.shape[0] * points.shape[1])
        return ball(points)

    origins, directions = camera_rays(look_at([0.0, 10.0], 0.0), 16)
    render_rays(counting, origins, directions, FEW, max_points=1000)
    assert max(sizes) <= 500  # half of the samples are coarse, half fine
    assert sum(sizes) == 2 * 256 * 16


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


def test_jittered_depths_stay_in_their_bins():
    depths = []

    def recording(points):
        depths.append(-points[..., 2])
        return points, torch.zeros_like(points[..., :1])

    origins, directions = torch.zeros(1, 50, 3), torch.tensor([0.0, 0.0, -1.0]).expand(1, 50, 3)
    config = RenderingConfig(5, 0, 1.0, 2.0)
    render_rays(recording, origins, directions, config, deterministic=False, generator=rng())
    position = (depths[0].view(50, 5) - 1) / 0.25 - torch.arange(5)
    assert ((position >= -1e-5) & (position <= 1 + 1e-5)).all()
    assert position.std() > 0.2


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


@pytest.mark.parametrize(("side", "start", "doubles"), [(16, 8, False), (16, 4, True)])
@torch.no_grad()
def test_super_resolution_variants(side, start, doubles):
    torch.manual_seed(0)
    network = SuperResolution(5, (6, 4), 8, start, side)
    assert isinstance(network.block0, SameSizeBlock) != doubles
    assert network.block0.conv0.noise_const.shape == (8, 8)
    features, ws = torch.randn(1, 5, 8, 8, generator=rng()), torch.randn(1, 3, 8, generator=rng())
    image = network(features, features[:, :3], ws)
    assert image.shape == (1, 3, side, side)
    for name, buffer in network.named_buffers():  # noise is off
        if name.endswith("noise_const"):
            buffer.zero_()
    ws[:, :-1] = 0  # only the last row steers
    assert torch.equal(network(features, features[:, :3], ws), image)
    ws[:, -1] += 1
    assert not torch.allclose(network(features, features[:, :3], ws), image)
    large = F.interpolate(features, (32, 32), mode="bilinear")
    resized = network(large, large[:, :3], ws)
    assert resized.shape == image.shape
    network.antialias = False
    assert not torch.allclose(network(large, large[:, :3], ws), resized)
    state = network.state_dict()
    del state["resample_filter"]  # some official variants do not store it
    network.load_state_dict(state)


def test_same_size_block_keeps_the_image():
    torch.manual_seed(0)
    network = SuperResolution(5, (6, 4), 8, 8, 16)
    network.block0.torgb.weight.data.zero_()
    image = torch.randn(1, 3, 8, 8, generator=rng())
    x, kept = network.block0(
        torch.randn(1, 5, 8, 8, generator=rng()), image, torch.zeros(1, 3, 8), "none", None
    )
    assert x.shape == (1, 6, 8, 8)
    assert torch.equal(kept, image)


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
