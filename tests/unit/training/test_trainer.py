"""Training stages on tiny random networks, of pictures and of heads, and on fake CUDA tensors."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_devices import fake_cuda, on_cuda
from tiny_models import generator, mapping_network, style_modulation, tiny_eg3d
from tiny_training import CONFIG, loop, trainer
from tiny_views import write_views

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.generators.eg3d.cameras import mirrored_camera
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.presets import MINI
from dmgi_lib.style_modulation import POOLS
from dmgi_lib.training.feature_cache import build
from dmgi_lib.training.features import CacheConfig, OnlineFeatures
from dmgi_lib.training.losses import step_probabilities
from dmgi_lib.training.run_files import read_log
from dmgi_lib.training.supervision import StageConfig, StageTerms
from dmgi_lib.training.trainer import StageTrainer
from dmgi_lib.weight_folder import required_part


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
        t.terms(batch, m(batch.h), t.draw(m(batch.h), batch))
    )


def test_stage_3_trains_both_with_shares_by_step(cache, dataset, loss_net, tmp_path):
    first = trainer(1, cache, dataset, loss_net).networks["mapping_network"]
    second = trainer(2, cache, dataset, loss_net, first).networks["style_modulation"]
    t = trainer(3, cache, dataset, loss_net, first, second)
    early, late = (cache.batch(torch.arange(4), torch.full((4,), slot)) for slot in (0, 1))
    w = t.codes(early, t.networks)
    image = t.draw(w, early)
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


def test_missing_parts_are_named(cache, dataset, loss_net, tmp_path):
    with pytest.raises(ValueError, match="run stage 1"):
        trainer(2, cache, dataset, loss_net)
    with pytest.raises(ValueError, match=r"\[1\]"):
        trainer(1, cache, dataset, loss_net, steps=(1,))
    with pytest.raises(ValueError, match="4"):
        StageConfig(4)
    with pytest.raises(FileNotFoundError, match="trainer stylegan2"):
        required_part(tmp_path, "generator", "data_prep.priors.trainer stylegan2")


def test_a_stage_trains_online(pipe, dataset, loss_net, tmp_path):
    online = OnlineFeatures(CONFIG, pipe, dataset, views=1)
    t = trainer(1, online, dataset, loss_net)
    t.fit(loop(tmp_path, max_steps=2))
    w = t.codes(online.batch(torch.arange(2), torch.zeros(2, dtype=torch.long)), t.networks)
    assert not torch.equal(w, t.generator.mean_latent.expand_as(w))


def test_options_of_the_stages(cache, dataset, loss_net, monkeypatch):
    shares = [step_probabilities((0, 9), 10, name) for name in ("uniform", "early", "late")]
    assert [share.tolist() for share in shares] == [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]
    m = trainer(1, cache, dataset, loss_net).networks["mapping_network"]
    batch = cache.batch(torch.arange(4), torch.ones(4, dtype=torch.long))
    found = {}
    for targets in ("both", "diffusion", "image"):
        t = trainer(2, cache, dataset, loss_net, m, targets=targets)
        w = t.codes(batch, t.networks)
        found[targets] = {name.split("(")[-1] for name in t.terms(batch, w, t.draw(w, batch))}
    assert "I)" in found["both"] and "I_0^d)" in found["both"]
    assert "I)" not in found["diffusion"] and "I_0^d)" not in found["image"]
    sizes = MINI.mapping, MINI.modulation
    single = replace(sizes[0], latent="w"), replace(sizes[1], paths="local", pool=POOLS[1])
    t = StageTrainer(StageConfig(2, held_out=2), cache, dataset, generator(), loss_net, m, None,
                     *single)  # fmt: skip
    assert t.networks["style_modulation"].config.paths == "local"
    asked = []
    monkeypatch.setattr(cache, "batch", lambda *given: asked.append(given[2]) or batch)
    t.measure({})
    assert {*asked} == {POOLS[1]}
    for bad in ({"sampling": "x"}, {"targets": "x"}):
        with pytest.raises(ValueError, match="expected one of"):
            StageConfig(1, **bad)


@pytest.mark.parametrize(
    ("stage", "precision", "targets"),
    [
        *((stage, precision, "both") for stage in (1, 2, 3) for precision in ("auto", "fp32")),
        (3, "auto", "composite"),
    ],
)
def test_a_step_stays_on_the_device(
    cache, dataset, loss_net, monkeypatch, stage, precision, targets
):
    monkeypatch.setattr(torch, "cov", lambda x: x @ x.T)  # it looks at numbers
    first, second = mapping_network(), style_modulation()
    networks = [[], [first], [first, second]][stage - 1]
    t = trainer(stage, cache, dataset, loss_net, *networks, precision=precision, targets=targets)
    batch = cache.batch(torch.tensor([0, 13]), torch.tensor([0, 1]))
    assert len(dataset.images) == len(dataset.masks)  # decoded before tensors are fake
    loss_net, t.device = copy.deepcopy(loss_net), torch.device("cuda:0")
    with fake_cuda() as mode:
        batch = replace(
            batch,  # samples and captions are looked up by number
            step=mode.from_tensor(batch.step),
            h=mode.from_tensor(batch.h),
            f=tuple(map(mode.from_tensor, batch.f)),
            maps=tuple(map(mode.from_tensor, batch.maps)),
            diffusion_images=mode.from_tensor(batch.diffusion_images),
        )
        for network in (*t.networks.values(), t.generator, loss_net):
            on_cuda(network)
        terms = StageTerms(t.config, dataset, t.generator, loss_net, cache.num_inference_steps)
        w = t.codes(batch, t.networks)
        image = t.draw(w, batch)
        found = terms(batch, w, image)
        total = terms.total(found)
    assert {x.device.type for x in (w, image, total, *found.values())} == {"cuda"}
    assert image.dtype == torch.float32 and {x.dtype for x in found.values()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_learns_what_a_cpu_learns(cache, dataset, loss_net, tmp_path):
    curves = []
    for device in ("cpu", "cuda"):
        AcceleratorState._reset_state(reset_partial_state=True)  # one process has one device
        G = generator().to(device)
        t = StageTrainer(StageConfig(1, held_out=2, precision="fp32"), cache, dataset, G, loss_net)
        result = t.fit(loop(tmp_path / device, max_steps=3))
        assert next(result.ema["mapping_network"].parameters()).device.type == device
        curves.append(read_log(result.log_path)["loss"])
    assert curves[1] == pytest.approx(curves[0], rel=1e-2)


def test_pictures_of_a_larger_g_are_compared_at_the_size_of_i(cache, dataset, loss_net):
    G = StyleGAN2Generator(
        z_dim=16, w_dim=16, img_resolution=256, mapping_layers=2, channel_base=512, channel_max=16
    )
    made = StageTrainer(StageConfig(1, held_out=2), cache, dataset, G.eval(), loss_net)
    w = torch.randn(2, G.num_ws, 16, generator=torch.Generator().manual_seed(0))
    batch = cache.batch(torch.arange(2), torch.zeros(2, dtype=torch.long))
    image, whole = made.draw(w, batch), G.synthesis(w, noise_mode="const")
    assert image.shape == (2, 3, 128, 128) and whole.shape == (2, 3, 256, 256)
    assert torch.allclose(image.mean((2, 3)), whole.mean((2, 3)), atol=0.02)


def test_fine_rows_are_mixed_with_gs_own_draws_and_judged_by_layout(
    cache, dataset, loss_net, tmp_path
):
    t = trainer(1, cache, dataset, loss_net, mixing=0.5, mixed_from=8)
    w = torch.randn(64, 12, 16, generator=torch.Generator().manual_seed(1))
    chosen, mixed = t._mixed(w, 64, slice(None), torch.Generator().manual_seed(0))
    assert 20 < chosen.sum() < 44
    assert torch.equal(mixed[:, :8], w[:, :8]) and torch.equal(mixed[~chosen], w[~chosen])
    fine = mixed[chosen][:, 8:]
    assert torch.equal(fine, fine[:, :1].expand_as(fine))  # one draw of G a sample
    assert len(fine[:, 0].unique(dim=0)) == len(fine)
    second, half = t._mixed(w[1::2], 64, slice(1, None, 2), torch.Generator().manual_seed(0))
    assert torch.equal(second, chosen[1::2]) and torch.equal(half, mixed[1::2])

    every = trainer(1, cache, dataset, loss_net, mixing=1.0)
    every.fit(loop(tmp_path, max_steps=1))
    log = read_log(tmp_path / "log.csv")
    assert log["l2 (I)"] == log["parts"] == log["attributes"] == [0.0] and log["parsing"][0] > 0
    with pytest.raises(ValueError, match="mixed_from came as 12; expected a whole number from 1"):
        trainer(1, cache, dataset, loss_net, mixing=0.5, mixed_from=12)


def test_heads_are_drawn_by_the_cameras_of_the_samples(pipe, loss_net, tmp_path):
    torch.manual_seed(0)
    heads = FaceDataset(write_views(tmp_path / "train", 4, 1).parent)
    features = OnlineFeatures(CONFIG, pipe, heads)
    G = tiny_eg3d(c_dim=0)
    config = StageConfig(1, held_out=1, precision="fp32")
    trainer = StageTrainer(config, features, heads, G, loss_net)
    batch = features.batch(torch.tensor([1, 5]), torch.zeros(2, dtype=torch.long))
    assert batch.sample.tolist() == [1, 1] and batch.mirrored.tolist() == [False, True]
    w = G.mapping(torch.randn(1, 8)).expand(2, -1, -1)
    drawn = trainer.draw(w, batch)
    assert drawn.shape == (2, 3, 128, 128)
    c = heads.cameras[1]
    with torch.no_grad():
        image = G.synthesis(w, torch.stack([c, mirrored_camera(c)])).image
    wanted = torch.nn.functional.interpolate(image, (128, 128), mode="bilinear", antialias=True)
    torch.testing.assert_close(drawn, wanted)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4
    before = [p.detach().clone() for p in trainer.networks["mapping_network"].parameters()]
    result = trainer.fit(loop(tmp_path / "run", max_steps=1, batch_size=2))
    after = result.ema["mapping_network"].parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_heads_cannot_be_learnt_without_cameras(cache, dataset, loss_net):
    config = StageConfig(1, held_out=2)
    with pytest.raises(ValueError, match="holds samples without a camera"):
        StageTrainer(config, cache, dataset, tiny_eg3d(c_dim=0), loss_net)
    assert trainer(1, cache, dataset, loss_net).cameras is None


def test_m_learns_known_codes_before_it_draws(cache, dataset, loss_net):
    made = trainer(1, cache, dataset, loss_net)
    M, G = made.networks["mapping_network"], made.generator
    before = {name: value.clone() for name, value in M.state_dict().items()}
    shift = torch.linspace(-1, 1, len(dataset))[:, None, None]
    codes = G.mean_latent + shift * torch.ones(len(dataset), G.num_ws, len(G.mean_latent))
    made.learn_codes(codes, steps=150)
    rows = made.train_entries[cache.views[made.train_entries] == 0]
    batch = cache.batch(rows, torch.zeros_like(rows))
    with torch.no_grad():
        found = M(batch.h)
    wanted = codes[batch.sample]
    assert (found - wanted).square().mean() < 0.1 * (wanted - G.mean_latent).square().mean()
    assert any(not torch.equal(value, M.state_dict()[name]) for name, value in before.items())
    with pytest.raises(ValueError, match=r"codes came as \(10, 2, 3\); expected \(10, 12, 16\)"):
        made.learn_codes(torch.zeros(10, 2, 3))
