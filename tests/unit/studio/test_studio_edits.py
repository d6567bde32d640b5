import io

import pytest
import safetensors.torch
from PIL import Image
from stand_in import StandIn, StandIn3D, StandInStyles
from tiny_models import face_mask

pytest.importorskip("anywidget")

from dmgi_lib.studio import Studio


@pytest.fixture
def studio(monkeypatch):
    """Two results: of one face of seed 4, and of two faces of seeds 100 and 101."""
    studio = Studio(StandIn(), mask=face_mask(64), prompt="a young woman")
    for seed, faces in ((4, 1), (100, 2)):
        studio.panel.set_state({"live": False, "seed": seed, "faces": faces})
        studio.draw()
        assert studio.wait(20)
    studio.said = []
    keep = lambda content, buffers=None: studio.said.append((content, buffers))  # noqa: E731
    monkeypatch.setattr(studio.panel, "send", keep)
    return studio


@pytest.fixture
def heads(monkeypatch):
    """One result of seed 4, a head seen from 12 degrees."""
    studio = Studio(StandIn3D(), mask=face_mask(64), prompt="a young woman")
    studio.said = []
    keep = lambda content, buffers=None: studio.said.append((content, buffers))  # noqa: E731
    monkeypatch.setattr(studio.panel, "send", keep)
    studio.panel.set_state({"live": False, "seed": 4})
    studio.draw()
    assert studio.wait(20)
    return studio


def numbers(studio):
    return [result.request.number for result in studio.results]


def ask(studio, kind, **content):
    studio.panel._handle_custom_msg({"type": kind, **content}, [])
    assert studio.wait(20)
    return studio.said[-1]


def shade(file):
    return Image.open(io.BytesIO(file)).getpixel((0, 0))[1]


def test_a_slider_draws_the_moved_code_without_the_diffusion_model(studio):
    _, second = numbers(studio)
    calls = len(studio._pipe.calls)
    strengths = {"age": 1, "hair_length": -0.5}
    content, (picture,) = ask(
        studio, "edit", number=second, face=1, stamp=7, strengths=strengths, mix=None
    )
    told = {name: content[name] for name in ("type", "number", "face", "stamp")}
    assert told == {"type": "edited", "number": second, "face": 1, "stamp": 7}
    assert shade(picture) == 101 and len(studio._pipe.calls) == calls
    picture = ask(studio, "edit", number=second, face=1, strengths={"age": 2})[1][0]
    assert shade(picture) == 121  # from the code as it was drawn, not from the last edit
    assert (studio.results[1].latents[1] == 101).all()


@pytest.mark.parametrize(("rows", "mean"), [("coarse", (4 * 4 + 8 * 101) / 12), ("fine", 68)])
def test_rows_of_another_face_come_before_the_sliders(studio, rows, mean):
    first, second = numbers(studio)
    mix = {"number": first, "face": 0, "rows": rows}
    asked = {"number": second, "face": 1, "strengths": {"age": 1}, "mix": mix}
    _, (picture,) = ask(studio, "edit", **asked)
    assert shade(picture) == int(mean + 10)
    content, (file,) = ask(studio, "code", **asked)
    latents = safetensors.torch.load(file)["latents"]
    assert content["name"] == "face_101.safetensors" and latents.shape == (1, 12, 16)
    assert {*latents[0, :, 0].tolist()} == {14.0, 111.0}


@pytest.mark.parametrize("kind", ["edit", "code"])
@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"strengths": {"nose": 1}}, "unknown edits"),
        ({"strengths": {"age": "x"}}, "age came as 'x'"),
        ({"strengths": [1]}, "unknown edits [1]"),
        ({"mix": {"number": 99, "face": 0, "rows": "fine"}}, "no longer kept"),
        ({"mix": {"number": 1, "face": 5, "rows": "fine"}}, "no longer kept"),
        ({"mix": {"number": 1, "face": 0, "rows": "__all__"}}, "rows came as"),
        ({"mix": "all"}, "str"),
    ],
)
def test_what_cannot_be_edited_gets_a_word_and_the_studio_lives_on(studio, kind, asked, word):
    content, _ = ask(studio, kind, number=numbers(studio)[0], face=0, **asked)
    assert content["type"] == "problem" and word in content["text"]
    content, _ = ask(studio, "edit", number=numbers(studio)[0], face=0, strengths={"age": 1})
    assert content["type"] == "edited"


def test_the_page_knows_the_names_and_models_without_directions_have_none(studio):
    assert studio.panel.edits == ["age", "hair_length"]
    pipe = StandIn()
    pipe.edit_directions = None
    assert Studio(pipe).panel.edits == []


def test_a_head_turns_and_keeps_its_own_camera_while_it_is_edited(heads):
    assert heads.panel.views == {"yaw": [-30, 30], "pitch": [-20.0, 20.0]}
    (angles,) = heads.said[-1][0]["angles"]
    assert angles == pytest.approx([12, 0], abs=1e-3)
    (number,) = numbers(heads)
    for asked, color in (
        ({"strengths": {"age": 1}}, (100, 14, 12)),
        ({"strengths": {"age": 1}, "view": [25, -10]}, (90, 14, 25)),
    ):
        content, (picture,) = ask(heads, "edit", number=number, face=0, **asked)
        assert content["type"] == "edited"
        assert Image.open(io.BytesIO(picture)).getpixel((0, 0)) == color


def test_a_face_keeps_the_style_it_was_drawn_in_until_another_is_asked_for(monkeypatch):
    studio = Studio(StandInStyles(), mask=face_mask(64), prompt="a marble statue of a woman")
    studio.said = []
    keep = lambda content, buffers=None: studio.said.append((content, buffers))  # noqa: E731
    monkeypatch.setattr(studio.panel, "send", keep)
    assert studio.panel.styles == ["marble", "elf"] and Studio(StandIn()).panel.styles == []
    studio.panel.set_state({"live": False, "seed": 4})
    studio.draw()
    assert studio.wait(20)
    for style, red in ((None, 100), ({"marble": 0.3}, 30), ({"elf": 1.0}, 0), ({}, 0)):
        asked = {"number": 1, "face": 0, "strengths": {"age": 1}, "style": style}
        _, (picture,) = ask(studio, "edit", **asked)
        assert Image.open(io.BytesIO(picture)).getpixel((0, 0)) == (red, 14, 9)


def test_an_edited_head_is_saved_as_a_mesh(heads):
    content, (file,) = ask(heads, "mesh", number=1, face=0, strengths={"age": 1}, view=[9, 9])
    assert content == {"type": "file", "name": "head_4.glb"} and file == b"glb 14"
    content, _ = ask(heads, "mesh", number=1, face=0, strengths={"nose": 1})
    assert content["type"] == "problem" and "Not saved: unknown edits" in content["text"]


@pytest.mark.parametrize("view", ["left", [1], [float("nan"), 0], {"yaw": 1}])
def test_views_that_are_none_get_a_word(heads, view):
    content, _ = ask(heads, "edit", number=1, face=0, view=view)
    assert content["type"] == "problem" and "came as" in content["text"]


def test_pictures_do_not_turn(studio):
    assert studio.panel.views == {}
    content, _ = ask(studio, "edit", number=numbers(studio)[0], face=0, view=[9, 9])
    assert content["type"] == "problem"
