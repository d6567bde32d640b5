"""The painter as a person uses it: what is painted on the page is what Python holds."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("anywidget")

from dmgi_lib.masks import CLASSES, PALETTE, mask_to_image
from dmgi_lib.studio.painter import Painter

pytestmark = pytest.mark.browser
HAIR, SKIN, L_EYE, R_EYE = (CLASSES.index(name) for name in ("hair", "skin", "l_eye", "r_eye"))


class Painting:
    """A painter on a page."""

    def __init__(self, show, size=64, **options):
        self.painter = Painter(size)
        self.shown = show(lambda: [self.painter], **options)
        self.page = self.shown.page
        self.canvas = self.page.locator("canvas")

    def point(self, x, y):
        box = self.canvas.bounding_box()
        return box["x"] + (x + 0.5) / 64 * box["width"], box["y"] + (y + 0.5) / 64 * box["height"]

    def stroke(self, *points):
        mouse = self.page.mouse
        mouse.move(*self.point(*points[0]))
        mouse.down()
        for point in points:
            mouse.move(*self.point(*point))
        mouse.up()

    def choose(self, name):
        self.page.get_by_text(name, exact=True).click()

    def button(self, name):
        return self.page.get_by_role("button", name=name)

    def press(self, *keys):
        for key in keys:
            self.canvas.press(key)

    def width(self, pixels):
        self.page.locator(".dmgi-width input").fill(str(pixels))

    def until(self, condition, what="this"):
        """Waits until Python's side is as expected."""
        for _ in range(100):
            if condition():
                return
            self.page.wait_for_timeout(20)
        pytest.fail(f"{what} did not happen; said: {self.said()!r}")

    def holds(self, mask):
        self.until(lambda: np.array_equal(self.painter.mask, mask), "the expected mask")

    def said(self):
        return self.page.locator(".dmgi-said").inner_text()

    def colours(self):
        """(64, 64, 3) what the canvas shows."""
        flat = self.page.evaluate(
            "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 64, 64).data]"
        )
        return np.array(flat, np.uint8).reshape(64, 64, 4)[..., :3]


@pytest.fixture
def painting(show):
    return Painting(show)


def disc(x, y, width):
    rows, columns = np.mgrid[:64, :64]
    return np.hypot(rows - y, columns - x) <= width / 2


def test_a_stroke_is_painted_undone_and_redone(painting):
    painting.choose("hair")
    painting.width(5)
    painting.stroke((20, 30), (40, 30))
    rows, columns = np.mgrid[:64, :64]
    expected = (abs(rows - 30) <= 2) & (columns >= 20) & (columns <= 40)
    expected |= disc(20, 30, 5) | disc(40, 30, 5)
    painting.holds(expected * HAIR)
    assert np.array_equal(painting.colours(), PALETTE[painting.painter.mask])
    painting.button("Undo").click()
    painting.holds(np.zeros((64, 64)))
    assert not painting.colours().any()
    painting.press("Control+y")
    painting.holds(expected * HAIR)
    painting.stroke((5, 5))
    assert painting.button("Redo").is_disabled()


def test_fill_stops_at_other_classes_and_the_eraser_paints_background(painting):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:50, 10:50] = SKIN
    mask[20:30, 20:30] = L_EYE
    painting.painter.ids = mask.tobytes()
    painting.choose("hair")
    painting.press("f")
    painting.stroke((40, 40))
    expected = np.where(mask == SKIN, HAIR, mask)
    painting.holds(expected)
    painting.press("e")
    painting.width(1)
    painting.stroke((12, 12), (12, 48))
    expected[12:49, 12] = 0
    painting.holds(expected)


def test_mirror_paints_the_other_eye(painting):
    painting.choose("left eye")
    painting.press("m")
    painting.width(3)
    painting.stroke((45, 20))
    painting.holds(disc(45, 20, 3) * L_EYE + disc(18, 20, 3) * R_EYE)


@pytest.mark.parametrize("how", ["tool", "alt"])
def test_a_class_is_picked_from_the_canvas(painting, how):
    mask = np.full((64, 64), HAIR, np.uint8)
    mask[:, 32:] = SKIN
    painting.painter.ids = mask.tobytes()
    painting.until(lambda: painting.colours().any())
    if how == "tool":
        painting.press("i")
        painting.stroke((10, 10))
    else:
        painting.canvas.click(modifiers=["Alt"], position={"x": 20, "y": 20})
    painting.width(1)
    painting.stroke((50, 50))
    mask[50, 50] = HAIR
    painting.holds(mask)


def test_everything_by_keyboard(painting):
    page = painting.page
    painting.canvas.focus()
    painting.press("[", "[", "[", "[", "[", "[", "[", "[", ",", ".", ".")  # 1 px, nose
    assert page.locator(".dmgi-said").inner_text() == "nose"
    painting.press("ArrowUp", "Shift+ArrowLeft")
    page.keyboard.down(" ")
    painting.press("ArrowRight", "ArrowRight")
    page.keyboard.up(" ")
    expected = np.zeros((64, 64))
    expected[31, 24:27] = CLASSES.index("nose")
    painting.holds(expected)
    assert painting.said() == "nose at 26, 31"
    painting.press("Control+z")
    painting.holds(np.zeros((64, 64)))
    page.get_by_role("radio", name="nose").focus()
    page.keyboard.press("ArrowRight")  # as in any group of radio buttons
    assert page.get_by_role("radio", name="glasses").is_checked()


def test_keys_do_not_reach_the_notebook(painting):
    painting.page.evaluate("window.leaked = null")
    painting.page.evaluate(
        "() => { document.onkeydown = (event) => event.key === 'Control' || (leaked = event.key) }"
    )
    painting.press("b", "ArrowDown", "Control+z")
    assert painting.page.evaluate("window.leaked") is None
    assert painting.page.locator("[data-lm-suppress-shortcuts]").count() == 1
    painting.press("q")
    assert painting.page.evaluate("window.leaked") == "q"


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"name": "x.png", "mimeType": "image/png", "buffer": file.getvalue()}


@pytest.mark.parametrize("kind", ["ids", "palette", "colours"])
def test_masks_are_loaded_and_saved(painting, kind, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[8:60, 10:50] = np.arange(40) % 19
    image = mask_to_image(torch.from_numpy(mask))
    if kind == "ids":
        image = Image.fromarray(mask)
    elif kind == "colours":
        image = image.convert("RGB")
    painting.page.locator("input[type=file]").set_input_files(png(image))
    painting.holds(mask)
    painting.page.get_by_text("Loaded.").wait_for()
    assert painting.said().startswith("Loaded.") and "like noise" in painting.said()
    with painting.page.expect_download() as download:
        painting.button("Save PNG").click()
    download.value.save_as(tmp_path / "mask.png")
    assert download.value.suggested_filename == "mask.png"
    saved = Image.open(tmp_path / "mask.png")
    assert saved.mode == "P" and np.array_equal(np.asarray(saved), mask)
    assert np.array_equal(np.asarray(saved.convert("RGB")), PALETTE[mask])
    painting.press("Control+z")
    painting.holds(np.zeros((64, 64)))


def named_png(content):
    return {"name": "x.png", "mimeType": "image/png", "buffer": content}


def photograph():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("file", "word"),
    [
        (png(photograph()), "palette colour"),
        (named_png(b"<b>no</b>"), "no whole PNG"),
        (named_png(png(photograph())["buffer"][:999]), "no whole PNG"),
        (png(Image.new("L", (5000, 5000))), "at most"),
        (named_png(b""), "no whole PNG"),
        (named_png(b"\x89PNG\r\n\x1a\n" + bytes(99)), "no whole PNG"),
        (
            named_png(b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.ran = 1'/>"),
            "no whole",
        ),
        (named_png(b"%PDF-1.7 /OpenAction << /S /JavaScript >>"), "no whole PNG"),
        (named_png(bytes(range(256)) * 40_000), "the file has 10 MB"),
        (png(Image.new("L", (64, 64), 200)), "200"),
    ],
    ids=[
        *("photo", "text", "truncated", "too many pixels", "empty", "only a head of a PNG"),
        *("script in a drawing", "PDF", "10 MB of anything", "no class"),
    ],
)
def test_a_wrong_file_gets_a_word_and_the_drawing_stays(painting, file, word):
    painting.stroke((20, 20))
    painting.until(lambda: painting.painter.mask.any())
    before = painting.painter.mask
    painting.page.locator("input[type=file]").set_input_files(file)
    painting.until(lambda: word in painting.said(), word)
    painting.until(lambda: painting.said().startswith("Not loaded:"), "Not loaded:")
    assert painting.page.evaluate("window.ran ?? null") is None
    assert np.array_equal(painting.colours(), PALETTE[before])
    assert np.array_equal(painting.painter.mask, before)


def test_scribbles_have_their_own_canvas_and_pen(painting, tmp_path):
    painting.stroke((20, 20))
    painting.choose("Scribble")
    painting.until(lambda: painting.painter.mode == "scribble")
    assert not painting.page.get_by_text("skin", exact=True).is_visible()
    assert not painting.page.get_by_text("Fill", exact=True).is_visible()
    painting.width(1)
    painting.stroke((5, 9), (30, 9))
    expected = np.zeros((64, 64))
    expected[9, 5:31] = 255
    painting.until(lambda: np.array_equal(painting.painter.scribble, expected))
    with painting.page.expect_download() as download:
        painting.press("Control+s")
    download.value.save_as(tmp_path / "scribble.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "scribble.png")), expected)
    painting.choose("Mask")
    painting.until(lambda: painting.colours()[20, 20].any())
    assert painting.painter.mask[20, 20] == SKIN


def test_python_may_change_the_canvas_in_the_middle_of_a_stroke(painting):
    painting.width(1)
    mouse = painting.page.mouse
    mouse.move(*painting.point(5, 5))
    mouse.down()
    painting.painter.ids = bytes([HAIR]) * 64 * 64
    painting.until(lambda: painting.colours()[60, 60].any())
    mouse.move(*painting.point(10, 5))
    mouse.up()
    expected = np.full((64, 64), HAIR)
    expected[5, 5:11] = SKIN
    painting.until(lambda: np.array_equal(painting.painter.mask[5, 6:11], expected[5, 6:11]))
    assert painting.painter.mask[60, 60] == HAIR
    painting.press("Control+z")
    painting.until(lambda: painting.painter.mask[60, 60] == 0)


FIRE = """() => {
  const canvas = document.querySelector("canvas");
  const box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};  // knows only pointers of the hardware
  return (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height, pointerId: 1, button: 0,
    bubbles: true }));
}"""


def test_a_pause_in_a_stroke_sends_it_once(painting):
    painting.page.evaluate(
        f"""() => {{
          const fire = ({FIRE})();
          fire("pointerdown", 0, 0.1);
          for (let x = 0; x < 0.9; x += 0.01) fire("pointermove", x, 0.1);
        }}"""
    )
    painting.until(lambda: painting.painter.mask[6, 50] == SKIN, "a send at rest")
    assert painting.page.evaluate("sent.length") == 1


def test_a_huge_file_that_is_dropped_is_not_sent(painting):
    painting.page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([new Uint8Array(9 << 20)], "huge.png"));
          document.querySelector("canvas").dispatchEvent(
            new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    assert painting.said() == "Not loaded: the file has 9 MB; a mask as PNG has less than 8."
    assert painting.page.evaluate("sent.length") == 0


def test_a_deaf_python_is_told_of_and_the_drawing_can_be_saved(painting):
    painting.page.clock.install()
    painting.shown.answers = False
    painting.stroke((20, 20))
    painting.page.clock.run_for(10_500)
    assert "does not answer" in painting.said()
    with painting.page.expect_download():
        painting.button("Save PNG").click()
    assert painting.colours()[20, 20].any()


def test_touch_at_400_pixels_on_a_dense_screen(show):
    painting = Painting(show, width=400, has_touch=True, device_scale_factor=3)
    assert painting.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert painting.canvas.bounding_box()["width"] > 320
    painting.width(1)
    painting.page.touchscreen.tap(*painting.point(10, 50))
    expected = np.zeros((64, 64))
    expected[50, 10] = SKIN
    painting.holds(expected)
    for control in painting.page.locator("button:visible, label:visible").all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400


@pytest.mark.slow
def test_500_strokes_keep_the_memory(show):
    """Undo is bounded: of 650 canvases of 64 KiB, 100 stay."""
    painting = Painting(show, size=256)
    painting.page.evaluate("() => { window.toPython = () => {} }")
    tools = painting.page.context.new_cdp_session(painting.page)

    def used():
        tools.send("HeapProfiler.collectGarbage")
        return tools.send("Runtime.getHeapUsage")

    def strokes(count):
        painting.page.evaluate(
            f"""async (count) => {{
              const fire = ({FIRE})();
              const canvas = document.querySelector("canvas");
              const next = {{ key: ".", bubbles: true }};  // another class, so each stroke shows
              for (let i = 0; i < count; i++) {{
                canvas.dispatchEvent(new KeyboardEvent("keydown", next));
                fire("pointerdown", Math.random(), Math.random());
                for (let k = 0; k < 5; k++) fire("pointermove", Math.random(), Math.random());
                fire("pointerup", 0, 0);
                if (i % 25 === 0) await new Promise((done) => setTimeout(done, 20));
              }}
              window.sent.length = 0;
            }}""",
            count,
        )

    strokes(150)
    before = used()
    strokes(500)
    after = used()
    grown = sum(after[k] - before[k] for k in ("usedSize", "backingStorageSize") if k in after)
    assert grown < 4 * 2**20
