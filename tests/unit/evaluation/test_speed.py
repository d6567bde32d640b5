"""Times of one face: who is timed, in turns, and with how many steps."""

import subprocess
import sys

from tiny_models import face_mask, pipeline

from dmgi_lib.evaluation import speed


def test_each_call_is_timed_in_turns(monkeypatch):
    pipe, passes, clock = pipeline(), [], iter(range(1000))
    passed = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: passes.append(1) or passed(*a, **k))
    marks = []

    def now() -> float:
        marks.append(len(passes))
        return float(next(clock))

    monkeypatch.setattr(speed.time, "perf_counter", now)
    found = speed.seconds_a_face(
        pipe, "a young woman", face_mask(), "mask", (0, 3), controlnet_steps=6, repeats=2
    )
    assert found == {"controlnet": 1.0, "exit_0": 1.0, "exit_3": 1.0}
    # looks at the clock before and after each call, as passes of the U-Net made by then: 6 steps,
    # 1 step, all 4, in turn; the first turn warms up
    turn = [0, 6, 6, 7, 7, 11]
    assert marks == [*turn, *(11 + k for k in turn), *(22 + k for k in turn)]


def test_peak_memory_is_that_of_the_program_itself():
    """Not what the process that started it held, which `getrusage` counts in."""
    held = b"x" * 10**9
    code = "from dmgi_lib.evaluation.speed import peak_memory_gb; print(peak_memory_gb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.01 < float(done.stdout) < len(held) / 1e9
    assert speed.peak_memory_gb() > 1
