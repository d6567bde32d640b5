"""Training stages on a tiny dataset and tiny random networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import generator
from tiny_training import CONFIG, loop, trainer

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import to_float
from dmgi_lib.devices import autocast
from dmgi_lib.masks import flip_mask
from dmgi_lib.presets import MINI
from dmgi_lib.style_modulation import POOLS
from dmgi_lib.training import stages
from dmgi_lib.training.feature_cache import build
from dmgi_lib.training.features import CacheConfig
from dmgi_lib.training.losses import (
    AttributeLoss,
    CodePrior,
    LossWeights,
    parts_loss,
    step_probabilities,
)
from dmgi_lib.training.online_features import OnlineFeatures
from dmgi_lib.training.run_files import read_log
from dmgi_lib.training.stage_terms import mirrored
from dmgi_lib.training.stage_trainer import StageConfig, StageTrainer


def test_early_cache_costs_one_pass_and_cannot_feed_stage_2(pipe, dataset, tmp_path, loss_net):
    config = CacheConfig(steps=(0,), num_inference_steps=3, shard_size=4)
    passes = []
    handle = pipe.unet.register_forward_pre_hook(lambda m, args: passes.append(1))
    early = build(config, pipe, dataset, tmp_path, batch_size=4)
    handle.remove()
    assert len(passes) == 3  # 10 samples in batches of 4, 4 and 2
    assert early.batch(torch.tensor([0]), torch.tensor([0])).diffusion_images is None
    with pytest.raises(ValueError, match="I_0"):
        trainer(2, early, dataset, loss_net)
    assert trainer(1, early, dataset, loss_net).slots.tolist() == [0]


def test_held_out_identities_are_never_trained_on(cache, dataset, loss_net):
    t = trainer(1, cache, dataset, loss_net)
    trained = set(cache.samples[t.train_entries].tolist())
    assert trained == set(range(8))
    assert cache.samples[t.test_entries].tolist() == [8, 9]


def test_stage_1_starts_at_the_mean_face_and_learns(cache, dataset, loss_net, tmp_path):
    t = trainer(1, cache, dataset, loss_net)
    batch = cache.batch(torch.arange(4), torch.zeros(4, dtype=torch.long))
    w = t.codes(batch, t.networks)
    assert torch.equal(w, t.generator.mean_latent.expand_as(w))
    before = t.measure({})
    result = t.fit(loop(tmp_path, max_steps=25, learning_rate=3e-3))
    assert t.terms.total(
        {k: torch.tensor(v) for k, v in _mean_over_steps(t.measure(result.ema)).items()}
    ) < t.terms.total({k: torch.tensor(v) for k, v in _mean_over_steps(before).items()})
    assert all(p.grad is None for p in t.generator.parameters())
    assert all(p.grad is None for p in loss_net.parameters())


def _mean_over_steps(measured: dict[str, float]) -> dict[str, float]:
    names = {name.split(" @ ")[0] for name in measured}
    return {n: float(np.mean([v for k, v in measured.items() if k.startswith(n)])) for n in names}


def test_stage_2_starts_at_m_and_keeps_m_frozen(cache, dataset, loss_net, tmp_path):
    m = trainer(1, cache, dataset, loss_net).networks["mapping_network"]
    torch.nn.init.normal_(m.fc.weight, std=0.05)
    before = {k: v.clone() for k, v in m.state_dict().items()}
    t = trainer(2, cache, dataset, loss_net, m)
    batch = cache.batch(torch.arange(4), torch.ones(4, dtype=torch.long))
    assert torch.equal(t.codes(batch, t.networks), m(batch.h))
    t.fit(loop(tmp_path, max_steps=2))
    assert not torch.equal(t.codes(batch, t.networks), m(batch.h))
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    assert {"l2 (I_0^d)", "perceptual (I_0^d)", "perceptual (I)", "identity (I)"} <= set(
        t.terms(batch, m(batch.h), t.draw(m(batch.h)))
    )


def test_stage_3_trains_both_with_shares_by_step(cache, dataset, loss_net, tmp_path):
    first = trainer(1, cache, dataset, loss_net).networks["mapping_network"]
    second = trainer(2, cache, dataset, loss_net, first).networks["style_modulation"]
    t = trainer(3, cache, dataset, loss_net, first, second)
    early, late = (cache.batch(torch.arange(4), torch.full((4,), slot)) for slot in (0, 1))
    w = t.codes(early, t.networks)
    image = t.draw(w)
    e, late_terms = t.terms(early, w, image), t.terms(late, w, image)
    ratio = e["l2 (I)"] / late_terms["l2 (I)"]
    assert torch.allclose(ratio, torch.full((4,), 0.25 / 0.75), atol=1e-3)
    result = t.fit(loop(tmp_path, max_steps=2))
    assert set(result.ema) == {"mapping_network", "style_modulation"}
    assert t.sample_grid(0, result.ema).shape == (5 * 128, 2 * 128, 3)


def test_same_seed_same_curve(cache, dataset, loss_net, tmp_path):
    curves = []
    for run_dir in ("a", "b"):
        t = trainer(1, cache, dataset, loss_net)
        t.fit(loop(tmp_path / run_dir, max_steps=3))
        rows = (tmp_path / run_dir / "log.csv").read_text().splitlines()[1:]
        curves.append([row.split(",")[2] for row in rows])
    assert curves[0] == curves[1] and len(curves[0]) == 3


def test_the_code_prior_pulls_only_where_it_is_asked_to(cache, dataset, loss_net, tmp_path):
    batch = cache.batch(torch.arange(4), torch.zeros(4, dtype=torch.long))
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(code_prior=0.0))
    w = plain.generator.mean_latent.expand(4, 12, -1).clone() + 0.3
    assert "code_prior" not in plain.terms(batch, w, plain.draw(w))
    t = trainer(1, cache, dataset, loss_net, weights=LossWeights(code_prior=0.1, row_growth=4.0))
    terms = t.terms(batch, w, t.draw(w))
    expected = CodePrior.of(t.generator, row_growth=4.0)(w)
    assert torch.equal(terms["code_prior"], expected)
    without = {name: value for name, value in terms.items() if name != "code_prior"}
    added = t.terms.total(terms) - t.terms.total(without)
    assert added.item() == pytest.approx(0.1 * expected.mean().item(), rel=1e-3)
    t.fit(loop(tmp_path, max_steps=1))
    assert "code_prior" in read_log(tmp_path / "log.csv")


def test_the_caption_of_each_entry_says_which_attributes_it_asks_for(cache, dataset, loss_net):
    t = trainer(1, cache, dataset, loss_net)
    entries = torch.arange(8)
    batch = cache.batch(entries, torch.zeros(8, dtype=torch.long))
    assert set(batch.caption.tolist()) == {0, 1}  # both captions were drawn
    w = t.codes(batch, t.networks)
    image = t.draw(w)
    says = [dataset.captions[i][k] for i, k in zip(batch.sample, batch.caption, strict=True)]
    with autocast(image.device.type):  # as the terms are computed
        expected = AttributeLoss(loss_net.eval())(image, claimed(says))
    torch.testing.assert_close(t.terms(batch, w, image)["attributes"], expected)
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(attributes=0.0))
    assert "attributes" not in plain.terms(batch, w, image)


def test_parts_are_those_of_the_mask_and_can_be_left_out(cache, dataset, loss_net):
    t = trainer(1, cache, dataset, loss_net)
    batch = cache.batch(torch.arange(8), torch.zeros(8, dtype=torch.long))
    w = t.codes(batch, t.networks)
    image = t.draw(w)
    target = to_float(mirrored(dataset.images, batch))
    expected = parts_loss(image, target, mirrored(dataset.masks, batch, flip_mask))
    assert expected.max() > 0
    torch.testing.assert_close(t.terms(batch, w, image)["parts"], expected)
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(parts=0.0))
    assert "parts" not in plain.terms(batch, w, image)


def test_mirrored_entries_get_mirrored_targets(cache, dataset):
    batch = cache.batch(torch.tensor([3, 13]), torch.tensor([0, 0]))
    images = mirrored(dataset.images, batch)
    assert torch.equal(images[0], dataset.images[3])
    assert torch.equal(images[1], dataset.images[3].flip(-1))


def test_missing_parts_are_named(cache, dataset, loss_net, tmp_path):
    with pytest.raises(ValueError, match="run stage 1"):
        trainer(2, cache, dataset, loss_net)
    with pytest.raises(ValueError, match=r"\[1\]"):
        trainer(1, cache, dataset, loss_net, steps=(1,))
    with pytest.raises(ValueError, match="4"):
        StageConfig(4)
    with pytest.raises(FileNotFoundError, match="train_stylegan2"):
        stages.required_part(tmp_path, "generator", "data_prep.priors.trainer stylegan2")


def test_a_stage_trains_online(pipe, dataset, loss_net, tmp_path):
    online = OnlineFeatures(CONFIG, pipe, dataset, views=1)
    t = trainer(1, online, dataset, loss_net)
    t.fit(loop(tmp_path, max_steps=2))
    w = t.codes(online.batch(torch.arange(2), torch.zeros(2, dtype=torch.long)), t.networks)
    assert not torch.equal(w, t.generator.mean_latent.expand_as(w))


def test_options_of_the_stages(cache, dataset, loss_net):
    shares = [step_probabilities((0, 9), 10, name) for name in ("uniform", "early", "late")]
    assert [share.tolist() for share in shares] == [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]
    m = trainer(1, cache, dataset, loss_net).networks["mapping_network"]
    batch = cache.batch(torch.arange(4), torch.ones(4, dtype=torch.long))
    found = {}
    for targets in ("both", "diffusion", "image"):
        t = trainer(2, cache, dataset, loss_net, m, targets=targets)
        w = t.codes(batch, t.networks)
        found[targets] = {name.split("(")[-1] for name in t.terms(batch, w, t.draw(w))}
    assert "I)" in found["both"] and "I_0^d)" in found["both"]
    assert "I)" not in found["diffusion"] and "I_0^d)" not in found["image"]
    sizes = MINI.mapping, MINI.modulation
    single = replace(sizes[0], latent="w"), replace(sizes[1], paths="local", pool=POOLS[1])
    t = StageTrainer(StageConfig(2, held_out=2), cache, dataset, generator(), loss_net, m, None,
                     *single)  # fmt: skip
    assert t.networks["style_modulation"].config.paths == "local" and t._pool == POOLS[1]
    for bad in ({"sampling": "x"}, {"targets": "x"}):
        with pytest.raises(ValueError, match="expected one of"):
            StageConfig(1, **bad)
