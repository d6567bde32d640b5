"""Training of the 2D prior: adversary, augmentation, mapping network's fit, steps, measurements."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import rng
from tiny_models import tiny_stylegan2 as tiny

from data_prep.priors.adaptive_augmentation import P_MAX, AdaptiveAugmentation
from data_prep.priors.discriminator import Discriminator, minibatch_stddev
from data_prep.priors.feature_discriminator import FeatureDiscriminator, adversarial_losses
from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.latent_prior import PriorFit, energy_distance, fit_prior
from data_prep.priors.sliced_wasserstein import sliced_wasserstein
from data_prep.priors.stylegan2_measurements import grid_sampler, measure, set_typical_latent
from data_prep.priors.stylegan2_recipe import Recipe
from data_prep.priors.stylegan2_step import StyleGAN2Step
from dmgi_lib.generators import StyleGAN2Generator
from dmgi_lib.generators.stylegan2 import StyleMapping
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopConfig


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


def test_the_centre_of_truncation_is_a_code_where_codes_lie_close():
    """Codes on a circle, a tenth of them close together: their mean is no code."""
    angle = torch.cat([torch.linspace(0, 6, 90), torch.linspace(3.0, 3.02, 10)])
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    G = StyleGAN2Generator(z_dim=2, w_dim=2, img_resolution=8, channel_base=64, channel_max=8)
    G.mapping.forward = lambda z: circle[: len(z), None].expand(-1, G.num_ws, -1)
    set_typical_latent(G, count=100)
    assert (circle[90:] == G.mean_latent).all(dim=1).any()


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
