"""The studio's own page, from the server that `make studio` starts, with the shipped model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from served import ROOT, Painting, server

pytest.importorskip("anywidget")
pytest.importorskip("voila", reason="needs voila")

from dmgi_lib.masks import CLASSES, PALETTE
from dmgi_lib.studio.people import shipped_masks

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HAIR = CLASSES.index("hair")


@pytest.fixture(scope="module")
def address():
    command = ("-m", "dmgi_lib.studio", "--port", "0")
    with server(*command, address=r"http://127\.0\.0\.1:\d+/") as (_, found):
        yield found


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


def test_paint_type_draw_and_a_second_tab(address, context):
    first, second = Painting(context, address), Painting(context, address)
    first.ready()
    masks = shipped_masks()
    assert (first.pixels()[..., :3] == PALETTE[next(iter(masks.values()))]).all()

    face = first.src()
    first.press("Begin with a test person's mask: hat")
    first.changed(face)
    assert (first.pixels()[..., :3] == PALETTE[masks["hat"]]).all()

    face = first.src()
    first.choose("hair")
    first.stroke((0.2, 0.5), (0.2, 0.8))
    first.changed(face)
    assert (first.pixels()[70, 25, :3] == PALETTE[HAIR]).all()

    words = "<script>window.ran = 1</script><img src=x onerror=window.ran=1> black hair"
    first.prompt.fill(words)
    first.press("Draw")
    first.page.locator("figcaption", has_text=f"Drawn: “{words}”").wait_for()
    picture = np.asarray(first.saved("Save picture"))
    assert picture.shape == (128, 128, 3) and picture.std() > 10
    assert first.page.evaluate("window.ran") is None

    second.ready()  # a tab that was open all the while has a drawing of its own
    assert (second.pixels()[..., :3] == PALETTE[next(iter(masks.values()))]).all()
    face = second.src()
    second.press("Clear")
    second.changed(face)
    assert (first.pixels()[70, 25, :3] == PALETTE[HAIR]).all()
    assert first.prompt.input_value() == words
    assert not (first.outside + second.outside + first.errors + second.errors)


def test_a_stopped_server_is_told_of_and_the_drawing_stays(context):
    command = ("-m", "dmgi_lib.studio", "--port", "0")
    with server(*command, address=r"http://127\.0\.0\.1:\d+/") as (process, address):
        painting = Painting(context, address)
        painting.ready()
        process.terminate()
        process.wait(60)
        painting.choose("hair")
        painting.stroke((0.5, 0.05), (0.5, 0.1))
        painting.page.get_by_text("Python does not answer").first.wait_for()
        mask = np.asarray(painting.saved("Save PNG"))
        assert mask[8, 64] == HAIR and len(np.unique(mask)) > 6
        assert (painting.pixels()[8, 64, :3] == PALETTE[HAIR]).all()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--host", "192.0.2.1"], "no page can be served at 192.0.2.1"),
        (["--port", "99999"], "port 99999"),
    ],
)
def test_addresses_that_cannot_be_served_are_refused(options, word):
    command = [sys.executable, "-m", "dmgi_lib.studio", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and word in done.stderr and "Traceback" not in done.stderr
