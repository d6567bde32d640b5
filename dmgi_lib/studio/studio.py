"""The studio: painter and panel joined by a pipeline, which draws without blocking the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ipywidgets

from dmgi_lib.captions import phrase_claims
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.studio.drawing import Request, Result, drawn
from dmgi_lib.studio.edits import (
    angles,
    redrawn,
    revised,
    style_of,
    view_ranges,
)
from dmgi_lib.studio.newest import Newest
from dmgi_lib.studio.painter import Painter
from dmgi_lib.studio.panel import MOST_RESULTS, Panel

PREVIEW_EXIT = 0  # one pass of the U-Net
LANES = ("edit", "draw", "preview", "mesh")


class Studio(ipywidgets.Box):
    """Paint a mask, type a sentence, see the face; the last line of a cell shows it.

    A change asks for a preview at exit 0, "Draw" for the process up to the chosen exit step. They
    are drawn in a thread of their own: leave `pipe` to the studio while it draws.

    Args:
        pipe: the model; scribbles can be painted if it reads them.
        mask: to begin with, as `load_mask` takes it; None begins with an empty canvas.
        prompt: to begin with.
        examples: masks that the page offers, by name; `people.shipped_masks()` has some.

    Attributes:
        painter, panel: the two widgets
        results: what "Draw" made, oldest first, at most MOST_RESULTS
    """

    def __init__(
        self,
        pipe: DMGIPipeline,
        mask: Any = None,
        prompt: str = "a smiling young woman",
        examples: Mapping[str, Any] | None = None,
    ) -> None:
        steps = int(pipe.config.num_inference_steps)
        scribbles = pipe.mapping_network_scribble is not None
        modes = ("mask", "scribble") if scribbles else ("mask",)
        self.painter = Painter(pipe.image_size, modes, examples)
        self.panel = Panel(
            prompt=prompt, steps=steps, exit_step=steps - 1, words=known_phrases(pipe.tokenizer)
        )
        self.panel.edits = list(getattr(pipe.edit_directions, "names", ()))
        self.panel.styles = list(getattr(pipe.style_offsets, "names", ()))
        self.panel.views = view_ranges(pipe)
        super().__init__([self.painter, self.panel])
        self.add_class("dmgi-studio")
        self.results: deque[Result] = deque(maxlen=MOST_RESULTS)
        self._pipe = pipe
        self._preview: Result | None = None
        self._numbers = 0
        self._shown = 0  # number of the newest result
        self._quiet = False
        self._jobs = Newest(*LANES)
        if mask is not None:
            self.painter.mask = mask
        self.painter.observe(self._changed, ["ids", "strokes", "mode"])
        self.panel.observe(self._changed, ["prompt", "seed", "live"])
        self.panel.observe(lambda _: self.draw(), "asked")
        self.panel.on_msg(self._receive)

    def draw(self) -> None:
        """Asks for the full process; returns at once, see `wait`."""
        self._ask(live=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until all that was asked is drawn; False if it took more than `timeout` seconds."""
        return self._jobs.join(timeout)

    def restore(self, result: Result) -> None:
        """Brings back a result's prompt, seed, exit, number of faces and canvas."""
        asked, canvas = result.request, {"mask": "ids", "scribble": "strokes"}
        with self._without_preview():
            self.painter.mode = asked.mode
            setattr(self.painter, canvas[asked.mode], asked.condition.tobytes())
            for name in ("prompt", "seed", "exit_step", "faces"):
                setattr(self.panel, name, getattr(asked, name))

    def _changed(self, _: Any) -> None:
        if self.panel.live and not self._quiet:
            self._ask(live=True)

    @contextmanager
    def _without_preview(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _ask(self, live: bool) -> None:
        self._numbers += 1
        mode = self.painter.mode
        request = Request(
            number=self._numbers,
            live=live,
            prompt=self.panel.prompt,
            mode=mode,
            condition=self.painter.mask if mode == "mask" else self.painter.scribble,
            seed=self.panel.seed,
            exit_step=PREVIEW_EXIT if live else self.panel.exit_step,
            faces=1 if live else self.panel.faces,
        )
        self.panel.send({"type": "asked", "number": request.number})
        self._jobs.put("preview" if live else "draw", lambda: self._draw(request))

    def _draw(self, request: Request) -> None:
        if request.number < self._shown:
            return  # a newer one came first
        try:
            result = drawn(self._pipe, request)
        except Exception as error:  # the page says it, the thread lives on
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            text = f"Not drawn: {kind}{error}"
            self.panel.send({"type": "problem", "number": request.number, "text": text})
            return
        self._shown = request.number
        if request.live:
            self._preview = result
        else:
            self.results.append(result)
        self._show(result)

    def _revise(self, result: Result, asked: dict[str, Any], kept: list[Result]) -> None:
        """Draws an edited face, or a head from another side; G alone."""
        told = {"number": result.request.number, "stamp": asked.get("stamp")}
        with self._said("Not edited"):
            face = _face(result, asked)
            image = redrawn(self._pipe, revised(self._pipe, result, face, asked, kept), face, asked)
            (picture,) = replace(result, images=[image]).pngs()
            told |= {"face": face, "notes": result.notes}
            self.panel.send({"type": "edited", **told}, buffers=[picture])

    def _send_code(self, result: Result, asked: dict[str, Any], kept: list[Result]) -> None:
        with self._said("Not saved"):
            face = _face(result, asked)
            code = revised(self._pipe, result, face, asked, kept).code(face)
            self._send_file(f"face_{result.request.seed + face}.safetensors", code)

    def _send_mesh(self, result: Result, asked: dict[str, Any], kept: list[Result]) -> None:
        with self._said("Not saved"):
            face = _face(result, asked)
            codes = revised(self._pipe, result, face, asked, kept).latents
            style = style_of(result, face, asked)
            head = self._pipe.mesh(codes[face], style=style).export(file_type="glb")
            self._send_file(f"head_{result.request.seed + face}.glb", head)

    def _send_file(self, name: str, content: bytes) -> None:
        self.panel.send({"type": "file", "name": name}, buffers=[content])

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Errors are said on the page; the thread lives on."""
        try:
            yield
        except Exception as error:
            self.panel.send({"type": "problem", "text": f"{what}: {error}"})

    def _show(self, result: Result) -> None:
        asked = result.request
        told = {name: getattr(asked, name) for name in ("number", "live", "prompt", "seed")}
        told |= {"exit_step": asked.exit_step, "seconds": result.seconds, "notes": result.notes}
        told["angles"] = angles(result)
        self.panel.send({"type": "result", **told}, buffers=result.pngs())

    def _receive(self, _: Any, content: dict[str, Any], __: list[Any]) -> None:
        if content.get("type") == "hello":  # a page was opened, perhaps once more
            for result in list(self.results):
                self._show(result)
            if not self.results and self.panel.live:
                self._ask(live=True)
            return
        if content.get("type") == "alive?":
            self.panel.send({"type": "asked", "number": 0})
            return
        kept = [*self.results, *([self._preview] if self._preview else [])]
        found = [one for one in kept if one.request.number == content.get("number")]
        if not found:
            gone = "That face is no longer kept; draw it anew."
            self.panel.send({"type": "problem", "text": gone})
        elif content.get("type") == "restore":
            self.restore(found[0])
            self.panel.send({"type": "restored", "notes": found[0].notes})
        elif content.get("type") == "edit":
            self.panel.send({"type": "asked", "number": 0})  # heard; the answer may take a drawing
            self._jobs.put("edit", lambda: self._revise(found[0], content, kept))
        elif content.get("type") == "mesh":
            self.panel.send({"type": "asked", "number": 0})
            self._jobs.put("mesh", lambda: self._send_mesh(found[0], content, kept))
        elif content.get("type") == "code":
            self._send_code(found[0], content, kept)


def _face(result: Result, content: dict[str, Any]) -> int:
    """Which face of a result a message means."""
    return min(max(int(content.get("face", 0)), 0), len(result.images) - 1)


def known_phrases(tokenizer: Any) -> list[str]:
    """Phrases of captions of which a tokenizer knows each word, in alphabetical order."""
    unknown = tokenizer.unk_token_id
    return [p for p in sorted(phrase_claims()) if unknown not in tokenizer(p)["input_ids"]]
