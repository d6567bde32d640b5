"""Logs of runs: what a killed run left, new columns, reading back."""

import sys
from pathlib import Path

import pytest
import torch

from dmgi_lib.training import run_files


def test_a_log_row_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,seconds,loss\n5,0.1,0.75\n10,0.2,0.62")  # was to become 0.625
    log = run_files.RunLog(path, 10, {})
    assert log.last() == {"step": 5, "seconds": 0.1, "loss": 0.75}


def test_log_is_read_back_with_gaps(tmp_path):
    log = run_files.RunLog(tmp_path / "log.csv", 0, {})
    log.add({"l2 (I)": 2.0}, 1)
    log.write_row(1, 0.5)
    log.add({"l2 (I)": 1.0, "D": 3.0}, 2)
    log.write_row(2, 1.0)
    read = run_files.read_log(tmp_path / "log.csv")
    assert read["step"] == [1, 2] and read["l2 (I)"] == [2, 1] and read["seconds"] == [0.5, 1.0]
    assert read["D"][0] != read["D"][0] and read["D"][1] == 3  # NaN where there was none


def test_numbers_on_a_gpu_are_read_with_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "_is_far", lambda value: isinstance(value, torch.Tensor))
    log = run_files.RunLog(tmp_path / "log.csv", 0, {})
    for step, loss in enumerate((0.5, 1.0, 1.5)):
        log.add({"loss": torch.tensor(loss), "rate": 2.0}, step)
    assert len(log._waiting) == 3  # nobody has waited for the GPU yet
    assert log.sums == {"loss": [3.0, 3.0], "rate": [6.0, 3.0]}
    log.write_row(3, 0.5)
    assert log.last() == {"step": 3, "seconds": 0.5, "loss": 1.0, "rate": 2.0}
    log.add({"loss": torch.tensor(float("nan"))}, 3)
    log.add({"loss": torch.tensor(1.0)}, 4)
    with pytest.raises(FloatingPointError, match="loss became nan at step 3"):
        log.write_row(5, 1.0)


def test_numbers_on_a_cpu_are_read_at_once(tmp_path):
    log = run_files.RunLog(tmp_path / "log.csv", 0, {})
    with pytest.raises(FloatingPointError, match="loss became inf at step 7"):
        log.add({"loss": torch.tensor(float("inf"))}, 7)


def test_the_command_in_a_card_can_be_typed(monkeypatch):
    home = str(Path.home() / "my faces")
    monkeypatch.setattr(sys, "argv", ["", "unet", "--data", home, "--out", "two words"])
    text = run_files.card("U-Net", "a.b", ["seed 0"], [], "About.", "measurement", {"error": 1e-5})
    assert "`python -m a.b unet --data ~/'my faces' --out 'two words'`" in text
    assert "- seed 0\n" in text and "| error | 1e-05 |" in text
