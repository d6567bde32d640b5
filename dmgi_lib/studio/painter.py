"""The painter: a canvas of class ids and one of strokes, the same in the browser and in Python."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image

from dmgi_lib.masks import CLASSES, PALETTE, flip_mask, load_mask
from dmgi_lib.pictures import LARGEST
from dmgi_lib.scribble_input import load_scribble
from dmgi_lib.studio.page import FROM_PAGE, STYLE, script

MODES = ("mask", "scribble")
Array = np.ndarray[Any, Any]

# What the page calls the classes whose names are short; left and right are the person's own.
PLAIN_NAMES = {
    "eye_g": "glasses", "l_eye": "left eye", "r_eye": "right eye", "l_brow": "left brow",
    "r_brow": "right brow", "l_ear": "left ear", "r_ear": "right ear", "u_lip": "upper lip",
    "l_lip": "lower lip", "ear_r": "earring", "neck_l": "necklace", "cloth": "clothes",
}  # fmt: skip


class Painter(anywidget.AnyWidget):
    """A canvas to paint a mask, or a scribble, by pointer or keyboard.

    painter = Painter(128)
    painter.mask = "mask.png"          # shown; undo on the page brings back what was there
    painter.mask                       # what is painted now

    Args:
        size: edge of the canvas in pixels, 16 … 1024.
        modes: which of "mask" and "scribble" can be painted; the first is shown.
        examples: masks to begin with, a name and what `load_mask` takes of each.

    Attributes:
        mode: "mask" or "scribble", the one that is shown
        ids, strokes: both canvases as the page sees them, size * size bytes row by row: class ids
            0 … 18, and 0 or 255
    """

    _esm = script("page.js", "pixels.js", "layer.js", "painter.js")
    _css = STYLE

    size = traitlets.Int(128, min=16, max=1024).tag(sync=True)
    mode = traitlets.Enum(MODES, "mask").tag(**FROM_PAGE)
    modes = traitlets.List(traitlets.Enum(MODES), list(MODES), minlen=1).tag(sync=True)
    ids = traitlets.CBytes().tag(**FROM_PAGE)
    strokes = traitlets.CBytes().tag(**FROM_PAGE)
    names = traitlets.List([PLAIN_NAMES.get(name, name) for name in CLASSES]).tag(sync=True)
    example_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    examples = traitlets.CBytes().tag(sync=True)  # their class ids, one canvas after the other
    palette = traitlets.List(PALETTE.tolist()).tag(sync=True)
    # Of each class, the one that a mirror makes of it: left eye, right eye.
    twins = traitlets.List(flip_mask(torch.arange(len(CLASSES))[None]).flip(-1)[0].tolist()).tag(
        sync=True
    )

    def __init__(
        self,
        size: int = 128,
        modes: tuple[str, ...] = MODES,
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        empty = bytes(size * size)
        given = examples or {}
        super().__init__(
            size=size,
            modes=list(modes),
            mode=next(iter(modes), "mask"),
            ids=empty,
            strokes=empty,
            example_names=list(given),
            examples=b"".join(load_mask(mask, size).numpy().tobytes() for mask in given.values()),
        )
        self.on_msg(self._receive)
        self.observe(lambda _: self.send({"type": "kept"}), ["ids", "strokes"])

    @traitlets.validate("ids", "strokes")
    def _check_canvas(self, proposal: dict[str, Any]) -> bytes:
        name, value = proposal["trait"].name, bytes(proposal["value"])
        pixels = np.frombuffer(value, np.uint8)
        if len(pixels) != self.size**2:
            raise traitlets.TraitError(
                f"{name} came as {len(pixels)} bytes; expected {self.size} x {self.size}, one a"
                " pixel, row by row."
            )
        wrong = pixels >= len(CLASSES) if name == "ids" else ~np.isin(pixels, (0, 255))
        if wrong.any():
            expected = f"class ids 0..{len(CLASSES) - 1}" if name == "ids" else "0 or 255"
            raise traitlets.TraitError(
                f"{name} holds {np.unique(pixels[wrong])[:8].tolist()}; expected {expected}."
            )
        return value

    @property
    def mask(self) -> Array:
        """(H, W) uint8 class ids; takes all that `dmgi_lib.masks.load_mask` does."""
        return np.frombuffer(self.ids, np.uint8).reshape(self.size, self.size).copy()

    @mask.setter
    def mask(self, mask: Any) -> None:
        self.ids = load_mask(mask, self.size).numpy().tobytes()

    @property
    def scribble(self) -> Array:
        """(H, W) uint8, 0 or 255; takes all that `scribble_input.load_scribble` does."""
        return np.frombuffer(self.strokes, np.uint8).reshape(self.size, self.size).copy()

    @scribble.setter
    def scribble(self, scribble: Any) -> None:
        self.strokes = load_scribble(scribble, self.size).numpy().tobytes()

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        """A file from the page: painted, or a word why not; the drawing stays as it was then."""
        if content.get("type") != "load" or not buffers:
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._load(bytes(buffers[0]))
            except ValueError as error:
                self.send({"type": "said", "problem": True, "text": f"Not loaded: {error}"})
                return
        notes = [str(warning.message) for warning in caught]
        self.send({"type": "said", "problem": False, "text": " ".join(["Loaded.", *notes])})

    def _load(self, content: bytes) -> None:
        image = _picture(content)
        if self.mode == "mask":
            plain = image.convert("RGB") if image.mode == "RGBA" else image
            self.ids = load_mask(plain, self.size, fit="pad").numpy().tobytes()
        else:
            self.strokes = load_scribble(image, self.size, fit="pad").numpy().tobytes()


def _picture(content: bytes) -> Image.Image:
    """The picture in a file, not larger than a mask can be. Raises ValueError."""
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG",))
        if image.width * image.height <= LARGEST:
            image.load()  # a larger one is refused by its header
    except (Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"the file is no whole PNG ({error}).") from error
    return image
