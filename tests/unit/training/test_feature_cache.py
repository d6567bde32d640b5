"""Feature cache on a tiny dataset and tiny random networks: content, refusals, repairs, online."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
import tyro
from tiny_models import (
    controlnet,
    face_mask,
    pipeline,
    scheduler,
    text_encoder,
    tokenizer,
    unet,
    vae,
)
from tiny_shards import encoded, rewrite
from tiny_training import CONFIG, trainer

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import flip_mask, mask_to_image
from dmgi_lib.training import feature_cache
from dmgi_lib.training.feature_cache import FeatureCache, build, cache_name
from dmgi_lib.training.features import CacheConfig, encoder_facts, spread_steps


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


@pytest.mark.parametrize("pool", ["tokens", "heads_and_tokens"])
def test_features_kept_on_a_device_are_those_of_the_shards(cache, monkeypatch, pool):
    kept = FeatureCache(cache.folder)
    monkeypatch.setattr(feature_cache, "has_room", lambda nbytes, device: nbytes > 0)
    kept.keep_on(torch.device("cpu"))
    entries, slots = torch.tensor([19, 0, 9, 10, 3]), torch.tensor([0, 1, 1, 0, 1])
    one, other = (vars(c.batch(entries, slots, pool)) for c in (kept, cache))
    for name, wanted in other.items():
        pairs = zip(one[name], wanted, strict=True)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs), name
    kept.keep_on(torch.device("meta"))
    batch = kept.batch(entries, slots, pool)
    assert batch.h.device.type == batch.diffusion_images.device.type == "meta"
    assert batch.sample.device.type == batch.caption.device.type == "cpu"  # looked up there


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


def changed(dataset, **facts):
    """The data set with another digest or split."""
    other = copy.copy(dataset)
    vars(other).update(facts)
    return other


class Tokenizer:
    """A tokenizer with one word more."""

    def get_vocab(self):
        return tokenizer().get_vocab() | {"turquoise": 99}


def other_scheduler():
    return scheduler().from_config(scheduler().config, prediction_type="epsilon")


OTHER_ENCODERS = {
    "weights.unet": lambda: {"unet": unet(seed=50)},
    "weights.controlnet": lambda: {"controlnet": controlnet(seed=50)},
    "weights.vae": lambda: {"vae": vae(seed=50)},
    "weights.text_encoder": lambda: {"text_encoder": text_encoder(seed=50)},
    "scheduler.prediction_type": lambda: {"scheduler": other_scheduler()},
    "precision.weights": lambda: {"unet": unet().to(torch.bfloat16)},
}


@pytest.mark.parametrize("what", OTHER_ENCODERS)
def test_a_cache_of_another_encoder_is_refused(cache, dataset, what):
    other = pipeline(**OTHER_ENCODERS[what]())
    with pytest.raises(ValueError, match=f"{what} was .*, is .*Delete it and build it anew"):
        build(CONFIG, other, dataset, cache.folder)
    with pytest.raises(ValueError, match=f"{what} was "):
        cache.check(dataset, other)


def test_a_cache_of_another_vocabulary_is_refused(cache, dataset):
    other = pipeline()
    other.tokenizer = Tokenizer()
    with pytest.raises(ValueError, match="vocabulary was"):
        cache.check(dataset, other)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"steps": (0, 1)},
        {"steps": (0, 2), "num_inference_steps": 4},
        {"guidance_scale": 4.0},
        {"source": "noised"},
        {"shard_size": 5},
        {"augment": 0.5},
    ],
)
def test_a_cache_of_another_config_is_refused(cache, pipe, dataset, change):
    name = list(change)[-1]
    with pytest.raises(ValueError, match=f"config.{name} was "):
        build(replace(CONFIG, **change), pipe, dataset, cache.folder)


def test_a_cache_of_other_guidance_is_refused(cache, dataset):
    other = pipeline()
    other.register_to_config(guide_condition=False)
    with pytest.raises(ValueError, match=r"guidance.guide_condition was True, is False"):
        cache.check(dataset, other)


def test_the_manifest_names_augmentation_where_there_is_any(pipe):
    assert "augment" not in encoder_facts(CONFIG, pipe)["config"]  # older caches stay valid
    drawn = encoder_facts(replace(CONFIG, augment=0.5), pipe)["config"]
    assert drawn["augment"] == 0.5
    with pytest.raises(ValueError, match="augment came as 2"):
        replace(CONFIG, augment=2)


def test_a_cache_of_another_kind_of_x_is_refused(cache, dataset):
    both = pipeline(controlnet_scribble=controlnet(seed=9))
    for use in (
        lambda: build(replace(CONFIG, condition="scribble"), both, dataset, cache.folder),
        lambda: cache.check(dataset, both, condition="scribble"),
    ):
        with pytest.raises(ValueError, match="config.condition was 'mask', is 'scribble'"):
            use()
    with pytest.raises(ValueError, match="config.preset was 'mini', is 'paper'"):
        cache.check(dataset, both, preset="paper")


def test_the_preset_must_fit_the_pipeline(pipe, dataset, tmp_path):
    with pytest.raises(ValueError, match="'paper', whose pictures have 512 px, .* have 128"):
        build(replace(CONFIG, preset="paper"), pipe, dataset, tmp_path)
    with pytest.raises(ValueError, match="preset came as 'huge'"):
        replace(CONFIG, preset="huge")
    assert encoder_facts(CONFIG, pipe)["config"]["preset"] == "mini"


@pytest.mark.parametrize(
    ("change", "named"),
    [({"digest": "0f1c"}, "digest was "), ({"split": "test"}, "split was 'train', is 'test'")],
)
def test_a_cache_of_another_dataset_is_refused(
    cache, pipe, dataset, loss_net, tmp_path, change, named
):
    shutil.copytree(dataset.root, tmp_path / "faces")
    cache.check(FaceDataset(tmp_path / "faces"), pipe)  # the same data elsewhere
    other = changed(dataset, **change)
    for use in (
        lambda: build(CONFIG, pipe, other, cache.folder),
        lambda: cache.check(other),
        lambda: trainer(1, cache, other, loss_net),
    ):
        with pytest.raises(ValueError, match="made from something else") as error:
            use()
        assert f"dataset.{named}" in str(error.value)
        assert str(error.value).count(" was ") == 2


def test_a_cache_of_another_mask_is_refused(cache, dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path / "faces")
    other = encoded(mask_to_image(flip_mask(face_mask())))
    rewrite(tmp_path / "faces" / "train", lambda sample: sample | {"mask": other})
    with pytest.raises(ValueError, match=r"made from something else: dataset\.digest was"):
        cache.check(FaceDataset(tmp_path / "faces"))


def test_shards_without_a_manifest_are_refused(pipe, dataset, tmp_path):
    build(CONFIG, pipe, dataset, tmp_path, limit=1)
    whole = (tmp_path / "manifest.json").read_text()
    for content in (whole[:100], None):
        if content is None:
            (tmp_path / "manifest.json").unlink()
        else:
            (tmp_path / "manifest.json").write_text(content)
        for use in (lambda: FeatureCache(tmp_path), lambda: build(CONFIG, pipe, dataset, tmp_path)):
            with pytest.raises(ValueError, match="no readable manifest.json"):
                use()
    assert not (tmp_path / "manifest.json").exists()


def test_a_truncated_shard_is_named_and_made_anew(pipe, dataset, tmp_path, capsys):
    whole = build(CONFIG, pipe, dataset, tmp_path)
    slots = torch.zeros(10, dtype=torch.long)
    before = whole.batch(torch.arange(10), slots).h.clone()
    untouched, broken, empty = sorted(tmp_path.glob("view*"))
    kept = untouched.stat().st_mtime_ns
    del whole  # lets go of the mapped files
    broken.write_bytes(broken.read_bytes()[:-1])
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match="truncated") as error:
        FeatureCache(tmp_path)
    assert broken.name in str(error.value) and empty.name in str(error.value)
    assert untouched.name not in str(error.value)
    capsys.readouterr()
    again = build(CONFIG, pipe, dataset, tmp_path)
    said = capsys.readouterr().out
    assert said.count("made anew") == 2 and broken.name in said and empty.name in said
    assert torch.equal(again.batch(torch.arange(10), slots).h, before)
    assert untouched.stat().st_mtime_ns == kept


def test_missing_cache_and_bad_steps(tmp_path):
    with pytest.raises(FileNotFoundError, match="feature_cache"):
        FeatureCache(tmp_path)
    with pytest.raises(ValueError, match="rising"):
        CacheConfig(steps=(3, 1))
    with pytest.raises(ValueError, match="20"):
        CacheConfig(steps=(0, 20), num_inference_steps=20)


def test_cache_names_differ_where_the_content_does(pipe, dataset):
    names = {
        cache_name(CONFIG, pipe, dataset),
        cache_name(replace(CONFIG, seed=1), pipe, dataset),
        cache_name(CONFIG, pipe, dataset, limit=3),
        cache_name(CONFIG, pipeline(unet=unet(seed=50)), dataset),
        cache_name(CONFIG, pipe, changed(dataset, digest="0f1c")),
    }
    assert len(names) == 5 and cache_name(CONFIG, pipeline(), dataset) in names


def test_the_command_fills_a_cache_on_its_device(pipe, dataset, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path / "weights")
    asked = []
    monkeypatch.setattr(feature_cache, "pick_device", lambda name: asked.append(name) or "cpu")
    options = f"--weights {tmp_path}/weights --data {dataset.root} --cache {tmp_path}/{{condition}}"
    more = "--steps 0,2 --num-inference-steps 3 --views 1 --limit 4 --device cuda --dtype float16"
    tyro.cli(feature_cache.main, args=f"{options} {more}".split())
    made = FeatureCache(tmp_path / "mask")
    assert made.steps == (0, 2) and made.manifest["precision"]["weights"] == "torch.float16"
    assert asked == ["cuda"]


def test_steps_are_spread_evenly():
    assert spread_steps(10) == CacheConfig().steps == (0, 2, 4, 7, 9)
    assert spread_steps(50) == (0, 12, 24, 37, 49)
    assert spread_steps(3) == (0, 1, 2) and spread_steps(1) == (0,)
