"""Pickles that would exhaust memory, time or the stack, refused on the way."""

import io
import pickle
from struct import pack

import pytest
import torch
from fake_official import Persistent, snapshot
from tiny_checkpoints import ada, write
from tiny_checkpoints import stylegan2 as tiny

from dmgi_lib.generators import load_generator, pickle_reader
from dmgi_lib.generators.pickle_reader import PickleReader

PAIRS = b"\x80\x02K\x01" + b"".join(
    b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(40)
)
SET = b"cbuiltins\nset\n"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x80\x02" + b"N" * 10**6 + b".", "more than 100000 opcodes"),
        (b"\x80\x02)" + b"\x85" * 10**6 + b".", "more than 100000 opcodes"),
        (b"\x80\x02})" + b"\x85" * 90_000 + b"K\x01s.", "a tuple as a key came"),
        (b"\x80\x02}" + PAIRS[2:] + b"K\x01s.", "a tuple as a key came"),  # one hash takes for ever
        (b"\x80\x04\x8f(" + PAIRS[2:] + b"\x90.", "a RecordSet, not a generator"),
        (b"\x80\x02ccollections\nOrderedDict\n]" + PAIRS[2:] + b"K\x01\x86a\x85R.", "no whole p"),
        (PAIRS + b".", "a tuple, not a generator"),
        (b"\x80\x02Nr" + pack("<I", 2**27) + b".", "a NoneType, not a generator"),
        (b"\x80\x02N2.", "the opcode b'2' came"),  # pickle writes none of these
        (b"\x80\x05\x96" + pack("<Q", 2**40) + b".", "the opcode b'.+x96' came"),
        (b"\x80\x02\x82\x01.", "the opcode b'.+x82' came"),
        (b"\x80\x02\x8b" + pack("<i", 10**6) + b"\x01" * 10**6 + b".", "the opcode b'.+x8b' came"),
        (b"\x80\x04\x8e" + pack("<Q", 2**62) + b"x.", "no whole pickle"),
        (b"\x80\x04\x95" + pack("<Q", 2**62) + b"N.", "a NoneType, not a generator"),
        (b"\x80\x02c" + b"x" * 10**6 + b"\ny\n.", "no official StyleGAN2 or EG3D"),
        (  # a list of 10,000 numbers, for 1,000 sets to copy
            b"\x80\x02](" + b"K\x01" * 10**4 + b"eq\x00" + (SET + b"h\x00\x85R0") * 1000 + b"N.",
            "a NoneType, not a generator",
        ),
    ],
)  # fmt: skip
def test_what_would_exhaust_the_machine_is_refused_soon(tmp_path, stream, message):
    path = tmp_path / "network.pkl"
    path.write_bytes(stream)
    with pytest.raises(ValueError, match=message):
        load_generator(path)


def test_an_official_checkpoint_is_far_from_the_limits(tmp_path, monkeypatch):
    path = write(snapshot(ada(tiny())), tmp_path)
    monkeypatch.setattr(pickle_reader, "MAX_OPCODES", 20_000)
    load_generator(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_pickle_writes_is_read_to_its_end(protocol):
    things = {
        "text": "é" * 300, "numbers": [1, -1, 2**40, 0.5, True, None],
        "nested": [({"a": [(1, 2, 3, 4)]}, ())],
    }  # fmt: skip
    things |= {"bytes": b"x" * 300} if protocol > 2 else {}  # which 2 writes as a call
    stream = io.BytesIO(pickle.dumps(things, protocol) + b"behind")
    assert PickleReader(stream).load() == things
    assert stream.read() == b"behind"


def test_storages_are_bounded_too(tmp_path):
    def storage(count: int, raw: bytes, kind: str = "FloatStorage", machine: bytes = b"}") -> bytes:
        text = b"X\x07\0\0\0storage"
        pid = b"(" + text + f"ctorch\n{kind}\n".encode() + b"X\x01\0\0\x000X\x03\0\0\0cpu"
        pid += b"\x8a\x05" + count.to_bytes(5, "little") + b"NtQ."
        head = (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02" + machine + b"."
        )
        return head + b"\x80\x02" + pid + b"\x80\x02]X\x01\0\0\x000a." + pack("<Q", count) + raw

    def load(data: bytes, shape: tuple[int, ...] = (8,), stride: int = 0):
        official = ada(tiny())
        rebuild = torch._utils._rebuild_tensor_v2
        stored = Call(torch.storage._load_from_bytes, data)
        official.mapping._buffers["w_avg"] = Call(rebuild, stored, 0, shape, (stride,), False, {})
        return load_generator(write(snapshot(official), tmp_path))

    eight = [float(i) for i in range(8)]
    assert load(storage(8, pack("<8f", *eight)), stride=1).mean_latent.tolist() == eight
    for data, message in (
        (storage(2**33, b""), "8589934592 numbers are announced, 0 bytes came"),
        (storage(8, b"\0" * 31), "8 numbers are announced, 31 bytes came"),
        (storage(8, b"\0" * 32, "Tensor"), r"ask for torch\.Tensor, which is refused"),
        (storage(8, b"\0" * 32, machine=b"N" * 10**6), "more than 100000 opcodes"),
    ):
        with pytest.raises(ValueError, match=f"w_avg of a MappingNetwork.*{message}") as error:
            load(data)
        assert "weights_only" not in str(error.value)
    with pytest.raises(ValueError, match="more numbers than the file has bytes"):
        load(storage(8, b"\0" * 32), (2**40,))


class Call:
    """Unpickles to a call of `function` with `arguments`."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def test_options_that_unfold_without_end_are_refused(tmp_path):
    pair: list = []
    official = ada(tiny())
    official.extra = first = pair
    for _ in range(40):  # from the outside in, so that the opcodes cannot count it
        inner: list = []
        pair.extend([inner, inner])
        pair = inner
    assert first
    with pytest.raises(ValueError, match="unfold to more than"):
        load_generator(write({"G_ema": official}, tmp_path))
    official = Persistent("Generator")
    official.extra = official
    with pytest.raises(ValueError, match="not laid out|holds a network|has the parts"):
        load_generator(write({"G_ema": official}, tmp_path))
