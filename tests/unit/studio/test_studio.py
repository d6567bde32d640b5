import io

import numpy as np
import pytest
import safetensors.torch
from PIL import Image
from stand_in import StandIn
from tiny_models import face_mask
from traitlets import TraitError

pytest.importorskip("anywidget")

from dmgi_lib.studio import Studio
from dmgi_lib.studio.studio import known_phrases


@pytest.fixture
def pipe():
    return StandIn()


@pytest.fixture
def studio(pipe, monkeypatch):
    studio = Studio(pipe, mask=face_mask(64), prompt="a young woman")
    studio.said = []
    keep = lambda content, buffers=None: studio.said.append((content, buffers))  # noqa: E731
    monkeypatch.setattr(studio.panel, "send", keep)
    return studio


def told(studio, kind):
    return [content for content, _ in studio.said if content["type"] == kind]


def test_a_change_gives_a_preview_and_draw_the_whole_process(studio, pipe):
    studio.panel.prompt = "blond hair"
    assert studio.wait(20)
    (call,) = pipe.calls
    assert call["exit_step"] == 0 and call["prompt"] == "blond hair" and call["seeds"] == [0]
    assert np.array_equal(call["mask"], face_mask(64))
    studio.panel.set_state({"faces": 3, "seed": 5, "exit_step": 8, "asked": 1, "live": False})
    assert studio.wait(20)
    assert pipe.calls[-1]["exit_step"] == 8 and pipe.calls[-1]["seeds"] == [5, 6, 7]
    content, buffers = next(s for s in studio.said[::-1] if s[0]["type"] == "result")
    assert not content["live"] and content["seed"] == 5 and len(buffers) == 3
    assert Image.open(io.BytesIO(buffers[1])).getpixel((0, 0)) == (90, 6, 40)
    assert len(studio.results) == 1
    calls = len(pipe.calls)
    studio.painter.ids = bytes(64 * 64)  # no live preview
    assert studio.wait(20) and len(pipe.calls) == calls


def test_only_the_newest_of_what_waits_is_drawn_and_old_answers_are_dropped(studio, pipe):
    pipe.go.clear()
    studio.panel.prompt = "hat 0"
    while studio._jobs._waiting["preview"]:
        pass  # until it is being drawn
    for i in range(1, 9):
        studio.panel.prompt = f"hat {i}"
    studio.draw()
    pipe.go.set()
    assert studio.wait(20)
    assert [call["prompt"] for call in pipe.calls] == ["hat 0", "hat 8"]
    assert [call["exit_step"] for call in pipe.calls] == [0, 9]  # the preview of 8 came too late
    assert [one["live"] for one in told(studio, "result")] == [True, False]


def test_scribbles_are_drawn_as_scribbles(studio, pipe):
    strokes = np.zeros((64, 64), np.uint8)
    strokes[5, 5:30] = 255
    studio.painter.mode = "scribble"
    studio.painter.scribble = strokes
    assert studio.wait(20)
    assert np.array_equal(pipe.calls[-1]["scribble"], strokes) and "mask" not in pipe.calls[-1]


def test_a_model_without_scribbles_offers_none():
    assert Studio(StandIn(scribbles=False)).painter.modes == ["mask"]


@pytest.mark.parametrize(
    ("prompt", "word"),
    [("", "Not drawn: prompt is empty"), ("crash", "Not drawn: RuntimeError: out of memory")],
)
def test_errors_are_told_and_the_next_drawing_works(studio, prompt, word):
    studio.panel.prompt = prompt
    assert studio.wait(20)
    assert told(studio, "problem")[-1]["text"].startswith(word)
    studio.panel.prompt = "a hat"
    assert studio.wait(20)
    assert told(studio, "result")[-1]["prompt"] == "a hat"


def test_warnings_of_the_pipeline_are_told(studio):
    studio.panel.prompt = "a zebra"
    assert studio.wait(20)
    assert told(studio, "result")[-1]["notes"] == ["unknown to this text encoder: zebra"]


def test_history_brings_everything_back_and_asks_for_nothing(studio, pipe):
    studio.panel.set_state({"prompt": "a hat", "seed": 7, "exit_step": 4, "faces": 2, "asked": 1})
    assert studio.wait(20)
    number = told(studio, "result")[-1]["number"]
    studio.painter.ids = bytes(64 * 64)
    studio.panel.set_state({"prompt": "black hair", "seed": 1, "exit_step": 9, "faces": 1})
    assert studio.wait(20)
    calls = len(pipe.calls)
    studio.panel._handle_custom_msg({"type": "restore", "number": number}, [])
    panel = studio.panel
    now = (panel.prompt, panel.seed, panel.exit_step, panel.faces)
    assert now == ("a hat", 7, 4, 2)
    assert np.array_equal(studio.painter.mask, face_mask(64))
    assert studio.wait(20) and len(pipe.calls) == calls


def test_the_code_of_a_face_is_a_safetensors_file(studio):
    studio.panel.set_state({"seed": 7, "faces": 2, "asked": 1})
    assert studio.wait(20)
    asked = {"type": "code", "number": studio.results[0].request.number, "face": 1}
    studio.panel._handle_custom_msg(asked, [])
    content, (file,) = studio.said[-1]
    assert content == {"type": "file", "name": "face_8.safetensors"}
    latents = safetensors.torch.load(file)["latents"]
    assert latents.shape == (1, 12, 16) and (latents == 8).all()
    studio.panel._handle_custom_msg(asked | {"number": 999}, [])
    assert "no longer kept" in studio.said[-1][0]["text"]


def test_a_page_that_opens_again_gets_what_was_drawn(studio, pipe):
    studio.panel._handle_custom_msg({"type": "hello"}, [])
    assert studio.wait(20) and pipe.calls[-1]["exit_step"] == 0  # a first preview
    for _ in range(2):
        studio.draw()
        assert studio.wait(20)
    studio.said.clear()
    studio.panel._handle_custom_msg({"type": "hello"}, [])
    assert [one["live"] for one in told(studio, "result")] == [False, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [("exit_step", 10), ("exit_step", -1), ("faces", 0), ("faces", 99), ("seed", -1)],
)
def test_wrong_settings_are_refused(studio, name, value):
    with pytest.raises(TraitError):
        setattr(studio.panel, name, value)


def test_suggestions_are_phrases_that_the_model_knows():
    known = known_phrases(StandIn.tokenizer)
    assert "blond hair" in known and "young woman" in known
    assert "red hair" not in known and known == sorted(known)
