"""Features without a cache: E runs anew for every batch, for data sets too large to store.

online = OnlineFeatures(CacheConfig(steps=(0, 9)), pipe, dataset, diffusion_images=True)
StageTrainer(config, online, dataset, ...)
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.training.cache_manifest import dataset_facts, encoder_facts
from dmgi_lib.training.features import WHOLE, CacheConfig, CachedBatch, as_batch, encode_samples


class OnlineFeatures:
    """Read like a `FeatureCache`.

    Noise and caption of an entry stay the same from epoch to epoch, as they do in a cache.

    Args:
        config: steps that may be asked for.
        views: copies of each sample; odd ones are mirrored.
        diffusion_images: run every process to its end, for stages that need I_0^d.
        batch_size: samples per reverse process.
    """

    folder = "(online)"

    def __init__(
        self,
        config: CacheConfig,
        pipe: DMGIPipeline,
        dataset: FaceDataset,
        views: int = 2,
        diffusion_images: bool = False,
        batch_size: int = 16,
    ) -> None:
        self.batch_size = batch_size
        self.config, self.pipe, self.dataset = config, pipe, dataset
        self.diffusion_images = diffusion_images
        self.steps, self.num_inference_steps = config.steps, config.num_inference_steps
        self.views = [view for view in range(views) for _ in range(len(dataset))]
        self.samples = torch.arange(len(dataset)).repeat(views)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What a cache of the same features would be made from."""
        facts = dataset_facts(self.config, self.dataset)
        return encoder_facts(self.config, self.pipe) | {"dataset": facts}

    def __len__(self) -> int:
        return len(self.views)

    def batch(
        self, entries: torch.Tensor, slots: torch.Tensor, pool: str = "tokens"
    ) -> CachedBatch:
        """Entries (B,) at `steps[slots]`, slots (B,); pool as in ModulationConfig."""
        wanted = sorted({self.steps[k] for k in slots.tolist()})
        last = self.num_inference_steps - 1
        made = wanted if not self.diffusion_images else sorted({*wanted, last})
        config = replace(self.config, steps=tuple(made))
        rows: list[dict[str, torch.Tensor]] = [{}] * len(entries)
        views = torch.tensor([self.views[e] for e in entries.tolist()])
        for view in views.unique().tolist():
            for part in (views == view).nonzero()[:, 0].split(self.batch_size):
                places = part.tolist()
                samples = self.samples[entries[part]].tolist()
                found = encode_samples(config, self.pipe, self.dataset, samples, view)
                for row, place in enumerate(places):
                    slot = made.index(self.steps[int(slots[place])])
                    rows[place] = {
                        k: v[row] if k in WHOLE else v[row, slot].float() for k, v in found.items()
                    }
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return as_batch(stacked, views % 2 == 1, [self.steps[k] for k in slots.tolist()], pool)
