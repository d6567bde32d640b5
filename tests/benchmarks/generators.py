"""Speed of the kit as ratios, all measured in one run on one machine.

    python tests/benchmarks/generators.py            (or make bench)

Generators: images per second and peak memory beside grouped convolutions. That formulation builds a
kernel for every sample (StyleGAN2, Sec. 2.2) and convolves with one group a sample. It draws the
same image, which is checked before anything is reported. Every row runs in a process of its own;
the two formulations take turns, and medians are compared. Backward passes reach the latents alone,
as in the method and in inversion, where G is frozen, or the weights as well, as when G itself is
trained. Then a training step from the feature cache beside one with E in the loop
(`training_step`).

On a busy machine, --cpu-time measures the processor's time on one thread instead of the clock.
--check fails if a ratio is below its bound: 1.5 for forward and backward to the latents of
StyleGAN2 at 128 px, the geometric mean over batches for each size, and 5 for the cache.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import date
from itertools import product
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.devices import machine
from dmgi_lib.evaluation.speed import peak_memory_gb
from dmgi_lib.generators.eg3d import EG3DOutput, TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.volume_rendering import RenderingConfig
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.generators.stylegan2_layers import (
    LRELU_GAIN,
    LRELU_SLOPE,
    SynthesisLayer,
    ToRGBLayer,
)

STYLEGAN2 = {
    "StyleGAN2 128 px, mini": dict(
        z_dim=128,
        w_dim=128,
        img_resolution=128,
        mapping_layers=4,
        channel_base=2048,
        channel_max=128,
    ),
    "StyleGAN2 128 px, FFHQ channels": dict(img_resolution=128, channel_base=16384),
}
EG3D_MINI = dict(
    z_dim=128,
    w_dim=128,
    img_resolution=128,
    channel_base=2048,
    channel_max=128,
    plane_resolution=64,
    plane_channels=16,
    feature_channels=16,
    neural_rendering_resolution=32,
    sr_channels=(32, 16),
    rendering=RenderingConfig(12, 12),
)
PASSES = ("forward", "+ backward to latents", "+ backward to weights")
NETWORKS = (*STYLEGAN2, "EG3D 128 px, mini")
BOUND, CACHE_BOUND = 1.5, 5.0


def grouped_forward(
    layer: SynthesisLayer, x: Tensor, w: Tensor, noise_mode: str, generator: torch.Generator | None
) -> Tensor:
    """SynthesisLayer.forward with per-sample kernels and one group a sample."""
    batch, channels, height, width = x.shape
    style = layer.affine(w)
    kernel = layer.weight[None] * style[:, None, :, None, None]  # (B, out, in, 3, 3)
    kernel = kernel * (kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, batch * channels, height, width)
    if layer.up:
        x = F.conv_transpose2d(x, kernel.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        fir = (layer.resample_filter * 4).expand(x.shape[1], 1, 4, 4)
        x = F.conv2d(x, fir, padding=1, groups=x.shape[1])
    else:
        x = F.conv2d(x, kernel.flatten(0, 1), padding=1, groups=batch)
    x = x.reshape(batch, -1, *x.shape[2:]) * LRELU_GAIN
    noise = layer._noise(batch, noise_mode, generator)
    if noise is not None:
        x = x + noise[:, None]
    return F.leaky_relu(x + (layer.bias * LRELU_GAIN)[:, None, None], LRELU_SLOPE)


def grouped_rgb(layer: ToRGBLayer, x: Tensor, w: Tensor) -> Tensor:
    """ToRGBLayer.forward in the same manner."""
    style = layer.affine(w) * layer.weight_gain
    kernel = layer.weight[None] * style[:, None, :, None, None]  # (B, img, in, 1, 1)
    image = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernel.flatten(0, 1), groups=len(x))
    return image.reshape(len(x), -1, *x.shape[2:]) + layer.bias[:, None, None]


@contextmanager
def formulation(name: str):
    """Inside, synthesis layers run "ours" or "grouped"."""
    with ExitStack() as stack:
        if name == "grouped":
            stack.enter_context(mock.patch.object(SynthesisLayer, "forward", grouped_forward))
            stack.enter_context(mock.patch.object(ToRGBLayer, "forward", grouped_rgb))
        yield


def build(name: str, what: str) -> Any:
    torch.manual_seed(0)
    sizes = STYLEGAN2.get(name)
    G = TriPlaneGenerator(**EG3D_MINI) if sizes is None else StyleGAN2Generator(**sizes)
    return G.eval().requires_grad_(what == PASSES[2])


def run_once(G: Any, ws: Tensor) -> Tensor:
    if isinstance(G, TriPlaneGenerator):
        drawn: EG3DOutput = G.synthesis(ws, look_at(yaw=20.0, pitch=0.0).expand(len(ws), -1))
        image = drawn.image
    else:
        image = G.synthesis(ws)
    if not image.requires_grad:
        return image
    G.zero_grad(set_to_none=True)
    image.square().mean().backward()
    return image.detach()


def measure(name: str, what: str, batch: int, repeats: int, cpu_time: bool) -> dict[str, float]:
    """Images per second of both formulations, and their largest difference."""
    clock = time.process_time if cpu_time else time.perf_counter
    if cpu_time:
        torch.set_num_threads(1)
    G = build(name, what)
    rng = torch.Generator().manual_seed(1)
    ws = torch.randn(batch, 1, G.config.w_dim, generator=rng).repeat(1, G.num_ws, 1)
    ws.requires_grad_(what != PASSES[0])
    seconds: dict[str, list[float]] = {"ours": [], "grouped": []}
    images = {}
    for turn in range(repeats + 1):
        for way in seconds:
            with formulation(way):
                begin = clock()
                images[way] = run_once(G, ws).detach()
                if turn > 0:  # the first is the warm-up
                    seconds[way].append(clock() - begin)
    difference = (images["ours"] - images["grouped"]).abs().max() / images["grouped"].std()
    if difference > 1e-3:
        raise AssertionError(f"the formulations differ by {difference:.1e} of the deviation")
    rate = {way: batch / statistics.median(s) for way, s in seconds.items()}
    return rate | {"ratio": rate["ours"] / rate["grouped"], "difference": difference.item()}


def peak(name: str, what: str, batch: int, way: str) -> float:
    """Peak memory of this process in GB after one pass."""
    G = build(name, what)
    ws = torch.zeros(batch, G.num_ws, G.config.w_dim, requires_grad=what != PASSES[0])
    with formulation(way):
        run_once(G, ws)
    return peak_memory_gb()


def in_fresh_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--row", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def row(name: str, what: str, batch: int, repeats: int, cpu_time: bool) -> dict[str, float]:
    arguments = (name, what, str(batch), str(repeats), str(int(cpu_time)))
    found = in_fresh_process("speed", *arguments)
    for way in ("ours", "grouped"):
        found[f"GB {way}"] = in_fresh_process(way, *arguments)["peak"]
    return found


def generator_ratios(batches: list[int], repeats: int, cpu_time: bool) -> dict[str, float]:
    """Prints a line a row; returns "network pass" → geometric mean of the ratios over batches."""
    print(f"{'':55s}{'batch':>5s}{'ours/s':>9s}{'grouped/s':>11s}{'ratio':>7s}", end="")
    print(f"{'GB':>6s}{'GB grouped':>12s}")
    means = {}
    for name, what in product(NETWORKS, PASSES):
        logs = []
        for batch in batches:
            found = row(name, what, batch, repeats, cpu_time)
            logs.append(math.log(found["ratio"]))
            print(f"{name:32s}{what:23s}{batch:5d}{found['ours']:9.1f}", end="")
            print(f"{found['grouped']:11.1f}{found['ratio']:7.2f}", end="")
            print(f"{found['GB ours']:6.2f}{found['GB grouped']:12.2f}", flush=True)
        means[f"{name} {what}"] = math.exp(statistics.fmean(logs))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16], help="images at once")
    parser.add_argument("--repeats", type=int, default=3, help="passes per median")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread")
    parser.add_argument("--check", action="store_true", help="fail below the stated bounds")
    parser.add_argument("--row", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        kind, name, what, batch, repeats, cpu_time = given.row
        if kind == "speed":
            found = measure(name, what, int(batch), int(repeats), cpu_time == "1")
        else:
            found = {"peak": peak(name, what, int(batch), kind)}
        print(json.dumps(found))
        return
    import training_step  # not above: its imports would count in the memory of every row

    if given.cpu_time:
        torch.set_num_threads(1)
    print(f"{date.today()}, {machine()}; {'processor time' if given.cpu_time else 'clock'}")
    ratios = generator_ratios(given.batch, given.repeats, given.cpu_time)
    bounds = {f"{name} {PASSES[1]}": BOUND for name in STYLEGAN2}
    cached, online = training_step.seconds(2 * given.repeats, cpu_time=given.cpu_time)
    cache = "stage-1 step, E in the loop over from the cache"
    ratios[cache], bounds[cache] = online / cached, CACHE_BOUND
    print(f"\nstage-1 step: from the cache {cached:.3f} s, with E in the loop {online:.3f} s\n")
    for name, ratio in ratios.items():
        bound = f"  (at least {bounds[name]:g})" if name in bounds else ""
        print(f"ratio {ratio:6.2f}  {name}{bound}")
    missed = [name for name, bound in bounds.items() if ratios[name] < bound]
    if given.check and missed:
        raise SystemExit(f"below the bound: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
