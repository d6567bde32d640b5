"""A stage-1 step from the feature cache against one with E in the loop, in one run.

    python tests/benchmarks/training_step.py

Builds a small cache from the shipped sample in a temporary folder; needs the trained weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from dmgi_lib.dataset import FaceDataset, sample_root
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.training.feature_cache import FeatureCache, build
from dmgi_lib.training.features import CacheConfig, OnlineFeatures
from dmgi_lib.training.stage_trainer import StageConfig, StageTrainer
from dmgi_lib.training.stages import load_part


def seconds_per_step(features: FeatureCache | OnlineFeatures, steps: int, batch_size: int) -> float:
    """Mean time of a training step of M, after one to warm up."""
    parts = (load_part(MINI.folder, "generator"), load_part(MINI.folder, "loss_net"))
    data = FaceDataset(sample_root(), "train")
    trainer = StageTrainer(StageConfig(1, held_out=8), features, data, *parts)
    optimizer = torch.optim.Adam(trainer.networks["mapping_network"].parameters(), 1e-4)
    rng = torch.Generator().manual_seed(0)
    begin = 0.0
    for step in range(steps + 1):
        if step == 1:
            begin = time.perf_counter()
        picked = torch.randint(len(trainer.train_entries), (batch_size,), generator=rng)
        drawn = torch.multinomial(trainer.chances, batch_size, True, generator=rng)
        batch = features.batch(trainer.train_entries[picked], trainer.slots[drawn])
        w = trainer.codes(batch, trainer.networks)
        loss = trainer.total(trainer.terms(batch, w, trainer.draw(w)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - begin) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=8, help="steps timed")
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    pipe, data = DMGIPipeline.from_pretrained("mini"), FaceDataset(sample_root(), "train")
    config = CacheConfig()
    with tempfile.TemporaryDirectory() as folder:
        cached = build(config, pipe, data, Path(folder), views=1)
        fast = seconds_per_step(cached, args.steps, args.batch_size)
        slow = seconds_per_step(OnlineFeatures(config, pipe, data), args.steps, args.batch_size)
    print(
        f"stage-1 step, batch {args.batch_size}: cached {fast:.3f} s, E in the loop {slow:.3f} s,"
    )
    print(f"ratio {slow / fast:.1f}")


if __name__ == "__main__":
    main()
