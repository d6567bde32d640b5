"""Painter and panel together: paint, and the face changes."""

import numpy as np
import pytest
import safetensors.torch
from PIL import Image
from stand_in import StandIn
from tiny_models import face_mask

pytest.importorskip("anywidget")

from dmgi_lib.studio import Studio

pytestmark = pytest.mark.browser


class Visit:
    """A studio on a page, with a pipeline that stands in for the model."""

    def __init__(self, show, **options):
        self.pipe = StandIn()
        made = []

        def make():
            made.append(Studio(self.pipe, mask=face_mask(64), prompt="a young woman"))
            return list(made[0].children)

        self.shown = show(make, **options)
        self.studio, self.page = made[0], self.shown.page
        self.prompt = self.page.get_by_label("Describe the face")
        self.caption("Preview: “a young woman”")

    def caption(self, text):
        self.page.locator("figcaption", has_text=text).wait_for()

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def visit(show):
    return Visit(show)


def test_a_stroke_changes_the_face(visit):
    before = visit.page.locator(".dmgi-pictures img").get_attribute("src")
    visit.page.locator("canvas").click()
    visit.page.wait_for_function(
        "(src) => document.querySelector('.dmgi-pictures img').src !== src", arg=before
    )
    call = visit.pipe.calls[-1]
    assert call["exit_step"] == 0
    assert not np.array_equal(call["mask"], face_mask(64))
    assert np.array_equal(call["mask"], visit.studio.painter.mask)


def test_draw_history_and_downloads(visit, tmp_path):
    page = visit.page
    visit.prompt.fill("blond hair")
    page.get_by_label("Seed").fill("4")
    page.get_by_label("Faces").fill("2")
    visit.press("Draw")
    visit.caption("Drawn: “blond hair”, seed 4, step 9")
    assert page.locator(".dmgi-pictures img").count() == 2
    page.get_by_role("radio", name="Face 2").check(force=True)
    with page.expect_download() as download:
        visit.press("Save picture")
    assert download.value.suggested_filename == "face_5.png"
    download.value.save_as(tmp_path / "face.png")
    assert Image.open(tmp_path / "face.png").getpixel((0, 0)) == (90, 5, 40)
    with page.expect_download() as download:
        visit.press("Save W+ code")
    download.value.save_as(tmp_path / "face.safetensors")
    assert (safetensors.torch.load_file(tmp_path / "face.safetensors")["latents"] == 5).all()
    visit.prompt.fill("black hair")
    page.get_by_label("Faces").fill("1")
    visit.prompt.press("Enter")
    visit.caption("Drawn: “black hair”")
    calls = len(visit.pipe.calls)
    page.get_by_role("button", name="Go back to “blond hair”").click()
    visit.caption("Drawn: “blond hair”, seed 4")
    page.wait_for_function("document.querySelector('.dmgi-prompt').value === 'blond hair'")
    assert page.get_by_label("Faces").input_value() == "2"
    assert len(visit.pipe.calls) == calls


def test_known_words_are_suggested_after_what_stands_there(visit):
    visit.prompt.fill("a hat, blo")
    options = visit.page.evaluate("[...document.querySelectorAll('option')].map((o) => o.value)")
    assert options == ["a hat, blond", "a hat, blond hair"]


def test_words_of_users_are_text_and_warnings_and_errors_are_shown(visit):
    visit.prompt.fill("<img src=x onerror=window.ran=1> zebra")
    visit.press("Draw")
    visit.caption("Drawn: “<img src=x onerror=window.ran=1> zebra”")
    said = visit.page.locator(".dmgi-panel .dmgi-said")
    assert said.inner_text() == "unknown to this text encoder: zebra"
    visit.prompt.fill("")
    visit.press("Draw")
    said.get_by_text("Not drawn: prompt is empty; expected a description.").wait_for()
    assert visit.page.evaluate("window.ran") is None
    assert visit.page.locator("img[src=x]").count() == 0


def test_a_deaf_python_is_told_of(visit):
    visit.page.clock.install()
    visit.shown.answers = False
    visit.press("Draw")
    visit.page.clock.run_for(10_500)
    assert "does not answer" in visit.page.locator(".dmgi-panel .dmgi-said").inner_text()


def test_the_history_is_bounded_in_the_page_too(visit):
    for drawn in range(1, 27):
        visit.studio.panel.seed = drawn
        visit.studio.draw()
        assert visit.studio.wait(20)
        visit.caption(f"Drawn: “a young woman”, seed {drawn},")
        visit.page.wait_for_function("[...document.images].every((image) => image.complete)")
        assert visit.page.locator(".dmgi-history li").count() == min(drawn, 24)


def test_it_fits_400_pixels(show):
    visit = Visit(show, width=400, dark=True)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    for control in visit.page.locator("button:visible, input:visible").all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400
