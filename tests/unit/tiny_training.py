"""Training stages on tiny networks: what several tests of training and evaluation build on."""

import torch
from tiny_models import generator
from torch._subclasses.fake_tensor import unset_fake_temporarily

from dmgi_lib.training.features import CacheConfig
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.trainer import StageConfig, StageTrainer

CONFIG = CacheConfig(steps=(0, 2), num_inference_steps=3, shard_size=4)


def loop(run_dir, **options) -> LoopConfig:
    sizes = {"minutes": 5.0, "batch_size": 4, "log_every": 1} | options
    return LoopConfig(run_dir=run_dir, **sizes)


def trainer(stage, cache, dataset, loss_net, *networks, **options) -> StageTrainer:
    torch.manual_seed(0)
    config = StageConfig(stage, held_out=2, **options)
    return StageTrainer(config, cache, dataset, generator(), loss_net, *networks)


def with_numbers(function):
    """The function outside the mode, since fake tensors hold no numbers to read."""

    def known(*args, **kwargs):
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return known
