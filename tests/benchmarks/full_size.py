"""Seconds and peak memory of one image at the sizes of the released networks, on this machine.

    python tests/benchmarks/full_size.py

Weights are random: time and memory do not depend on them. Every network runs in a process of its
own, whose peak memory is the operating system's count of all of it (torch, weights and features).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import torch
from torch import Tensor

from dmgi_lib.evaluation.speed import peak_memory_gb
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.mesh import densities
from dmgi_lib.generators.eg3d.views import render
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator

LIMIT_GB = 6.0


def stylegan2_1024() -> Tensor:
    """18 × 512 style codes → 1024 px."""
    G = StyleGAN2Generator().eval()
    ws = G.mapping(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), None, 0.7)
    return G.synthesis(ws)


def eg3d_512() -> Tensor:
    """14 × 512 style codes → planes 256² × 96 → 128 px, 48 + 48 samples a ray → 512 px."""
    G = TriPlaneGenerator().eval()
    c = look_at(yaw=20.0, pitch=0.0)[None]
    ws = G.mapping(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), c, 0.7)
    return G.synthesis(ws, c).image


def eg3d_heads() -> Tensor:
    """The same seen from two sides, and the 128³ densities from which a mesh is made."""
    G = TriPlaneGenerator().eval()
    cameras = look_at(yaw=[-20.0, 20.0], pitch=0.0)
    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    ws = G.mapping(z, cameras[:1], 0.7)
    views = render(G, ws, cameras)
    if views[0].size != (512, 512) or views[0].tobytes() == views[1].tobytes():
        raise AssertionError("two cameras saw the same, or no pictures of 512 px")
    return torch.from_numpy(densities(G, ws, G.planes(ws), 128))


NETWORKS = {
    "StyleGAN2 1024 px": stylegan2_1024,
    "EG3D 512 px": eg3d_512,
    "EG3D views, mesh": eg3d_heads,
}


def run(name: str) -> dict[str, object]:
    """Builds the network, draws one image, and tells what it took."""
    torch.manual_seed(0)
    begin = time.perf_counter()
    with torch.no_grad():
        image = NETWORKS[name]()
    seconds = time.perf_counter() - begin
    if not image.isfinite().all():
        raise AssertionError(f"{name} drew numbers that are not finite")
    return {"shape": list(image.shape), "seconds": seconds, "peak": peak_memory_gb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=NETWORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(run(given.only)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    over = []
    for name in NETWORKS:
        command = [sys.executable, __file__, "--only", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name:20s}drawn {tuple(found['shape'])}, {found['seconds']:6.1f} s with building,"
            f" peak {found['peak']:.2f} GB"
        )
        if found["peak"] > LIMIT_GB:
            over.append(name)
    if over:
        raise SystemExit(f"above {LIMIT_GB} GB: {', '.join(over)}")


if __name__ == "__main__":
    main()
