"""Times of one face: who is timed, in turns, and with how many steps."""

import subprocess
import sys

from tiny_evaluation import tiny_table

from dmgi_lib.evaluation import speed


def test_each_call_is_timed_in_turns(tmp_path, monkeypatch):
    table, passes, clock = tiny_table(tmp_path), [], iter(range(1000))
    unet = table.pipe.unet
    passed = unet.forward
    monkeypatch.setattr(unet, "forward", lambda *a, **k: passes.append(1) or passed(*a, **k))
    marks = []

    def now() -> float:
        marks.append(len(passes))
        return float(next(clock))

    monkeypatch.setattr(speed.time, "perf_counter", now)
    assert table.seconds() == dict.fromkeys(("controlnet", "exit_0", "exit_1", "exit_3"), 1.0)
    # looks at the clock before and after each call, as passes of the U-Net made by then: 6 steps,
    # 1 step, 2, all 4, in turn; the first turn warms up
    turn = [0, 6, 6, 7, 7, 9, 9, 13]
    assert marks == [13 * k + done for k in range(6) for done in turn]


def test_peak_memory_is_that_of_the_program_itself():
    """Not what the process that started it held, which `getrusage` counts in."""
    held = b"x" * 10**9
    code = "from dmgi_lib.evaluation.speed import peak_memory_gb; print(peak_memory_gb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.01 < float(done.stdout) < len(held) / 1e9
    assert speed.peak_memory_gb() > 1
