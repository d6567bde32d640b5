"""A stage-1 step from the feature cache beside the same step with E in the loop.

    python tests/benchmarks/training_step.py

Builds a small cache from the shipped sample in a temporary folder; needs the trained weights. Both
ways take turns at the same samples and steps of the process, and medians are compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time

import torch

from dmgi_lib.dataset import FaceDataset, shipped_root
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.training.feature_cache import build
from dmgi_lib.training.features import CacheConfig, OnlineFeatures
from dmgi_lib.training.trainer import StageConfig, StageTrainer
from dmgi_lib.weight_folder import load_part


def seconds(repeats: int, batch_size: int = 16, cpu_time: bool = False) -> tuple[float, float]:
    """Median time of a training step of M from the cache, and with E in the loop."""
    clock = time.process_time if cpu_time else time.perf_counter
    pipe, data = DMGIPipeline.from_pretrained(MINI.folder), FaceDataset(shipped_root(), "train")
    parts = (load_part(MINI.folder, "generator"), load_part(MINI.folder, "loss_net"))
    config = CacheConfig(shard_size=2 * batch_size)
    with tempfile.TemporaryDirectory() as folder:
        cache = build(config, pipe, data, folder, limit=2 * batch_size)
        trainer = StageTrainer(StageConfig(1, held_out=8), cache, data, *parts)
        optimizer = torch.optim.Adam(trainer.networks["mapping_network"].parameters(), 1e-4)
        ways = {"cache": cache, "online": OnlineFeatures(config, pipe, data, views=1)}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        rng = torch.Generator().manual_seed(0)
        for turn in range(repeats + 1):
            entries = torch.randint(len(cache), (batch_size,), generator=rng)
            slots = torch.randint(len(cache.steps), (batch_size,), generator=rng)
            for name, features in ways.items():
                begin = clock()
                w = trainer.codes(batch := features.batch(entries, slots), trainer.networks)
                loss = trainer.terms.total(trainer.terms(batch, w, trainer.draw(w, batch)))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if turn > 0:  # the first is the warm-up
                    taken[name].append(clock() - begin)
        return statistics.median(taken["cache"]), statistics.median(taken["online"])


if __name__ == "__main__":
    cached, online = seconds(8)
    print(f"stage-1 step: from the cache {cached:.3f} s, with E in the loop {online:.3f} s")
    print(f"ratio {online / cached:.1f}")
