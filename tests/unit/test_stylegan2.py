"""StyleGAN2 generator and discriminator against the reference numbers, and their contracts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.priors.adaptive_augmentation import P_MAX, AdaptiveAugmentation
from data_prep.priors.discriminator import Discriminator, minibatch_stddev
from data_prep.priors.feature_discriminator import FeatureDiscriminator, adversarial_losses
from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.latent_prior import PriorFit, energy_distance, fit_prior
from data_prep.priors.sliced_wasserstein import sliced_wasserstein
from data_prep.priors.stylegan2_measurements import grid_sampler, measure
from data_prep.priors.stylegan2_step import Recipe, StyleGAN2Step
from dmgi_lib.evaluation.judges import Recognizer
from dmgi_lib.generators import StyleGAN2Generator, load_generator
from dmgi_lib.generators.checkpoints import WEIGHTS_NAME
from dmgi_lib.generators.stylegan2 import StyleMapping
from dmgi_lib.generators.stylegan2_layers import SynthesisLayer, _ChannelAffine
from dmgi_lib.training.loop import LoopConfig

torch.set_num_threads(1)
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "parity"


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(**changes) -> StyleGAN2Generator:
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "mapping_layers": 2}
    G = StyleGAN2Generator(**(sizes | {"channel_base": 64, "channel_max": 8} | changes))
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    G.mapping.w_avg.normal_(generator=rng(1))
    return G.eval()


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
        with pytest.raises(ValueError, match="not a whole safetensors file"):
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
    ):
        config.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            load_generator(tmp_path)
    config.write_text('{"w_dim": ')
    with pytest.raises(ValueError, match="is not JSON"):
        load_generator(tmp_path)

    other = tmp_path / "other.safetensors"
    config.unlink()
    save_file({"conv.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="official names of a StyleGAN2 generator"):
        load_generator(other)
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


def test_minibatch_stddev_by_hand():
    x = torch.tensor([0.0, 10.0, 2.0, 10.0]).view(4, 1, 1, 1)
    # groups of two: samples 0 and 2 (std 1), samples 1 and 3 (std 0)
    out = minibatch_stddev(x, group_size=2)[:, 1].flatten()
    torch.testing.assert_close(out, torch.tensor([1.0, 1e-4, 1.0, 1e-4]))
    with pytest.raises(ValueError, match="a batch of 6 came"):
        minibatch_stddev(torch.zeros(6, 1, 1, 1), group_size=4)


def test_feature_heads_give_a_logit_a_place_and_reach_every_feature():
    torch.manual_seed(0)
    heads = FeatureDiscriminator((3, 4, 5), width=6)
    features = [torch.randn(2, c, s, s, requires_grad=True) for c, s in ((3, 16), (4, 8), (5, 4))]
    logits = heads(features)
    assert logits.shape == (2, 3 * 16)
    logits.sum().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)
    with pytest.raises(ValueError):
        heads(features[:2])


def test_adversarial_loss_by_hand():
    sure = adversarial_losses(torch.tensor([[40.0]]), torch.tensor([[-40.0]]))
    wrong = adversarial_losses(torch.tensor([[-3.0]]), torch.tensor([[5.0]]))
    assert sure < 1e-6
    assert wrong.item() == pytest.approx(8.0, abs=0.06)  # softplus(x) is about x


def test_augmentation_is_identity_at_p_zero_and_differentiable_at_one():
    augmentation = AdaptiveAugmentation()
    image = torch.randn(4, 3, 16, 16, generator=rng())
    torch.testing.assert_close(augmentation(image, augmentation.draw(4, rng())), image)
    augmentation.p.fill_(1.0)
    image.requires_grad_(True)
    out = augmentation(image, augmentation.draw(4, rng()))
    assert ((out - image).abs().flatten(1).mean(dim=1) > 0.05).all()
    assert (out == 0).any()  # cutout
    out.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_augmentation_probability_follows_overfitting():
    augmentation = AdaptiveAugmentation(target=0.6, images=160, interval=2)
    for step in range(4):  # D is sure of every real image
        augmentation.observe(torch.ones(16), step)
    assert augmentation.p.item() == pytest.approx(0.4)
    for step in range(4, 20):
        augmentation.observe(torch.ones(16), step)
    assert augmentation.p.item() == pytest.approx(P_MAX)
    for step in range(20, 22):  # D is right half the time
        augmentation.observe(torch.tensor([1.0, -1.0] * 8), step)
    assert augmentation.p.item() == pytest.approx(P_MAX - 0.2)


def test_noise_on_codes_moves_w_but_little():
    torch.manual_seed(0)
    encoder = ImageEncoder(16, 4, 8, 32, 2).eval()
    images = torch.rand(32, 3, 32, 32, generator=rng()) * 2 - 1
    with torch.no_grad():
        plain, offsets = encoder(images)
        near, _ = encoder(images, 0.3, rng(1))
        assert encoder.codes(images).square().mean().item() == pytest.approx(1.0, abs=1e-3)
    assert plain.shape == offsets.shape == (32, 4, 8)
    assert 0.01 < (near - plain).square().mean() / plain.var() < 0.5


def brief_fit(steps):
    return PriorFit(
        flow_steps=steps, flow_batch=128, width=64, integration=8, pairs=1024,
        distill_steps=steps, energy_steps=steps, batch_size=128,
    )  # fmt: skip


def test_the_mapping_network_learns_to_draw_the_codes():
    """Codes on a ring, where their Gaussian has its middle."""
    torch.manual_seed(0)
    encoder = ImageEncoder(4, 2, 4, 32, 2)
    angle = torch.linspace(0, 2 * torch.pi, 256)[:, None]
    ring = torch.cat([angle.cos(), angle.sin(), 0.01 * torch.randn(256, 2, generator=rng())], 1)
    encoder.codes = lambda image: ring[image[:, 0, 0, 0].mul(127.5).add(127.5).round().long()]
    images = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    mapping = StyleMapping(4, 0, 4, 2, 2)
    found = fit_prior(mapping, encoder, images, rng(), brief_fit(1000))
    assert found["draws"] < 0.75 * found["Gaussian"]


def test_energy_distance_by_hand():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    # between: (1 + 5 + 1 + 3) / 4; within: 2 and 4
    assert energy_distance(x, y).item() == pytest.approx(2 * 2.5 - 2 - 4, abs=1e-4)


def test_sliced_wasserstein_orders_image_sets():
    first, second = torch.randn(2, 32, 3, 32, 32, generator=rng())
    same = sliced_wasserstein(first, first)
    assert same["mean"] == 0.0
    assert set(same) == {"32", "16", "mean"}
    near = sliced_wasserstein(first, second)["mean"]
    assert 0.0 < near < 0.5 * sliced_wasserstein(first * 0.5, second)["mean"]
    with pytest.raises(ValueError, match="same shape"):
        sliced_wasserstein(first, second[:3])


def test_training_step_moves_the_networks_of_its_phase():
    torch.manual_seed(0)
    G = tiny(img_resolution=32)
    modules = {
        "generator": G,
        "encoder": ImageEncoder(8, G.num_ws, 8, 32, 2),
        "discriminator": Discriminator(32, 3, channel_base=64, channel_max=8),
        "feature_discriminator": FeatureDiscriminator((8, 8, 8, 8), width=4),
        "augmentation": AdaptiveAugmentation(),
    }
    optimizers = {
        "generator": torch.optim.Adam([*G.parameters(), *modules["encoder"].parameters()], 1e-3),
        "discriminator": torch.optim.Adam(
            [
                *modules["discriminator"].parameters(),
                *modules["feature_discriminator"].parameters(),
            ],
            1e-3,
        ),
    }
    images = torch.randint(0, 256, (16, 3, 32, 32), generator=rng(), dtype=torch.uint8)
    config = LoopConfig(Path("unused"), minutes=1.0, batch_size=8)
    masks = torch.randint(0, 19, (16, 32, 32), generator=rng(), dtype=torch.uint8)
    networks = (Recognizer(channels=(4, 8, 8, 8, 8)), modules, optimizers)
    recipe = Recipe(warmup_images=8, prior=brief_fit(2))
    step = StyleGAN2Step(images, masks, *networks, recipe, config)

    def snapshot():
        return {
            k: torch.cat([p.detach().flatten() for p in m.parameters()])
            for k, m in modules.items()
            if k != "augmentation"
        }

    before = snapshot()
    first = step(0, rng(0))
    warm = snapshot()
    assert set(first) == {"reconstruction", "offsets", "perceptual", "parsing"}
    assert torch.equal(before["discriminator"], warm["discriminator"])
    assert not torch.equal(before["encoder"], warm["encoder"])
    step.recipe = replace(recipe, r1_interval=1)
    second = step(1, rng(1))
    after = snapshot()
    assert {"D", "D_features", "G", "G_features", "r1", "matching", "reconstruction"} <= set(second)
    moved = {k for k in warm if not torch.equal(warm[k], after[k])}
    assert moved == {"generator", "discriminator", "feature_discriminator"}


def test_warm_start_grows():
    step = object.__new__(StyleGAN2Step)
    step.recipe = Recipe(warmup_images=100, growth=((8, 0.5), (16, 0.8)))
    for resolution, expected in ((32, [8, 8, 16, 16, 32]), (16, [8, 8, 16, 16, 16])):
        step.G = tiny(img_resolution=resolution)
        assert [step.warmup_resolution(seen) for seen in (0, 49, 50, 79, 80)] == expected


def test_measurements_and_grid_have_the_promised_shape():
    G = tiny(z_dim=128, img_resolution=32)
    encoder = ImageEncoder(128, G.num_ws, 8, 32, 2).eval()
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=rng(), dtype=torch.uint8)
    with torch.no_grad():
        grid = grid_sampler(images)(0, {"generator": G, "encoder": encoder})
    assert grid.shape == (8 * 32, 8 * 32, 3)
    row = torch.from_numpy(grid).unflatten(0, (8, 32))[5].unflatten(1, (8, 32)).permute(1, 3, 0, 2)
    assert torch.equal(row, images)
    figures = measure(G, encoder, images, images)
    floor = next(v for k, v in figures.items() if "floor" in k)
    assert floor == 0.0  # the same images on both sides
    assert all(v > 0 for k, v in figures.items() if "floor" not in k)
