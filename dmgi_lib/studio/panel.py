"""The panel beside the painter: what is asked of the model, what it drew, what it drew before."""

from __future__ import annotations

import anywidget
import traitlets

from dmgi_lib.studio.page import FROM_PAGE, STYLE, script

MOST_FACES = 8  # of one drawing
MOST_RESULTS = 24  # kept to go back to


class Panel(anywidget.AnyWidget):
    """Prompt, seed, exit and number of faces, and the pictures that came of them.

    Attributes:
        prompt, seed, exit_step, faces: of the next drawing; face i has noise seed + i
        live: preview after each change
        asked: counts presses of "Draw"
        steps: S, one more than the largest exit step
        words: suggestions while typing
        edits: names of directions that a face can be moved along
        styles: names of styles that a face can be drawn in
        views: "yaw" and "pitch" → least and largest degrees that a head can be turned by
    """

    _esm = script("page.js", "edits.js", "panel.js")
    _css = STYLE

    prompt = traitlets.Unicode("").tag(**FROM_PAGE)
    seed = traitlets.Int(0, min=0, max=2**31 - 1).tag(**FROM_PAGE)
    exit_step = traitlets.Int(0, min=0).tag(**FROM_PAGE)
    faces = traitlets.Int(1, min=1, max=MOST_FACES).tag(**FROM_PAGE)
    live = traitlets.Bool(True).tag(**FROM_PAGE)
    asked = traitlets.Int(0).tag(**FROM_PAGE)
    steps = traitlets.Int(1, min=1).tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    edits = traitlets.List(traitlets.Unicode()).tag(sync=True)
    styles = traitlets.List(traitlets.Unicode()).tag(sync=True)
    views = traitlets.Dict().tag(sync=True)
    most_faces = traitlets.Int(MOST_FACES).tag(sync=True)
    most_results = traitlets.Int(MOST_RESULTS).tag(sync=True)

    @traitlets.validate("exit_step")
    def _check_exit_step(self, proposal: dict[str, int]) -> int:
        if proposal["value"] >= self.steps:
            raise traitlets.TraitError(
                f"exit_step came as {proposal['value']}; expected 0 to {self.steps - 1}."
            )
        return proposal["value"]
