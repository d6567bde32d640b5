"""Trainings in processes of their own: killed by SIGKILL they go on, and two train like one."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import generator, pipeline

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training import feature_cache
from dmgi_lib.training.features import CacheConfig
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.trainer import StageConfig, StageTrainer

INTERVAL = 1.0  # seconds between checkpoints
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unknown to this text encoder"),
]


def make_cache(root: Path, folder: Path) -> None:
    config = CacheConfig(steps=(0, 2), num_inference_steps=3, shard_size=4)
    feature_cache.build(config, pipeline(), FaceDataset(root), folder)


def train(root: Path, cache: Path, run_dir: Path, max_steps: int | None = None) -> None:
    torch.manual_seed(0)
    loss_net = Recognizer(channels=(4, 8, 8, 8, 8))
    parts = (feature_cache.FeatureCache(cache), FaceDataset(root), generator(), loss_net)
    trainer = StageTrainer(StageConfig(1, LossWeights(code_prior=0.01), held_out=2), *parts)
    assert trainer.accelerator.num_processes == int(os.environ.get("WORLD_SIZE", 1))
    sizes = {"minutes": 60.0, "batch_size": 4, "log_every": 1, "max_steps": max_steps}
    trainer.fit(LoopConfig(run_dir, checkpoint_minutes=INTERVAL / 60, **sizes))


def die_in_the_middle(write, after: int):
    """`write(content, target)` that kills its process with half a file written."""
    done = []

    def dying(content, target):
        if len(done) == after:
            Path(target).write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(target)
        return write(content, target)

    return dying


def main() -> None:
    """What the child processes run: job and folders are on the command line."""
    torch.set_num_threads(1)
    job, *folders = sys.argv[1:]
    steps = 4 if job == "share" else None
    if job == "build":
        feature_cache.save_file = die_in_the_middle(feature_cache.save_file, after=2)
        make_cache(*map(Path, folders))
    if job == "save":
        torch.save = die_in_the_middle(torch.save, after=2)
    train(*map(Path, folders), steps)


def start(job: str, *folders: Path, launcher: Sequence[str] = ()) -> subprocess.Popen:
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            str(folder) for folder in (here, here.parent, here.parents[2])
        ),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *launcher, __file__, job, *map(str, folders)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ended(child: subprocess.Popen, code: int = -signal.SIGKILL) -> None:
    """Waits, and makes sure that it was SIGKILL, or what was expected, that ended it."""
    error = child.communicate(timeout=900)[1]
    assert child.returncode == code, error


def rows(run_dir: Path) -> list[dict[str, str]]:
    path = run_dir / "log.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def curve(run_dir: Path) -> list[dict[str, str]]:
    """All of log.csv except the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(run_dir)]


@pytest.fixture(scope="module")
def whole_cache(tiny_faces, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "cache"
    make_cache(tiny_faces, folder)
    return folder


def test_a_killed_build_goes_on_without_loss(tiny_faces, whole_cache, tmp_path):
    folder = tmp_path / "cache"
    ended(start("build", tiny_faces, folder))
    made = sorted(folder.glob("view*"))
    assert len(made) == 2  # of four; the third was being written
    half = [path for path in folder.glob(".*") if path.read_bytes() == b"half a file"]
    assert len(half) == 1
    kept = [path.stat().st_mtime_ns for path in made]
    assert len(feature_cache.FeatureCache(folder)) == 8  # whole shards only
    make_cache(tiny_faces, folder)
    assert [path.stat().st_mtime_ns for path in made] == kept
    shards = sorted(folder.glob("view*"))
    assert [path.name for path in shards] == [p.name for p in sorted(whole_cache.glob("view*"))]
    for shard in shards:
        once, resumed = load_file(whole_cache / shard.name), load_file(shard)
        assert once.keys() == resumed.keys()
        assert all(torch.equal(once[name], resumed[name]) for name in once)


def test_a_killed_training_repeats_the_unbroken_curve(tiny_faces, whole_cache, tmp_path):
    run_dir, folders = tmp_path / "killed", (tiny_faces, whole_cache)
    child = start("train", *folders, run_dir)
    checkpoint = run_dir / "checkpoint.pt"
    while child.poll() is None and not (checkpoint.exists() and len(rows(run_dir)) >= 12):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    ended(child)
    log, saved = rows(run_dir), torch.load(checkpoint, weights_only=True)
    clock = [float(row["seconds"]) for row in log]
    slowest = max(b - a for a, b in zip([0.0, *clock], clock, strict=False))
    assert 0 < saved["step"] <= len(log)
    assert clock[-1] - saved["seconds"] <= INTERVAL + 2 * slowest + 0.1  # lost at most
    first_death = saved["step"]

    ended(start("save", *folders, run_dir))  # half-way through a checkpoint
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["step"] > first_death
    assert rows(run_dir)[0]["step"] == "1" and int(rows(run_dir)[-1]["step"]) >= saved["step"]

    total = saved["step"] + 5
    train(*folders, run_dir, total)
    train(*folders, tmp_path / "whole", total)
    resumed, unbroken = curve(run_dir), curve(tmp_path / "whole")
    assert len(unbroken) == total and {"loss", "l2 (I)", "code_prior"} <= set(unbroken[0])
    assert unbroken[0]["loss"] != unbroken[-1]["loss"]
    assert resumed == unbroken
    once, again = (
        torch.load(d / "checkpoint.pt", weights_only=True) for d in (tmp_path / "whole", run_dir)
    )
    for part in ("modules", "ema"):
        for name, value in once[part]["mapping_network"].items():
            assert torch.equal(value, again[part]["mapping_network"][name]), (part, name)


def test_two_processes_agree_with_one(tiny_faces, whole_cache, tmp_path):
    """Same batches, averaged gradients, one writer."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, launch in (("one", []), ("two", launcher)):
        ended(start("share", tiny_faces, whole_cache, tmp_path / name, launcher=launch), 0)
    one, two = ([float(row["loss"]) for row in rows(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == len(two) == 4
    assert two == pytest.approx(one, rel=2e-3)
    assert one[0] != pytest.approx(one[3], rel=1e-3)  # something was learnt in between
    assert not list(tmp_path.glob("two/.*"))
    files = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("one", "two"))
    one, two = (file["modules"]["mapping_network"]["fc.weight"] for file in files)  # from zero
    moved, apart = one.abs().mean(), (one - two).abs().mean()
    assert apart < 0.1 * moved  # without averaging, each process goes its own way


if __name__ == "__main__":
    main()
