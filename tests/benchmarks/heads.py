"""Views and meshes of the heads that ship: seconds, memory, and whether meshes are whole.

    python tests/benchmarks/heads.py

Views: medians in turns, planes computed once a code, by side of the rendered picture and samples a
ray; every size in a process of its own, for its peak memory. Meshes: random heads of G at 128³.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch
import tyro

from dmgi_lib.devices import machine
from dmgi_lib.evaluation.speed import in_turns, peak_memory_gb
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.mesh import head_mesh
from dmgi_lib.presets import MINI_3D
from dmgi_lib.training.losses import drawn_codes
from dmgi_lib.weight_folder import load_part

SIDES, SAMPLES = (32, 64), (6, 12, 24)


def codes(G: TriPlaneGenerator, count: int) -> torch.Tensor:
    w = drawn_codes(G, count, torch.Generator().manual_seed(0))
    return w[:, None].expand(-1, G.num_ws, -1)


@torch.no_grad()
def views(G: TriPlaneGenerator, side: int, samples: int) -> dict[str, float]:
    """Seconds of a first view, planes included, and of another one; peak memory."""
    G.rendering = replace(
        G.rendering, depth_resolution=samples, depth_resolution_importance=samples
    )
    ws, c = codes(G, 1), look_at([20.0], 0.0)
    planes = G.planes(ws)
    calls = {
        "first_view": lambda: G.synthesis(ws, c, side),
        "another_view": lambda: G.synthesis(ws, c, side, planes=planes),
    }
    return in_turns(calls, torch.device("cpu")) | {"peak_memory_gb": peak_memory_gb()}


def meshes(G: TriPlaneGenerator, count: int) -> dict[str, float]:
    """Median seconds of a mesh, and the worst of its pieces and of its open edges' share."""
    seconds, pieces, edges = [], [], []
    for code in codes(G, count):
        begin = time.perf_counter()
        mesh = head_mesh(G, code, 128)
        seconds.append(time.perf_counter() - begin)
        pieces.append(mesh.body_count)
        edges.append(float((np.bincount(mesh.edges_unique_inverse) == 1).mean()))
    return {"mesh": median(seconds), "pieces": max(pieces), "open_edges": max(edges)}


@dataclass(frozen=True)
class Heads:
    """Prints a line of JSON for each size of view, and one for the meshes."""

    heads: int = 5
    """whose meshes are made"""
    only: tuple[int, ...] = ()
    """side and samples of the one view that is measured, in this process"""

    def run(self) -> None:
        G = load_part(MINI_3D.folder, "generator")
        assert isinstance(G, TriPlaneGenerator)
        G.eval()
        if self.only:
            print(json.dumps(views(G, *self.only)))
            return
        print(json.dumps({"machine": machine(torch.device("cpu"))}))
        for side in SIDES:
            for samples in SAMPLES:
                command = [sys.executable, __file__, "--only", str(side), str(samples)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                counts = {"side": side, "samples_a_ray": f"{samples} + {samples}"}
                print(json.dumps(counts | found), flush=True)
        print(json.dumps(meshes(G, self.heads)))


if __name__ == "__main__":
    tyro.cli(Heads).run()
