"""Files and messages that a page should never send: a word, and the drawing as it was."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from stand_in import StandIn
from tiny_models import face_mask
from traitlets import TraitError

pytest.importorskip("anywidget")

from dmgi_lib.studio import Painter, Studio

FACE = face_mask(64).numpy()


def picture(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width, height):
    return b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    )


GOOD = picture(Image.fromarray(FACE))
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
LONG_TEXT = b"comment\0\0" + zlib.compress(bytes(200 * 2**20))  # 200 MB in 200 kB
BAD_FILES = {
    "nothing": b"",
    "text": b"<script>alert(1)</script>",
    "pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "jpeg": picture(Image.fromarray(NOISE), "JPEG"),
    "gif": picture(Image.fromarray(FACE), "GIF"),
    "half": GOOD[: len(GOOD) // 2],
    "header alone": header(64, 64),
    "wrong checksum": GOOD[:60] + bytes([GOOD[60] ^ 255]) + GOOD[61:],
    "a bomb": header(60000, 60000) + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
    "a text bomb": GOOD[:33] + chunk(b"zTXt", LONG_TEXT) + GOOD[33:],
    "no pixels": header(0, 0) + chunk(b"IEND", b""),
    "too many pixels": picture(Image.new("L", (5000, 5000))),
    "one pixel": picture(Image.new("L", (1, 1))),
    "photograph": picture(Image.fromarray(NOISE)),
    "grey photograph": picture(Image.fromarray(NOISE[..., 0])),
    "sixteen bits": picture(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)),
}


@pytest.fixture
def painter(monkeypatch):
    painter = Painter(64)
    painter.mask = FACE
    painter.said = []
    monkeypatch.setattr(painter, "send", lambda content, **_: painter.said.append(content))
    return painter


@pytest.mark.parametrize("mode", ["mask", "scribble"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_a_word_and_the_drawing_stays(painter, name, mode):
    if mode == "scribble" and name in ("one pixel", "photograph", "grey photograph"):
        return  # strokes are what is bright in it
    painter.mode = mode
    before = painter.ids, painter.strokes
    painter._handle_custom_msg({"type": "load"}, [memoryview(BAD_FILES[name])])
    (said,) = painter.said
    assert said["problem"] and said["text"].startswith("Not loaded: ") and len(said["text"]) > 30
    assert (painter.ids, painter.strokes) == before


@pytest.mark.parametrize("shape", [(16, 300), (4096, 4096), (40, 24)])
def test_odd_sizes_are_fitted(painter, shape):
    painter._handle_custom_msg(
        {"type": "load"}, [picture(Image.fromarray(np.ones(shape, np.uint8)))]
    )
    assert painter.said[-1]["text"].startswith("Loaded.")
    assert (painter.mask == 1).any()


@pytest.mark.parametrize(
    "message", [{}, {"type": "load"}, {"type": "eval", "code": "1"}, {"type": ["load"]}]
)
def test_messages_without_meaning_do_nothing(painter, message):
    before = painter.ids
    painter._handle_custom_msg(message, [])
    assert painter.ids == before and not painter.said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ids", bytes(10)),
        ("ids", bytes([200]) * 64 * 64),
        ("strokes", bytes([7]) * 64 * 64),
        ("mode", "javascript"),
    ],
)
def test_states_that_are_none_are_refused(painter, name, value):
    before = getattr(painter, name)
    with pytest.raises(TraitError):
        painter.set_state({name: value})
    assert getattr(painter, name) == before


@pytest.mark.parametrize(
    "message",
    [{}, {"type": "restore"}, {"type": "restore", "number": "x"}, {"type": "code", "number": 9**9}],
)
def test_faces_that_were_never_drawn_get_a_word(monkeypatch, message):
    studio, said = Studio(StandIn(), mask=FACE), []
    monkeypatch.setattr(studio.panel, "send", lambda content, **_: said.append(content))
    studio.panel._handle_custom_msg(message, [])
    assert said[-1]["type"] == "problem" and "no longer kept" in said[-1]["text"]


@pytest.mark.parametrize("face", [-5, 99])
def test_a_face_beyond_the_last_is_the_nearest(monkeypatch, face):
    studio, said = Studio(StandIn(), mask=FACE), []
    studio.draw()
    assert studio.wait(20)
    monkeypatch.setattr(studio.panel, "send", lambda content, **_: said.append(content))
    number = studio.results[-1].request.number
    studio.panel._handle_custom_msg({"type": "code", "number": number, "face": face}, [])
    assert said[-1]["type"] == "file"


def test_two_studios_share_no_drawing():
    pipe = StandIn()
    one, other = (Studio(pipe, mask=FACE, prompt=text) for text in ("a hat", "black hair"))
    one.painter.ids = bytes(64 * 64)
    one.draw()
    other.draw()
    assert one.wait(20) and other.wait(20)
    assert np.array_equal(other.painter.mask, FACE) and other.panel.prompt == "black hair"
    assert [studio.results[-1].request.prompt for studio in (one, other)] == ["a hat", "black hair"]
