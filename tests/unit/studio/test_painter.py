import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import face_mask
from traitlets import TraitError

pytest.importorskip("anywidget")

from dmgi_lib.masks import CLASSES, flip_mask, mask_to_image
from dmgi_lib.studio.painter import Painter

HELD = face_mask(64).numpy().tobytes()


@pytest.fixture
def painter(monkeypatch):
    painter = Painter(64)
    painter.said = []
    monkeypatch.setattr(painter, "send", lambda content, buffers=None: painter.said.append(content))
    return painter


def load(painter, content):
    painter._handle_custom_msg({"type": "load"}, [memoryview(content)])
    return painter.said[-1]


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_bytes_and_arrays_are_the_same_canvas(painter):
    painter.ids = memoryview(HELD)  # as it comes from the page
    assert np.array_equal(painter.mask, face_mask(64))
    painter.mask = mask_to_image(flip_mask(face_mask(64)))
    assert painter.ids == flip_mask(face_mask(64)).numpy().tobytes()
    strokes = np.zeros((64, 64), np.uint8)
    strokes[5, 5:30] = 255
    painter.scribble = Image.fromarray(strokes)
    assert np.array_equal(painter.scribble, strokes)
    assert painter.ids == flip_mask(face_mask(64)).numpy().tobytes()


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("ids", bytes(100), "100 bytes; expected 64 x 64"),
        ("ids", bytes([19]) * 4096, "holds \\[19\\]; expected class ids 0..18"),
        ("strokes", bytes([7]) * 4096, "holds \\[7\\]; expected 0 or 255"),
        ("mode", "oil", "mode"),
    ],
)
def test_wrong_values_are_refused_and_the_canvas_stays(painter, name, value, word):
    painter.ids = HELD
    before = getattr(painter, name)
    with pytest.raises(TraitError, match=word):
        setattr(painter, name, value)
    assert getattr(painter, name) == before
    assert painter.ids == HELD


@pytest.mark.parametrize("options", [{"size": 8}, {"size": 4096}, {"modes": ()}])
def test_wrong_painters_are_refused(options):
    with pytest.raises((TraitError, ValueError)):
        Painter(**options)


def test_files_are_loaded_by_the_same_rules_as_in_a_call(painter):
    told = load(painter, png(mask_to_image(face_mask(64))))
    assert told == {"type": "said", "problem": False, "text": "Loaded."}
    assert np.array_equal(painter.mask, face_mask(64))
    wide = torch.zeros(64, 128, dtype=torch.uint8)
    wide[:, :64] = face_mask(64)
    load(painter, png(mask_to_image(wide)))
    assert (painter.mask[:16] == 0).all() and painter.mask.any()  # padded, not refused
    assert "unlike a face" in load(painter, png(Image.new("P", (64, 64))))["text"]


@pytest.mark.parametrize(
    "content",
    [b"", b"<script>alert(1)</script>", png(Image.new("RGB", (64, 64), (9, 99, 199))),
     png(Image.new("L", (5000, 4000))), png(mask_to_image(face_mask()))[:-400],
     png(Image.new("I;16", (64, 64), 900))],
    ids=["empty", "text", "colour", "huge", "truncated", "16 bits"],
)  # fmt: skip
def test_wrong_files_get_a_word_and_the_drawing_stays(painter, content):
    painter.ids = HELD
    told = load(painter, content)
    assert told["problem"] and told["text"].startswith("Not loaded: ")
    assert painter.ids == HELD


def test_messages_of_unknown_kinds_do_nothing(painter):
    for content, buffers in (({}, []), ({"type": "load"}, []), ({"type": "x"}, [b"y"])):
        painter._handle_custom_msg(content, buffers)
    assert not painter.said


def test_mirrored_classes_have_plain_names(painter):
    names = painter.names
    assert names[painter.twins[names.index("left eye")]] == "right eye"
    assert len(set(names)) == len(CLASSES) == len(painter.palette)
    assert names[painter.twins[names.index("lower lip")]] == "lower lip"
