"""The studio's own page, from the server that `make studio` starts, with the shipped model."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from served import ROOT, Painting, server

pytest.importorskip("anywidget")
pytest.importorskip("voila", reason="needs voila")

from dmgi_lib.masks import CLASSES, PALETTE
from dmgi_lib.studio.people import shipped_masks

trimesh = pytest.importorskip("trimesh")
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
    for part in (".dmgi-board", ".dmgi-classes", ".dmgi-pictures"):
        seen = Image.open(io.BytesIO(first.page.locator(part).screenshot())).convert("RGB")
        assert np.asarray(seen).std() > 10 and len(seen.getcolors(2**24)) > 15, part
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

    face = first.src()
    first.press("Undo")
    first.changed(face)
    assert (first.pixels()[..., :3] == PALETTE[masks["hat"]]).all()

    face = first.src()
    first.load(masks["bangs"])
    first.changed(face)
    assert (first.pixels()[..., :3] == PALETTE[masks["bangs"]]).all()

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
    assert (first.pixels()[..., :3] == PALETTE[masks["bangs"]]).all()
    assert first.prompt.input_value() == words
    assert not (first.outside + second.outside + first.errors + second.errors)


def test_a_head_turns_and_is_saved_and_a_server_that_dies_is_told_of(context, tmp_path):
    command = ("-m", "dmgi_lib.studio", "--port", "0", "--weights", "mini-3d")
    own = {"TMPDIR": str(tmp_path)}  # killed, it leaves files
    with server(*command, address=r"http://127\.0\.0\.1:\d+/", **own) as (process, address):
        painting = Painting(context, address)
        page = painting.page
        painting.ready()
        before = np.asarray(painting.saved("Save picture"), float)
        face, box = painting.src(), painting.faces.first.bounding_box()
        x, y = box["x"] + 100, box["y"] + 50
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 80, y, steps=4)
        page.mouse.up()
        painting.changed(face)
        assert abs(np.asarray(painting.saved("Save picture")) - before).mean() > 2
        with page.expect_download() as download:
            painting.press("Save head")
        assert len(trimesh.load_mesh(download.value.path(), file_type="glb").faces) > 1000

        page.clock.install()
        page.get_by_label("Faces", exact=True).fill("8")
        painting.press("Draw")
        page.locator("[aria-busy=true]").wait_for()
        process.kill()  # in the middle of the drawing
        painting.choose("hair")
        painting.stroke((0.5, 0.05), (0.5, 0.1))
        page.clock.run_for(20_500)
        assert page.get_by_text("Python does not answer").count() == 2  # by painter and panel
        assert page.locator("[aria-busy=true]").count() == 0
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
