"""Two processes train like one: same batches, averaged gradients, one writer."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path
import torch
from tiny_models import generator, pipeline
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.feature_cache import FeatureCache, build
from dmgi_lib.training.features import CacheConfig
from dmgi_lib.training.loop import LoopConfig, accelerator_for
from dmgi_lib.training.trainer import StageConfig, StageTrainer

root, cache, out = map(Path, sys.argv[2:])
torch.set_num_threads(1)
data = FaceDataset(root)
if not cache.exists():
    config = CacheConfig(steps=(0, 2), num_inference_steps=3, shard_size=8)
    build(config, pipeline(), data, cache)
torch.manual_seed(0)
loss_net = Recognizer(channels=(4, 8, 8, 8, 8))
parts = (FeatureCache(cache), data, generator(), loss_net)
accelerator = accelerator_for("cpu")
trainer = StageTrainer(StageConfig(1, held_out=2), *parts, accelerator=accelerator)
assert trainer.accelerator.num_processes == int(sys.argv[1])
trainer.fit(LoopConfig(out, minutes=5, batch_size=4, max_steps=4, log_every=1))
"""


def curve(path: Path) -> list[float]:
    with path.open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(path: Path) -> torch.Tensor:
    """M's last layer, which starts at zero."""
    modules = torch.load(path, weights_only=True)["modules"]
    return modules["mapping_network"]["fc.weight"]


@pytest.mark.slow
def test_two_processes_agree_with_one(tiny_faces, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    arguments = [str(tiny_faces), str(tmp_path / "cache")]
    here = Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
        "OMP_NUM_THREADS": "1",
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, launch, count in (("one", [], "1"), ("two", launcher, "2")):
        command = [sys.executable, *launch, str(script), count, *arguments, str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one, two = (curve(tmp_path / name / "log.csv") for name in ("one", "two"))
    assert len(one) == len(two) == 4
    assert two == pytest.approx(one, rel=2e-3)
    assert one[0] != pytest.approx(one[3], rel=1e-3)  # something was learnt in between
    assert not list(tmp_path.glob("two/.*"))
    one, two = (weights(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    moved, apart = one.abs().mean(), (one - two).abs().mean()
    assert apart < 0.1 * moved  # without averaging, each process goes its own way
