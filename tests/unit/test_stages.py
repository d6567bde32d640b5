"""Feature cache and training stages on a tiny dataset and tiny random networks."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import controlnet, face_mask, generator, pipeline, unet

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.evaluation.judges import Recognizer
from dmgi_lib.masks import flip_mask, mask_to_image
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.style_modulation import POOLS
from dmgi_lib.training import stages
from dmgi_lib.training.feature_cache import FeatureCache, build, cache_name
from dmgi_lib.training.features import CacheConfig, OnlineFeatures, encode_samples
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.losses import LossWeights, step_probabilities
from dmgi_lib.training.stage_trainer import StageConfig, StageTrainer

CONFIG = CacheConfig(steps=(0, 2), num_inference_steps=3, shard_size=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FaceDataset:
    root = tmp_path_factory.mktemp("faces")
    for name in ("images", "masks"):
        (root / "train" / name).mkdir(parents=True)
    lines = []
    for i in range(10):
        pixels = np.zeros((128, 128, 3), np.uint8)
        pixels[:, : 12 * i + 6] = (25 * i, 90, 200)
        Image.fromarray(pixels).save(root / f"train/images/{i:06d}.webp", lossless=True)
        mask = face_mask()
        mask[:20, : 10 * i] = 13
        mask_to_image(mask).save(root / f"train/masks/{i:06d}.png")
        captions = ["a young woman", "an old man with gray hair"]
        record = {"id": f"{i:06d}", "identity": i, "captions": captions, "attributes": {}}
        lines.append(json.dumps(record))
    (root / "train/metadata.jsonl").write_text("\n".join(lines))
    return FaceDataset(root)


@pytest.fixture(scope="module")
def pipe() -> DMGIPipeline:
    torch.set_num_threads(1)
    return pipeline()


@pytest.fixture(scope="module")
def cache(pipe, dataset, tmp_path_factory) -> FeatureCache:
    return build(CONFIG, pipe, dataset, tmp_path_factory.mktemp("cache"), views=2, batch_size=3)


@pytest.fixture(scope="module")
def loss_net() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(channels=(4, 8, 8, 8, 8))


def loop(run_dir, **options) -> LoopConfig:
    sizes = {"minutes": 5.0, "batch_size": 4, "log_every": 1} | options
    return LoopConfig(run_dir=run_dir, **sizes)


def trainer(stage, cache, dataset, loss_net, *networks, **options) -> StageTrainer:
    torch.manual_seed(0)
    config = StageConfig(stage, held_out=2, **options)
    return StageTrainer(config, cache, dataset, generator(), loss_net, *networks)


def test_cache_holds_every_view_and_step(cache):
    assert len(cache) == 20
    batch = cache.batch(torch.tensor([0, 9, 10, 19]), torch.tensor([0, 1, 0, 1]))
    assert batch.sample.tolist() == [0, 9, 0, 9]
    assert batch.mirrored.tolist() == [False, False, True, True]
    assert batch.step.tolist() == [0, 2, 0, 2]
    assert batch.h.shape == (4, 32, 4, 4)
    assert [f.shape[1:] for f in batch.f] == [(24, 16, 16), (16, 16, 16)]
    assert [m.shape[1:] for m in batch.maps] == [(1, 8, 8), (1, 16, 16)]
    assert batch.diffusion_images.shape == (4, 3, 128, 128)


def test_entries_do_not_depend_on_the_batch(cache, pipe, dataset):
    alone = encode_samples(CONFIG, pipe, dataset, [5], view=1)
    entry = cache.batch(torch.tensor([15]), torch.tensor([1]), pool="heads_and_tokens")
    assert (alone["h"][:, 1].float() - entry.h).abs().max() < 0.05 * entry.h.abs().max()
    assert (alone["a2"][:, 1, 1:].float() - entry.maps[1]).abs().max() < 0.05


def test_second_view_is_the_mirrored_condition(pipe, dataset):
    seen = []
    handle = pipe.controlnet.controlnet_cond_embedding.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    for view in (0, 1):
        encode_samples(CONFIG, pipe, dataset, [5], view)
    handle.remove()
    straight, mirrored = seen[0][:1], seen[-1][:1]
    from dmgi_lib.masks import mask_to_rgb

    assert torch.equal(straight, mask_to_rgb(dataset.masks[5:6]))
    assert torch.equal(mirrored, mask_to_rgb(flip_mask(dataset.masks[5:6])))


def test_cache_resumes_shard_by_shard(pipe, dataset, tmp_path, cache):
    build(CONFIG, pipe, dataset, tmp_path, views=1, limit=3)
    assert len(FeatureCache(tmp_path)) == 4  # whole shards
    first = next(tmp_path.glob("view*")).stat().st_mtime_ns
    whole = build(CONFIG, pipe, dataset, tmp_path, views=2)
    assert sorted(tmp_path.glob("view*"))[0].stat().st_mtime_ns == first
    slots = torch.zeros(20, dtype=torch.long)
    resumed, at_once = (c.batch(torch.arange(20), slots) for c in (whole, cache))
    assert torch.equal(resumed.sample, at_once.sample)
    assert (resumed.h - at_once.h).abs().max() < 0.05 * at_once.h.abs().max()
    assert not list(tmp_path.glob(".*"))


def test_cache_of_another_setting_is_refused(pipe, dataset, tmp_path):
    build(CONFIG, pipe, dataset, tmp_path, limit=1)
    other = CacheConfig(steps=(0, 2), num_inference_steps=3, shard_size=4, seed=1)
    with pytest.raises(ValueError, match=r"config.seed: cache 0, now 1"):
        build(other, pipe, dataset, tmp_path)
    with pytest.raises(ValueError, match=r"weights.unet"):
        build(CONFIG, pipeline(unet=unet(seed=50)), dataset, tmp_path)


def test_missing_cache_and_bad_steps(tmp_path):
    with pytest.raises(FileNotFoundError, match="feature_cache"):
        FeatureCache(tmp_path)
    with pytest.raises(ValueError, match="rising"):
        CacheConfig(steps=(3, 1))
    with pytest.raises(ValueError, match="20"):
        CacheConfig(steps=(0, 20), num_inference_steps=20)


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
    t = trainer(1, cache, dataset, loss_net, weights=LossWeights(parsing=0.1))
    batch = cache.batch(torch.arange(4), torch.zeros(4, dtype=torch.long))
    w = t.codes(batch, t.networks)
    assert torch.equal(w, t.generator.mean_latent.expand_as(w))
    before = t.measure({})
    result = t.fit(loop(tmp_path, max_steps=25, learning_rate=3e-3))
    assert t.total(
        {k: torch.tensor(v) for k, v in _mean_over_steps(t.measure(result.ema)).items()}
    ) < t.total({k: torch.tensor(v) for k, v in _mean_over_steps(before).items()})
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


def test_mirrored_entries_get_mirrored_targets(cache, dataset, loss_net):
    t = trainer(1, cache, dataset, loss_net)
    batch = cache.batch(torch.tensor([3, 13]), torch.tensor([0, 0]))
    images = t._mirrored(dataset.images, batch)
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
        stages.required_part(tmp_path, "generator", "data_prep.priors.train_stylegan2")


def test_command_trains_and_writes_a_loadable_folder(
    pipe, cache, dataset, loss_net, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "weights"
    pipe.save_pretrained(folder)
    loss_net.save_pretrained(folder / "loss_net")
    common = f"--weights {folder} --data {dataset.root} --cache {cache.folder} --held-out 2"
    for stage in (1, 2):
        arguments = f"stages --stage {stage} {common} --minutes 0.03 --batch-size 4"
        monkeypatch.setattr(sys, "argv", f"{arguments} --run-dir {tmp_path}/run{stage}".split())
        stages.main()
    assert "wrote" in capsys.readouterr().out
    card = (folder / "style_modulation" / "card.md").read_text()
    assert "--stage 2" in card and "seed 0" in card and "identity (I) @ 2" in card
    loaded = DMGIPipeline.from_pretrained(folder)
    assert loaded.mapping_network.config.width == MINI.mapping.width  # the new one, not the old
    assert loaded.config.num_inference_steps == CONFIG.num_inference_steps  # as it was trained
    assert stages.load_part(folder, "style_modulation").dtype == torch.float32
    assert loaded("a young woman", mask=face_mask(), exit_step=0).images[0].size == (128, 128)


def test_online_features_are_those_of_the_cache(cache, pipe, dataset):
    online = OnlineFeatures(CONFIG, pipe, dataset, views=2, diffusion_images=True)
    assert len(online) == len(cache) and online.views == cache.views
    entries, slots = torch.tensor([0, 13, 5]), torch.tensor([0, 1, 1])
    found, kept = online.batch(entries, slots), cache.batch(entries, slots)
    assert torch.equal(found.sample, kept.sample) and torch.equal(found.step, kept.step)
    assert torch.equal(found.mirrored, kept.mirrored)
    assert (found.h - kept.h).abs().max() < 0.05 * kept.h.abs().max()
    for one, other in zip(found.maps, kept.maps, strict=True):
        assert (one - other).abs().max() < 0.05
    difference = found.diffusion_images.int() - kept.diffusion_images.int()
    assert difference.abs().float().mean() < 3
    early = OnlineFeatures(CONFIG, pipe, dataset).batch(entries, torch.zeros(3, dtype=torch.long))
    assert early.diffusion_images is None


def test_a_stage_trains_online(pipe, dataset, loss_net, tmp_path):
    online = OnlineFeatures(CONFIG, pipe, dataset, views=1)
    t = trainer(1, online, dataset, loss_net)
    t.fit(loop(tmp_path, max_steps=2))
    w = t.codes(online.batch(torch.arange(2), torch.zeros(2, dtype=torch.long)), t.networks)
    assert not torch.equal(w, t.generator.mean_latent.expand_as(w))


def test_noised_features_see_the_picture(pipe, dataset):
    config = CacheConfig(steps=(0, 2), num_inference_steps=3, source="noised")
    entry = encode_samples(config, pipe, dataset, [2, 7], view=0)
    assert "diffusion_image" not in entry and entry["h"].shape[:2] == (2, 2)
    honest = encode_samples(CONFIG, pipe, dataset, [2, 7], view=0)
    assert entry["h"].shape == honest["h"].shape
    scale = honest["h"].float().abs().max()
    first, late = ((entry["h"] - honest["h"])[:, k].float().abs().max() / scale for k in (0, 1))
    assert first < 0.05 < late  # at t = T there is nothing but noise; later the picture shows


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


def test_scribbles_have_networks_of_their_own(pipe, dataset, loss_net, tmp_path, monkeypatch):
    for record, mask in zip(dataset.records, dataset.masks, strict=True):
        path = dataset.folder / "scribbles" / f"{record['id']}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(((mask == 13) * 255).numpy().astype(np.uint8)).save(path)
    folder = tmp_path / "weights"
    own = pipeline(controlnet_scribble=controlnet(seed=9))
    own.save_pretrained(folder)
    loss_net.save_pretrained(folder / "loss_net")
    with pytest.raises(ValueError, match="no mapping_network_scribble"):
        own("a woman", scribble=np.zeros((128, 128), np.uint8), exit_step=0)
    drawings = FaceDataset(dataset.root)
    config = CacheConfig((0, 2), num_inference_steps=3, shard_size=4, condition="scribble")
    cache = build(config, own, drawings, tmp_path / "cache")
    common = f"--weights {folder} --data {dataset.root} --cache {cache.folder} --held-out 2"
    arguments = f"stages --stage 1 {common} --minutes 0.03 --batch-size 4 --run-dir {tmp_path}/run"
    monkeypatch.setattr(sys, "argv", arguments.split())
    with pytest.raises(ValueError, match="features of a scribble"):
        stages.main()
    monkeypatch.setattr(sys, "argv", [*arguments.split(), "--condition", "scribble"])
    stages.main()
    loaded = DMGIPipeline.from_pretrained(folder)
    assert loaded.mapping_network_scribble is not None
    strokes = np.zeros((128, 128), np.uint8)
    strokes[40:44, 30:90] = 255
    drawn = loaded("a young woman", scribble=strokes, exit_step=0, output_type="pt").latents
    assert torch.isfinite(drawn).all()


def test_cache_names_differ_where_the_content_does(pipe):
    other = CacheConfig(steps=(0, 2), num_inference_steps=3, shard_size=4, seed=1)
    names = {
        cache_name(CONFIG, pipe),
        cache_name(other, pipe),
        cache_name(CONFIG, pipe, limit=3),
        cache_name(CONFIG, pipeline(unet=unet(seed=50))),
    }
    assert len(names) == 4 and cache_name(CONFIG, pipeline()) in names
