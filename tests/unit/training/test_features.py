"""Features of E: alone and in batches, mirrored, noised, without a cache, and on other devices."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_devices import fake_cuda, on_cuda
from tiny_models import pipeline, scheduler
from tiny_training import CONFIG, with_numbers
from torch._subclasses.fake_tensor import unset_fake_temporarily

from dmgi_lib.masks import flip_mask, mask_to_rgb
from dmgi_lib.training import features
from dmgi_lib.training.features import CacheConfig, OnlineFeatures, encode_samples


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
    assert torch.equal(straight, mask_to_rgb(dataset.masks[5:6]))
    assert torch.equal(mirrored, mask_to_rgb(flip_mask(dataset.masks[5:6])))


def conditions_of(pipe, dataset, samples, view=0, **change):
    """What ControlNet reads for some samples."""
    seen = []
    handle = pipe.controlnet.controlnet_cond_embedding.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    encode_samples(replace(CONFIG, **change), pipe, dataset, samples, view)
    handle.remove()
    return seen[0][: len(samples)]


def test_augmented_conditions_belong_to_their_entry(pipe, dataset):
    samples = [2, 5, 7, 8]
    perfect = mask_to_rgb(dataset.masks[samples])
    drawn = conditions_of(pipe, dataset, samples, augment=1.0)
    assert (drawn != perfect).flatten(1).any(1).all()
    assert torch.equal(conditions_of(pipe, dataset, [7], augment=1.0), drawn[2:3])
    assert not torch.equal(conditions_of(pipe, dataset, samples, seed=1, augment=1.0), drawn)
    assert torch.equal(conditions_of(pipe, dataset, samples), perfect)


def test_online_features_are_those_of_the_cache(cache, pipe, dataset):
    online = OnlineFeatures(CONFIG, pipe, dataset, views=2, diffusion_images=True)
    assert len(online) == len(cache) and torch.equal(online.views, cache.views)
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


def test_online_batches_are_cut_to_size(pipe, dataset):
    sizes = []
    handle = pipe.vae.decoder.register_forward_pre_hook(lambda m, a: sizes.append(len(a[0])))
    online = OnlineFeatures(CONFIG, pipe, dataset, diffusion_images=True, batch_size=3)
    entries = torch.tensor([0, 12, 1, 2, 3, 4])
    found = online.batch(entries, torch.zeros(6, dtype=torch.long))
    handle.remove()
    assert sizes == [3, 2, 1]
    assert found.sample.tolist() == [0, 2, 1, 2, 3, 4]


def test_noised_features_see_the_picture(pipe, dataset):
    config = CacheConfig(steps=(0, 2), num_inference_steps=3, source="noised")
    entry = encode_samples(config, pipe, dataset, [2, 7], view=0)
    assert "diffusion_image" not in entry and entry["h"].shape[:2] == (2, 2)
    honest = encode_samples(CONFIG, pipe, dataset, [2, 7], view=0)
    assert entry["h"].shape == honest["h"].shape
    scale = honest["h"].float().abs().max()
    first, late = ((entry["h"] - honest["h"])[:, k].float().abs().max() / scale for k in (0, 1))
    assert first < 0.05 < late  # at t = T there is nothing but noise; later the picture shows


class KnownSteps(DDIMScheduler):
    """A scheduler whose steps are numbers, since fake tensors hold none to decide by."""

    numbers = True

    def set_timesteps(self, num_inference_steps, device=None):
        with unset_fake_temporarily():
            super().set_timesteps(num_inference_steps)
            if self.numbers:
                self.timesteps = self.timesteps.tolist()

    def __deepcopy__(self, memo):
        with unset_fake_temporarily():
            return type(self).from_config(self.config)


class KnownNoise(KnownSteps):
    """The same where no step is taken, but noise is added for it."""

    numbers = False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("source", ["reverse", "noised"])
def test_e_runs_on_its_device_and_its_features_come_back(dataset, monkeypatch, source, dtype):
    monkeypatch.setattr(features, "tokenize", with_numbers(features.tokenize))
    monkeypatch.setattr(features.torch, "randint", lambda *size, generator: 1)
    steps = {"reverse": KnownSteps, "noised": KnownNoise}[source]
    pipe = pipeline(scheduler=steps.from_config(scheduler().config))
    config = CacheConfig(steps=(0, 2), num_inference_steps=3, source=source)
    assert len(dataset.masks) == len(dataset.images)  # decoded before tensors hold no numbers
    with fake_cuda():
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                on_cuda(part, dtype)
        entry = encode_samples(config, pipe, dataset, [2, 7], view=1)
    assert {tensor.device.type for tensor in entry.values()} == {"cpu"}
    assert entry["h"].shape == (2, 2, 32, 4, 4) and entry["h"].dtype == torch.float16
    assert ("diffusion_image" in entry) == (source == "reverse")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_encodes_the_same(pipe, dataset, dtype):
    half = encode_samples(CONFIG, pipeline().to(dtype), dataset, [5], view=0)
    full = encode_samples(CONFIG, pipe, dataset, [5], view=0)
    apart = (half["h"][:, 0].float() - full["h"][:, 0].float()).abs().max()
    assert apart < 0.1 * full["h"].float().abs().max()
