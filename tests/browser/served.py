"""Servers of real pages in processes of their own, and the studio as a person uses it there."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
LONG = 300_000  # ms: a kernel starts, imports PyTorch and loads the model, on a busy machine


@contextmanager
def server(*command: str, address: str, **environment: str) -> Iterator[tuple[Any, str]]:
    """A process, and the first text that it writes which fits the pattern `address`."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := re.search(address, line):
                break
        else:
            raise AssertionError(f"the server ended: {''.join(said)}")
        yield process, found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Painting:
    """A studio on a page of a real server; asks for nothing but that server and reports errors."""

    def __init__(
        self, context: Any, address: str, hear: Callable[[Any], None] | None = None
    ) -> None:
        """`hear` is called with what comes from the kernel."""
        self.page = context.new_page()
        if hear:
            self.page.on("websocket", lambda one: one.on("framereceived", hear))
        self.page.set_default_timeout(LONG)
        self.outside, self.errors = [], []
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address, wait_until="commit")

    def _note(self, request: Any) -> None:
        if not re.match(r"(http|ws)://127\.0\.0\.1[:/]|blob:|data:", request.url):
            self.outside.append(request.url)

    def ready(self) -> None:
        """Waits until the first face is shown."""
        self.canvas = self.page.locator(".dmgi-board canvas")
        self.faces = self.page.locator(".dmgi-pictures img")
        self.prompt = self.page.get_by_label("Describe the face")
        self.faces.first.wait_for()

    def src(self) -> str:
        return self.faces.first.get_attribute("src")

    def changed(self, before: str) -> None:
        """Waits until another face than `before` is shown."""
        self.page.wait_for_function(
            "(src) => document.querySelector('.dmgi-pictures img').src !== src", arg=before
        )

    def stroke(self, *points: tuple[float, float]) -> None:
        """Points in shares of the canvas's edge."""
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places:
            self.page.mouse.move(*place)
        self.page.mouse.up()

    def choose(self, name: str) -> None:
        self.page.locator(".dmgi-choice").get_by_text(name, exact=True).click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def pixels(self) -> np.ndarray:
        """(128, 128, 4) what the canvas shows."""
        flat = self.page.evaluate(
            """() => { const canvas = document.querySelector(".dmgi-board canvas");
            const { width, height } = canvas;
            return [...canvas.getContext("2d").getImageData(0, 0, width, height).data]; }"""
        )
        return np.array(flat, np.uint8).reshape(128, 128, 4)

    def load(self, mask: np.ndarray) -> None:
        """Loads a file of class ids."""
        file = io.BytesIO()
        Image.fromarray(mask).save(file, "PNG")
        given = {"name": "mask.png", "mimeType": "image/png", "buffer": file.getvalue()}
        self.page.locator(".dmgi-painter input[type=file]").set_input_files(given)

    def saved(self, name: str) -> Image.Image:
        """The picture that a button downloads."""
        with self.page.expect_download() as download:
            self.press(name)
        return Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
