"""dmgi_lib.training.loop: exact resume, time budget, whole files, mismatch errors."""

import csv
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dmgi_lib.training import loop

CONFIG = loop.LoopConfig(Path("unset"), minutes=10.0, batch_size=4, log_every=5, max_steps=40)


class Killed(Exception):
    """Stands for a crash in the middle of a run."""


def train(config, *, die_at=None, width=8, on_step=float, sample_fn=None, made_from=None):
    """A small regression with dropout, batch noise and two optimizers."""
    torch.manual_seed(7)
    data = torch.randn(30, 6)
    first, second = (
        nn.Linear(6, width),
        nn.Sequential(nn.Dropout(0.3), nn.Linear(width, 1)),
    )
    second.append(nn.BatchNorm1d(1))
    optimizers = {
        "first": torch.optim.Adam(first.parameters(), 1e-2),
        "second": torch.optim.SGD(second.parameters(), 1e-2, momentum=0.9),
    }

    def step_fn(step, rng, used):
        on_step(used)
        if step == die_at:
            raise Killed
        x = data[loop.batch_indices(len(data), config.batch_size, step, config.seed)]
        noisy = x + 0.1 * torch.randn(x.shape, generator=rng)
        loss = (second(first(noisy)) - x.sum(1, keepdim=True)).square().mean()
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        return {"loss": loss.item(), "rate": optimizers["first"].param_groups[0]["lr"]}

    modules = {"first": first, "second": second}
    options = {"ema": ("second",), "sample_fn": sample_fn, "made_from": made_from}
    return loop.run(config, modules, optimizers, step_fn, **options), modules


def curve(path):
    """All of log.csv except the clock."""
    with open(path, newline="") as file:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]


@pytest.mark.parametrize("die_at", [13, 20, 38])
def test_a_resumed_run_repeats_the_uninterrupted_curve(tmp_path, die_at):
    shape = {"warmup_steps": 4, "cooldown": 0.5}
    whole = dataclasses.replace(CONFIG, run_dir=tmp_path / "whole", **shape)
    # a checkpoint behind the last log row: row 15 or 35 must be cut off and drawn again
    killed = dataclasses.replace(CONFIG, run_dir=tmp_path / "killed", **shape)
    expected, expected_modules = train(whole)
    with pytest.raises(Killed):
        train(dataclasses.replace(killed, checkpoint_minutes=0.0), die_at=die_at - 6)
    with pytest.raises(Killed):
        train(killed, die_at=die_at)
    resumed, modules = train(killed)
    assert resumed.step == expected.step == 40
    assert curve(resumed.log_path) == curve(expected.log_path)
    assert len(curve(resumed.log_path)) == 8
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, expected_modules[name].state_dict()[key])
    for key, value in resumed.ema["second"].state_dict().items():
        assert torch.equal(value, expected.ema["second"].state_dict()[key])


def test_the_time_budget_is_summed_over_resumes(tmp_path, monkeypatch):
    clock, shares = {"now": 1000.0}, []
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock["now"])

    def spend(used):
        clock["now"] += 1.0
        shares.append(used)

    config = dataclasses.replace(CONFIG, run_dir=tmp_path, minutes=0.5, max_steps=None)
    result, _ = train(config, on_step=spend)
    assert (result.step, result.seconds) == (30, 30.0)
    clock["now"] += 500.0  # between two runs nothing is spent
    again, _ = train(config, on_step=spend)
    assert (again.step, again.seconds) == (30, 30.0)
    longer, _ = train(dataclasses.replace(config, minutes=1.0), on_step=spend)
    assert (longer.step, longer.seconds) == (60, 60.0)
    assert shares[:30] == pytest.approx([second / 30 for second in range(30)])
    assert shares[30:] == pytest.approx([second / 60 for second in range(30, 60)])


def test_the_average_halves_with_its_half_life(tmp_path):
    weight = nn.Linear(1, 1, bias=False)
    weight.register_buffer("seen", torch.zeros(1))
    weight.weight.data.fill_(0.0)

    def step_fn(step, rng, used):
        weight.weight.data.fill_(1.0)
        weight.seen += 1
        return {}

    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=20, ema_half_life_steps=1.0)
    averaged = loop.run(config, {"net": weight}, {}, step_fn, ema=("net",)).ema["net"]
    assert averaged.weight.item() == pytest.approx(1 - 0.5**20)
    assert averaged.seen.item() == 20 and not averaged.weight.requires_grad
    config = dataclasses.replace(config, run_dir=tmp_path / "slow", ema_half_life_steps=500.0)
    weight.weight.data.fill_(0.0)
    averaged = loop.run(config, {"net": weight}, {}, step_fn, ema=("net",)).ema["net"]
    lives = [max(1.0, step / 10) for step in range(1, 21)]  # as the half life warms up
    assert averaged.weight.item() == pytest.approx(1 - 0.5 ** sum(1 / n for n in lives))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="'tpu'"):
        loop.accelerator_for("tpu")
    assert loop.accelerator_for("cpu").device == torch.device("cpu")


def test_minutes_zero_loads_the_checkpoint_and_nothing_else(tmp_path):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="train first"):
        train(dataclasses.replace(config, minutes=0.0))
    trained, modules = train(config)
    loaded, fresh = train(dataclasses.replace(config, minutes=0.0))
    assert loaded.step == trained.step
    assert torch.equal(fresh["first"].weight, modules["first"].weight)


def test_warmup_and_cooldown_scale_the_learning_rate(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        run_dir=tmp_path,
        warmup_steps=10,
        cooldown=0.25,
        max_steps=40,
        log_every=1,
    )
    result, _ = train(config)
    rates = [float(row["rate"]) for row in curve(result.log_path)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[9:31] == pytest.approx([1e-2] * 22)
    assert rates[35] == pytest.approx(5e-3)
    assert rates[39] == pytest.approx(1e-3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 5}])
def test_another_seed_or_batch_size_is_refused(tmp_path, change):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=3)
    train(config)
    with pytest.raises(ValueError, match=f"{next(iter(change))} was .*another run_dir"):
        train(dataclasses.replace(config, **change))


def test_a_run_made_from_something_else_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=3)
    facts = {"stage": 1, "features": {"unet": "1f0c", "steps": (0, 9)}}
    train(config, made_from=facts)
    longer = dataclasses.replace(config, max_steps=4, minutes=20.0, checkpoint_minutes=1.0)
    assert train(longer, made_from=facts)[0].step == 4  # budgets may change
    other = {"stage": 2, "features": {"unet": "93ab", "steps": (0, 9)}}
    with pytest.raises(ValueError, match="another run: ") as error:
        train(longer, made_from=other)
    assert "made_from.stage was 1, is 2" in str(error.value)
    assert "made_from.features.unet was '1f0c', is '93ab'" in str(error.value)
    assert "steps" not in str(error.value)
    with pytest.raises(ValueError, match="made_from.stage was 1, is nothing"):
        train(longer)


def test_a_checkpoint_from_before_made_from_is_continued_where_nothing_is_asked(tmp_path):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=3)
    train(config)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["made_from"]
    torch.save(state, path)
    assert train(dataclasses.replace(config, max_steps=4))[0].step == 4
    torch.save(state, path)
    with pytest.raises(ValueError, match="made_from.stage was nothing, is 1"):
        train(config, made_from={"stage": 1})


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path, share):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=3)
    train(config)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="checkpoint.pt is truncated"):
        train(config)


def test_leftovers_of_killed_writes_are_swept_once_they_are_old(tmp_path):
    old, young, other = (tmp_path / f".{n}.checkpoint.pt" for n in ("17", "18", "x"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 3700,) * 2)
    train(dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=1))
    assert not old.exists() and young.exists() and other.exists()


def test_another_architecture_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=3)
    train(config)
    with pytest.raises(ValueError, match="another architecture"):
        train(config, width=9)


def test_a_number_that_is_not_finite_stops_the_run(tmp_path):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path)
    with pytest.raises(FloatingPointError, match="loss became nan at step 0"):
        loop.run(config, {}, {}, lambda step, rng, used: {"loss": float("nan")})


def test_columns_may_appear_later(tmp_path):
    config = dataclasses.replace(CONFIG, run_dir=tmp_path, log_every=2, max_steps=6)

    def step_fn(step, rng, used):
        return {"loss": 1.0} | ({"penalty": float(step)} if step == 3 else {})

    result = loop.run(config, {}, {}, step_fn)
    assert [row["penalty"] for row in curve(result.log_path)] == ["", "3", ""]


def test_sample_images_are_drawn_from_the_average(tmp_path):
    seen = {}

    def sample_fn(step, modules):
        seen[step] = sorted(modules)
        return np.full((4, 6, 3), step, np.uint8)

    config = dataclasses.replace(CONFIG, run_dir=tmp_path, max_steps=3)
    train(config, sample_fn=sample_fn)
    assert seen == {3: ["second"]}
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["0000003.png"]


def test_batches_are_permutations_and_pure():
    n, size = 10, 4
    rows = [loop.batch_indices(n, size, step, seed=3) for step in range(10)]
    stream = torch.cat(rows)
    for epoch in range(4):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    assert torch.equal(loop.batch_indices(n, size, 7, seed=3), rows[7])
    assert not torch.equal(torch.cat([loop.batch_indices(n, 10, 0, seed=4)]), stream[:n])
    assert len(loop.batch_indices(3, 8, 0, seed=0)) == 8
    with pytest.raises(ValueError, match="n=0"):
        loop.batch_indices(0, 4, 0, 0)
