"""Painter and panel together: paint, and the face changes."""

import numpy as np
import pytest
import safetensors.torch
from PIL import Image
from stand_in import StandIn, StandIn3D, StandInEverything
from test_painter_page import png
from tiny_models import face_mask

pytest.importorskip("anywidget")

from dmgi_lib.masks import CLASSES
from dmgi_lib.studio import Studio

pytestmark = pytest.mark.browser


class Visit:
    """A studio on a page, with a pipeline that stands in for the model."""

    def __init__(self, show, examples=None, pipe=StandIn, **options):
        self.pipe = pipe()
        made = []

        def make():
            mask = face_mask(64)
            made.append(Studio(self.pipe, mask, prompt="a young woman", examples=examples))
            return list(made[0].children)

        self.shown = show(make, **options)
        self.studio, self.page = made[0], self.shown.page
        self.prompt = self.page.get_by_label("Describe the face")
        self.caption("Preview: “a young woman”")

    def caption(self, text):
        self.page.locator("figcaption", has_text=text).wait_for()

    def holds(self, mask):
        for _ in range(100):
            if np.array_equal(self.studio.painter.mask, mask):
                return
            self.page.wait_for_timeout(20)
        pytest.fail("the mask is another")

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
    page.get_by_label("Seed", exact=True).fill("4")
    page.get_by_label("Faces", exact=True).fill("2")
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
    page.get_by_label("Faces", exact=True).fill("1")
    visit.prompt.press("Enter")
    visit.caption("Drawn: “black hair”")
    calls = len(visit.pipe.calls)
    page.get_by_role("button", name="Go back to “blond hair”").click()
    visit.caption("Drawn: “blond hair”, seed 4")
    page.wait_for_function("document.querySelector('.dmgi-prompt').value === 'blond hair'")
    assert page.get_by_label("Faces", exact=True).input_value() == "2"
    assert len(visit.pipe.calls) == calls


def test_known_words_are_suggested_after_what_stands_there(visit):
    visit.prompt.fill("a hat, blo")
    options = visit.page.evaluate(
        "[...document.querySelectorAll('datalist option')].map((o) => o.value)"
    )
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


@pytest.mark.parametrize("work", ["Draw", "edit", "Save head"])
def test_a_python_that_dies_at_work_is_told_of(show, work):
    visit = Visit(show, pipe=StandIn3D)
    page, said = visit.page, visit.page.locator(".dmgi-panel .dmgi-said")
    page.get_by_text("Edit the face").click()
    page.clock.install()

    def heard():
        """Waits for one more word of Python."""
        page.wait_for_function("heard.includes('asked') && (heard.length = 0, true)")

    page.evaluate("heard.length = 0")
    visit.pipe.go.clear()
    if work == "edit":
        page.get_by_role("slider", name="Age", exact=True).fill("1")
    else:
        visit.press(work)
    for _ in range(2):  # long work of a Python that lives
        heard()
        page.clock.run_for(10_500)
    heard()
    assert "does not answer" not in said.inner_text()
    visit.shown.answers = False
    page.clock.run_for(20_500)
    assert "does not answer" in said.inner_text()
    assert page.locator("[aria-busy=true]").count() == 0
    with page.expect_download():
        visit.press("Save picture")
    visit.pipe.go.set()  # it comes after all
    said.get_by_text("does not answer").wait_for(state="detached")


def test_the_history_is_bounded_in_the_page_too(visit):
    for drawn in range(1, 27):
        visit.studio.panel.seed = drawn
        visit.studio.draw()
        assert visit.studio.wait(20)
        visit.caption(f"Drawn: “a young woman”, seed {drawn},")
        visit.page.wait_for_function("[...document.images].every((image) => image.complete)")
        assert visit.page.locator(".dmgi-history li").count() == min(drawn, 24)


@pytest.fixture
def full(show):
    """full(**options): a visit with all that the page can hold, opened."""

    def opened(**options):
        masks = {"a hat": np.full((64, 64), 14, np.uint8)}
        visit = Visit(show, examples=masks, pipe=StandInEverything, **options)
        visit.page.get_by_label("Faces", exact=True).fill("2")
        visit.press("Draw")
        visit.caption("Drawn: “a young woman”")
        visit.page.get_by_text("Edit the face").click()
        visit.page.get_by_text("Keys", exact=True).click()
        return visit

    return opened


def test_it_fits_400_pixels(full):
    visit = full(width=400, dark=True)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    scrolled = ".dmgi-people *, .dmgi-pictures *"  # within boxes of their own
    controls = visit.page.locator(":is(button, input, select, summary, output, label):visible")
    boxes = controls.evaluate_all(
        f"""(found) => found.filter((one) => !one.matches({scrolled!r})).map((one) => {{
        const {{ left, right }} = one.getBoundingClientRect();
        return [one.outerHTML, left, right]; }})"""
    )
    assert len(boxes) > 40
    assert not [box for box in boxes if box[1] < 0 or box[2] > 400]


def test_each_control_has_a_name_for_screen_readers(full):
    """As Chromium tells them."""
    page = full().page
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    named = {}
    for node in tree[1:]:  # the first is the page
        can = {each["name"] for each in node.get("properties", []) if each["value"].get("value")}
        if "focusable" in can or node["role"]["value"] == "image":
            named.setdefault(node["role"]["value"], []).append(node["name"]["value"].strip())
    assert {"application", "button", "combobox", "image", "radio", "slider"} < named.keys()
    assert sum(map(len, named.values())) > 60 and all(map(all, named.values())), named


def test_a_face_is_drawn_and_edited_without_a_mouse(show):
    visit = Visit(show, pipe=StandInEverything)
    page, keys, painter = visit.page, visit.page.keyboard, visit.studio.painter
    file = png(Image.fromarray(face_mask(64).numpy()))
    page.on("filechooser", lambda chooser: chooser.set_files(file))

    def reach(role, name):
        control = page.get_by_role(role, name=name, exact=True)
        if role == "summary":
            control = page.locator("summary", has_text=name)
        for _ in range(90):
            if control.evaluate("control => control === document.activeElement"):
                return
            keys.press("Tab")
        pytest.fail(f"Tab does not reach {name}")

    def press(*pressed):
        for key in pressed:
            keys.press(key)

    reach("application", "Canvas. Arrow keys move, Space paints.")
    mask = painter.mask
    press("f", ".", ".", " ")
    mask[mask == mask[32, 32]] = CLASSES.index("eye_g")
    visit.holds(mask)
    press("e", *["["] * 9, " ")
    mask[32, 32] = 0
    visit.holds(mask)
    reach("button", "Load PNG …")
    press("Enter")
    visit.holds(face_mask(64))

    reach("combobox", "Describe the face")
    press("Control+a", *"black hair")
    reach("spinbutton", "Seed")
    press("Control+a", "4")
    reach("slider", "Exit step")
    press("ArrowLeft")
    reach("button", "Draw")
    press("Enter")
    visit.caption("Drawn: “black hair”, seed 4, step 8")
    reach("spinbutton", "Seed")
    press("ArrowUp", "Enter")
    visit.caption("Drawn: “black hair”, seed 5, step 8")
    reach("button", "Go back to “black hair”, seed 4, step 8")
    press("Enter")
    visit.caption("Drawn: “black hair”, seed 4, step 8")

    reach("summary", "Edit the face")
    press("Enter")
    reach("slider", "Turn")
    press("ArrowRight")
    for name in ("Style", "Mix with"):
        reach("combobox", name)
        press("ArrowDown")
    assert page.get_by_label("Mix with").input_value()
    reach("radio", "coarse")
    press("ArrowRight")
    assert page.get_by_role("radio", name="middle").is_checked()
    page.get_by_role("img", name=", edited").wait_for()
    for name in ("Save PNG", "Save picture", "Save W+ code", "Save head"):
        reach("button", name)
        with page.expect_download():
            press("Enter")


def test_settings_that_are_none_change_nothing(visit):
    page, panel = visit.page, visit.studio.panel
    for label, typed in (("Seed", "-3"), ("Seed", "1e99"), ("Seed", "1.5"), ("Faces", "999")):
        page.get_by_label(label, exact=True).fill(typed)
        visit.press("Draw")
        visit.caption("Drawn: “a young woman”, seed 0, step 9")
        assert page.get_by_label(label, exact=True).input_value() == (
            "1" if label == "Faces" else "0"
        )
    assert (panel.seed, panel.faces) == (0, 1)


def test_pressing_draw_again_and_again_draws_the_newest(visit):
    visit.pipe.go.clear()
    for _ in range(9):
        visit.press("Draw")
    visit.prompt.fill("🙂 \u202e black hair " + "long " * 400)
    visit.press("Draw")
    visit.pipe.go.set()
    visit.caption("Drawn: “🙂")
    assert len(visit.pipe.calls) < 5


def test_text_that_is_dropped_on_the_canvas_is_no_file(visit):
    before = visit.studio.painter.mask
    visit.page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.setData("text/html", "<img src=x onerror=window.ran=1>");
          document.querySelector("canvas").dispatchEvent(
            new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    assert visit.page.evaluate("window.ran") is None
    assert np.array_equal(visit.studio.painter.mask, before)


def test_a_test_person_is_chosen_and_undone(show):
    masks = {"a hat": np.full((64, 64), 14, np.uint8), "nobody": np.zeros((64, 64), np.uint8)}
    visit = Visit(show, examples=masks)
    visit.press("Begin with a test person's mask: a hat")
    visit.page.get_by_text("A test person's mask: a hat.").wait_for()
    visit.holds(masks["a hat"])
    visit.press("Undo")
    visit.holds(face_mask(64))
    visit.page.get_by_text("Scribble", exact=True).click()
    assert not visit.page.get_by_text("Begin with").is_visible()


def test_the_face_is_in_view_while_the_mask_is_painted_on_a_narrow_page(show):
    visit = Visit(show, width=400)
    visit.page.locator("canvas").scroll_into_view_if_needed()
    face, canvas = (visit.page.locator(q).bounding_box() for q in (".dmgi-pictures img", "canvas"))
    assert face["y"] >= 0 and face["height"] > 100
    assert face["y"] + face["height"] <= canvas["y"] + 1
    assert canvas["y"] + canvas["height"] <= 900
    visit.page.get_by_text("Keys", exact=True).scroll_into_view_if_needed()
    visit.page.evaluate("window.scrollBy(0, 200)")
    face = visit.page.locator(".dmgi-pictures img").bounding_box()
    assert 0 <= face["y"] < 40
