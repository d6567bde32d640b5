"""From a stroke to the new preview, in a real browser on the studio's own page, with the weights.

    python tests/benchmarks/studio.py
    python tests/benchmarks/studio.py --weights mini-3d

First how long the page and its first face take, from the command that starts the server. A stroke's
time runs from the pointer's release until the new face is decoded on the page. The pipeline's share
is what the kernel measured of the same previews. Then many strokes, as fast as the page takes them,
and the memory of page and kernel (the latter on Linux) before and after. Heads are dragged as well:
from the pointer's move until the turned head is decoded.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import sync_playwright

sys.path.append(str(Path(__file__).parents[1] / "browser"))
from browsers import QUIET, chromium
from served import Painting, server

WATCH = """() => {
  window.released = 0;
  window.waits = [];
  document.querySelector(".dmgi-board canvas")
    .addEventListener("pointerup", () => (released = performance.now()), true);
  new MutationObserver(async () => {
    const from = released;
    await document.querySelector(".dmgi-pictures img").decode();
    if (from) waits.push((performance.now() - from) / 1000);
    released = 0;
  }).observe(document.querySelector(".dmgi-pictures"), { childList: true });
}"""

WATCH_DRAG = """() => {
  window.moved = 0;
  window.waits = [];
  const image = document.querySelector(".dmgi-pictures img");
  image.addEventListener("pointermove", () => (moved ||= performance.now()), true);
  new MutationObserver(async () => {
    const from = moved;
    await image.decode();
    if (from) waits.push((performance.now() - from) / 1000);
    moved = 0;
  }).observe(image, { attributeFilter: ["src"] });
}"""


@dataclass(frozen=True)
class Counts:
    """From a stroke to the new preview, and memory over many strokes."""

    strokes: int = 20
    """strokes whose time is measured"""
    many: int = 500
    """strokes for the memory"""
    drags: int = 20
    """views of a dragged head whose time is measured"""
    weights: str = "mini"
    """preset, or a folder of weights"""


def kernel_memory(process: subprocess.Popen[str]) -> float | None:
    """MB of the server's kernels, or None where `ps` does not tell."""
    command = ["ps", "-o", "rss=", "--ppid", str(process.pid)]
    told = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return sum(map(int, told)) / 1024 if told else None


def page_memory(page: Any) -> float:
    """MB of JavaScript that is in use."""
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    used = tools.send("Runtime.getHeapUsage")
    return sum(used.get(kind, 0) for kind in ("usedSize", "backingStorageSize")) / 2**20


def strokes(painting: Painting, count: int, wait: bool) -> None:
    at = random.Random(0).random
    for _ in range(count):
        painting.page.keyboard.press(".")  # another class, so that each stroke changes the mask
        if not wait:
            painting.stroke((at(), at()), (at(), at()))
            continue
        # A dab: a slow stroke would ask for previews on its way, and the first would be measured.
        # Always at one place, so that none paints what is there already.
        before, box = painting.src(), painting.canvas.bounding_box()
        painting.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 10)
        painting.changed(before)
        painting.page.wait_for_timeout(50)


def drags(painting: Painting, count: int) -> list[float]:
    """Seconds from a move of the pointer to the head's new view, one move after the other."""
    page, box = painting.page, painting.faces.first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(WATCH_DRAG)
    page.mouse.move(x, y)
    page.mouse.down()
    for k in range(count + 1):
        before = painting.src()
        page.mouse.move(x + (30 if k % 2 else -30) + k, y)
        painting.changed(before)
        page.wait_for_timeout(50)
    page.mouse.up()
    found: list[float] = page.evaluate("waits")
    return found[1:]  # the first is slower


def measure(counts: Counts) -> None:
    """Prints times as soon as they are known, those of drags only where heads turn, then memory."""
    began = time.perf_counter()
    command = ("-m", "dmgi_lib.studio", "--port", "0", "--weights", counts.weights)
    pipeline: list[float] = []

    def hear(frame: Any) -> None:
        text = frame if isinstance(frame, bytes) else frame.encode()
        pipeline.extend(float(found) for found in re.findall(rb'"seconds": ?([\d.]+)', text))

    with (
        server(*command, address=r"http://127\.0\.0\.1:\d+/") as (process, address),
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=chromium(), args=[*QUIET, "--no-sandbox"]) as chrome,
    ):
        context = chrome.new_context(viewport={"width": 1280, "height": 900})
        painting = Painting(context, address, hear)
        painting.page.get_by_text("Loading the model").wait_for()
        opened = {"seconds_to_the_page": time.perf_counter() - began}
        painting.ready()
        opened["seconds_to_the_first_face"] = time.perf_counter() - began
        print(json.dumps(opened), flush=True)
        painting.page.evaluate(WATCH)
        painting.canvas.focus()
        strokes(painting, 3, wait=True)  # the first ones are slower
        painting.page.evaluate("waits.length = 0")
        pipeline.clear()
        strokes(painting, counts.strokes, wait=True)
        waits = painting.page.evaluate("waits")
        own = list(pipeline)
        times = {
            "strokes": len(waits),
            "seconds_stroke_to_preview": statistics.median(waits),
            "seconds_of_the_pipeline": statistics.median(own),
            "load": os.getloadavg()[0],
        }
        print(json.dumps(times), flush=True)
        if painting.page.locator(".dmgi-turnable").count():
            waits = drags(painting, counts.drags)
            print(
                json.dumps({"views": len(waits), "seconds_drag_to_view": statistics.median(waits)})
            )
        for drawn in (0, counts.many // 2, counts.many):
            strokes(painting, counts.many // 2 if drawn else 0, wait=False)
            painting.page.locator("figure[aria-busy=false]").wait_for()
            memory = {"page_MB": page_memory(painting.page), "kernel_MB": kernel_memory(process)}
            print(json.dumps({"strokes": drawn, **memory}), flush=True)


if __name__ == "__main__":
    measure(tyro.cli(Counts))
