"""Sliders and style mixing as a person uses them."""

import pytest
import safetensors.torch
from PIL import Image
from stand_in import StandIn3D, StandInStyles
from test_studio_page import Visit

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(show):
    """Faces of seeds 4 (one) and 100, 101 (shown); the stand-in's green is a code's mean."""
    visit = Visit(show)
    for seed, faces in ((4, 1), (100, 2)):
        visit.page.get_by_label("Seed", exact=True).fill(str(seed))
        visit.page.get_by_label("Faces", exact=True).fill(str(faces))
        visit.press("Draw")
        visit.caption(f"Drawn: “a young woman”, seed {seed},")
    visit.page.get_by_text("Edit the face").click()
    return visit


def green(visit, face=0, channel=1):
    """Of the picture that the page shows."""
    return visit.page.evaluate(
        """async ([face, channel]) => {
          const image = document.querySelectorAll(".dmgi-pictures img")[face];
          await image.decode().catch(() => {});
          const canvas = new OffscreenCanvas(1, 1).getContext("2d");
          canvas.drawImage(image, 0, 0, 1, 1);
          return canvas.getImageData(0, 0, 1, 1).data[channel];
        }""",
        [face, channel],
    )


def until(visit, value, face=0, channel=1):
    for _ in range(200):
        if green(visit, face, channel) == value:
            return
        visit.page.wait_for_timeout(20)
    assert green(visit, face, channel) == value


def saved(visit, name, path):
    with visit.page.expect_download() as download:
        visit.press(name)
    download.value.save_as(path)
    return path


def test_a_slider_by_keyboard_changes_the_face_and_what_is_saved(visit, tmp_path):
    page, calls = visit.page, len(visit.pipe.calls)
    age = page.get_by_role("slider", name="Age", exact=True)
    until(visit, 100)
    assert age.get_attribute("aria-valuetext") == "0.0"
    age.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    until(visit, 110)
    assert age.get_attribute("aria-valuetext") == "+1.0"
    page.get_by_role("slider", name="Hair length").fill("-0.5")
    until(visit, 100)
    assert page.get_by_role("img", name="Face 1").first.get_attribute("alt").endswith(", edited")
    age.fill("2")
    until(visit, 110)
    picture = Image.open(saved(visit, "Save picture", tmp_path / "face.png"))
    assert picture.getpixel((0, 0))[1] == 110
    latents = safetensors.torch.load_file(saved(visit, "Save W+ code", tmp_path / "w.safetensors"))
    assert (latents["latents"] == 110).all()
    assert len(visit.pipe.calls) == calls and green(visit, face=1) == 101
    visit.press("Reset edits")
    until(visit, 100)  # as it was drawn
    assert age.input_value() == "0" and page.get_by_role("button", name="Reset edits").is_disabled()
    latents = safetensors.torch.load_file(saved(visit, "Save W+ code", tmp_path / "w.safetensors"))
    assert (latents["latents"] == 100).all()


def test_each_face_keeps_its_own_edits(visit):
    page = visit.page
    age = page.get_by_role("slider", name="Age", exact=True)
    age.fill("1")
    until(visit, 110)
    page.get_by_role("radio", name="Face 2").check(force=True)
    assert age.input_value() == "0"
    page.get_by_role("button", name="Go back to “a young woman”, seed 4").click()
    visit.caption("Drawn: “a young woman”, seed 4,")
    assert age.input_value() == "0"
    page.get_by_role("button", name="Go back to “a young woman”, seed 100").click()
    visit.caption("Drawn: “a young woman”, seed 100,")
    page.get_by_role("radio", name="Face 1").check(force=True)
    until(visit, 110)
    assert age.input_value() == "1"


def test_rows_come_from_a_face_drawn_before(visit):
    page = visit.page
    choice = page.get_by_label("Mix with")
    assert [text.strip() for text in choice.locator("option").all_inner_texts()] == [
        "nobody", "“a young woman”, seed 4", "“a young woman”, seed 101",
    ]  # fmt: skip
    choice.select_option("“a young woman”, seed 4")
    until(visit, 68)  # four rows of twelve
    page.get_by_role("radio", name="fine").check(force=True)
    until(visit, 68)
    page.get_by_role("slider", name="Age", exact=True).fill("1")
    until(visit, 78)
    choice.select_option("nobody")
    until(visit, 110)


def test_a_model_without_directions_still_mixes(show, monkeypatch):
    monkeypatch.setattr("stand_in.directions", lambda: None)
    visit = Visit(show)
    visit.page.get_by_text("Edit the face").click()
    assert visit.page.locator(".dmgi-edits input[type=range]").count() == 0
    assert visit.page.get_by_label("Mix with").is_visible()


def test_a_head_turns_by_pointer_and_keyboard_and_is_saved_as_a_mesh(show, tmp_path):
    visit = Visit(show, pipe=StandIn3D)  # blue tells the yaw, red the pitch above 100
    page, image = visit.page, visit.page.locator(".dmgi-pictures img")
    visit.page.get_by_label("Seed", exact=True).fill("4")
    visit.press("Draw")
    visit.caption("Drawn: “a young woman”, seed 4,")
    box = image.bounding_box()
    x, y = box["x"] + 100, box["y"] + 100
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 20, y + 40, steps=4)
    page.mouse.up()
    until(visit, 12 + 5, channel=2)
    until(visit, 100 + 10, channel=0)
    page.mouse.move(x + 300, y)  # the button is up
    page.get_by_text("Edit the face").click()
    turn = page.get_by_role("slider", name="Turn")
    assert turn.input_value() == "17" and turn.get_attribute("max") == "30"
    turn.press("ArrowRight")
    until(visit, 18, channel=2)
    page.get_by_role("slider", name="Age", exact=True).fill("1")
    until(visit, 14)
    until(visit, 18, channel=2)
    head = saved(visit, "Save head", tmp_path / "head.glb")
    assert head.read_bytes() == b"glb 14"
    visit.press("Reset edits")
    until(visit, 90, channel=0)  # as it was drawn
    assert turn.input_value() == "12"


def test_another_style_is_chosen_weakened_and_taken_back(show):
    visit = Visit(show, pipe=StandInStyles)  # red tells the share of marble, in hundredths
    visit.press("Draw")
    visit.caption("Drawn: “a young woman”")
    visit.page.get_by_text("Edit the face").click()
    style = visit.page.get_by_label("Style", exact=True)
    strength = visit.page.get_by_role("slider", name="Strength of the style")
    assert strength.is_disabled() and strength.input_value() == "1"
    style.select_option("marble")
    until(visit, 100, channel=0)
    strength.fill("0.4")
    until(visit, 40, channel=0)
    visit.page.get_by_role("slider", name="Age", exact=True).fill("1")
    until(visit, 10)
    until(visit, 40, channel=0)
    style.select_option("photograph")
    until(visit, 0, channel=0)
    assert strength.is_disabled()
    visit.press("Reset edits")
    until(visit, 90, channel=0)  # as it was drawn
    assert style.input_value() == "" and strength.input_value() == "1"


def test_pictures_have_no_turn(visit):
    assert visit.page.get_by_label("Style", exact=True).is_hidden()
    assert visit.page.get_by_role("slider", name="Turn").count() == 0
    assert visit.page.get_by_role("button", name="Save head").is_hidden()
