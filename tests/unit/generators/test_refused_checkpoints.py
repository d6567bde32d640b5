"""Official .pkl checkpoints that are refused: other networks, planted code, damaged files."""

import io
import os
import pickle
import sys
import tarfile

import numpy as np
import pytest
import torch
from fake_official import EasyDict, Persistent, official_eg3d, snapshot
from safetensors.torch import save_file
from tiny_checkpoints import EG3D_KWARGS, RENDERING, ada, eg3d, write
from tiny_checkpoints import stylegan2 as tiny
from tiny_models import rng

from dmgi_lib.generators import load_generator
from dmgi_lib.generators.official_pickle import _KNOWN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clamp_mode": "relu"}, "clamp_mode = 'relu'; .* clamp_mode = 'softplus'"),
        ({"superresolution_noise_mode": "random"}, "superresolution_noise_mode = 'random'"),
        ({"decoder_lr_mul": 2.0}, "decoder_lr_mul = 2.0"),
        ({"ray_start": "auto"}, "ray_start = 'auto'"),
        ({"box_warp": None}, "box_warp = None"),
    ],
)
def test_other_ways_of_rendering_are_refused(tmp_path, change, message):
    official = official_eg3d(eg3d(), RENDERING | change, **EG3D_KWARGS)
    with pytest.raises(ValueError, match=message):
        load_generator(write(snapshot(official), tmp_path))


def test_other_plane_axes_are_refused(tmp_path):
    official = official_eg3d(eg3d(), RENDERING, **EG3D_KWARGS)
    official.renderer.plane_axes = official.renderer.plane_axes[:, [1, 0, 2]]
    with pytest.raises(ValueError, match="the plane axes .* XY, XZ and ZX"):
        load_generator(write(snapshot(official), tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "resnet"}, "architecture = 'resnet'; .* architecture = 'skip'"),
        ({"architecture": "orig"}, "architecture = 'orig'"),
        ({"use_noise": False}, "use_noise = False"),
        ({"resample_filter": [1, 2, 1]}, r"resample_filter = \[1, 2, 1\]"),
        ({"attention": 3}, "attention = 3; .* no such option"),
        ({"channel_max": "many"}, "channel_max = 'many'"),
        ({"channel_max": -8}, "no negative channel_max"),
        ({"channel_max": 10**7}, "channel_max came as 10000000; expected a whole number"),
        ({"channel_base": 0}, "channel_base came as 0"),
        ({"channel_max": 4}, "tensors of G_ema of .* do not fit"),
    ],
)
def test_options_without_counterpart_are_refused(tmp_path, change, message):
    official = ada(tiny())
    official._init_kwargs["synthesis_kwargs"] |= change
    with pytest.raises(ValueError, match=message):
        load_generator(write(snapshot(official), tmp_path))


def test_sizes_are_checked_before_anything_is_built(tmp_path):
    official = ada(tiny())
    official._init_kwargs["mapping_kwargs"]["num_layers"] = 10**7
    with pytest.raises(
        ValueError, match="mapping_layers came as 10000000; expected a whole number"
    ):
        load_generator(write(snapshot(official), tmp_path))


def test_stylegan3_generator_is_named(tmp_path):
    official = Persistent("Generator", 512, 0, 512, 256, 3, magnitude_ema_beta=0.99)
    official.synthesis = Persistent("SynthesisNetwork", w_dim=512)
    official.synthesis.input = Persistent("SynthesisInput", w_dim=512)
    official.synthesis.input.size = np.broadcast_to(np.asarray(36), [2])
    with pytest.raises(ValueError, match="alias-free StyleGAN3 generator"):
        load_generator(write(snapshot(official), tmp_path))


class Plant:
    """Unpickles to a call of `function` with `arguments`."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("place", ["beside", "inside", "argument", "instead", "in_bytes"])
def test_planted_call_is_refused_and_does_not_run(tmp_path, place):
    trace = tmp_path / "trace"
    plant = Plant(os.mkdir, str(trace))
    content = snapshot(ada(tiny()))
    if place == "beside":
        content["augment_pipe"] = plant
    elif place == "inside":
        content["G_ema"].mapping.hook = plant
    elif place == "argument":
        content["G_ema"]._init_kwargs["c_dim"] = plant
    elif place == "instead":
        content = plant
    else:
        content["G_ema"].mapping.register_buffer("w_avg", None)
        content["G_ema"].mapping._buffers["w_avg"] = Plant(
            torch.storage._load_from_bytes, pickle.dumps(plant)
        )
    path = write(content, tmp_path)
    message = "w_avg of a MappingNetwork" if place == "in_bytes" else r"posix\.mkdir|nt\.mkdir"
    with pytest.raises(ValueError, match=message):
        load_generator(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(plant))
    assert trace.exists()  # so the plant was live


def test_planted_tensor_bytes_are_refused_and_do_not_run(tmp_path):
    trace = tmp_path / "trace"
    plant = Plant(os.mkdir, str(trace))
    stream, archive, tar = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(plant, stream, _use_new_zipfile_serialization=False)
    torch.save(plant, archive)
    with tarfile.open(fileobj=tar, mode="w") as file:
        member = tarfile.TarInfo("pickle")
        member.size = len(payload := pickle.dumps(plant, 2))
        file.addfile(member, io.BytesIO(payload))
    tensor = torch.zeros(8)
    for data in (stream.getvalue(), archive.getvalue(), tar.getvalue(), b""):
        official = ada(tiny())
        storage = Plant(torch.storage._load_from_bytes, data)
        rebuild, (_, *rest) = tensor.__reduce_ex__(4)
        official.mapping._buffers["w_avg"] = Plant(rebuild, storage, *rest)
        path = write(snapshot(official), tmp_path)
        with pytest.raises(ValueError, match="w_avg of a MappingNetwork .* no whole tensor"):
            load_generator(path)
        assert not trace.exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    ("size", "stride", "offset"), [((9,), (1,), 0), ((4, 2), (4, 4), 0), ((8,), (1,), 1)]
)
def test_tensors_cannot_reach_beyond_their_data(tmp_path, size, stride, offset):
    official = ada(tiny())
    rebuild, (storage, *_) = torch.zeros(8).__reduce_ex__(4)
    official.mapping._buffers["w_avg"] = Plant(rebuild, storage, offset, size, stride, False, {})
    with pytest.raises(ValueError, match="w_avg of a MappingNetwork"):
        load_generator(write(snapshot(official), tmp_path))


@torch.no_grad()
def test_recorded_source_is_ignored(tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    source = f"import os\nos.mkdir({str(trace)!r})\n"
    monkeypatch.setattr(Persistent, "module_src", source)
    G = tiny()
    path = write(snapshot(ada(G)), tmp_path)
    assert repr(str(trace)).encode() in path.read_bytes()
    before = set(sys.modules)
    z = torch.randn(1, 8, generator=rng())
    assert torch.equal(load_generator(path)(z), G(z))
    assert not trace.exists()
    assert not {m.split(".")[0] for m in set(sys.modules) - before} & {"dnnlib", "torch_utils"}
    exec(source)
    assert trace.exists()


def test_state_cannot_be_set_on_what_names_stand_for(tmp_path):
    path = tmp_path / "network.pkl"
    for module, name in _KNOWN:
        # GLOBAL, then BUILD with the slot state {"args": 1}
        path.write_bytes(
            f"\x80\x03c{module}\n{name}\n(N}}X\x04\0\0\0argsK\x01stb.".encode("latin1")
        )
        with pytest.raises(ValueError, match="no whole pickle"):
            load_generator(path)


def test_damaged_files_are_named(tmp_path):
    path = write(snapshot(ada(tiny())), tmp_path)
    whole = path.read_bytes()
    for keep in (2, 50, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="no whole pickle"):
            load_generator(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        load_generator(path)
    with pytest.raises(FileNotFoundError, match="no generator at"):
        load_generator(tmp_path / "missing.pkl")


def test_renamed_files_are_named(tmp_path):
    path, tensors = tmp_path / "network.pkl", {"mapping.w_avg": torch.zeros(3)}
    save_file(tensors, path)
    with pytest.raises(ValueError, match="a safetensors file; name it .safetensors"):
        load_generator(path)
    torch.save(tensors, path)
    with pytest.raises(ValueError, match="a zip archive, such as torch.save writes"):
        load_generator(path)
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="a file of torch.save"):
        load_generator(path)
    path.write_bytes(b"<!DOCTYPE html><title>Quota exceeded</title>")
    with pytest.raises(ValueError, match="a web page"):
        load_generator(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="no pickle"):
        load_generator(path)


def test_other_pickles_are_named(tmp_path):
    path = tmp_path / "network.pkl"
    for content, message in (
        ([1, 2], "holds a list, not a generator"),
        ({"epoch": 3, "model": {}}, r"a dict with the keys \['epoch', 'model'\]"),
        ({"G_ema": None, "G": {"w": 1}}, "not a generator"),
        ({"G_ema": Persistent("Discriminator")}, "a network of class 'Discriminator'"),
        ({"G_ema": torch.zeros(3)}, "G_ema of .* not laid out as in an official checkpoint"),
        (np.zeros(3), "Unread, not a generator|asks for numpy"),
    ):
        with pytest.raises(ValueError, match=message):
            load_generator(write(content, tmp_path))
    # an object of the TensorFlow releases, as protocol 2 writes it
    path.write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01}q\x02b.")
    with pytest.raises(ValueError, match="TensorFlow releases"):
        load_generator(path)
    official = ada(tiny())
    official.mapping._modules["fc0"] = EasyDict()
    with pytest.raises(ValueError, match="EasyDict|a dict .* where a module belongs"):
        load_generator(write(snapshot(official), tmp_path))


def test_network_that_contains_itself_is_refused(tmp_path):
    def text(word: str) -> bytes:
        return b"X" + len(word).to_bytes(4, "little") + word.encode()

    # meta goes into the call empty and is filled afterwards, with the call's result inside of it
    call = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}q\x00\x85Rq\x01"
    names = text("type") + text("class") + b"s" + text("class_name") + text("Generator") + b"s"
    state = b"}" + text("_parameters") + b"}s" + text("_buffers") + b"}s"
    modules = text("_modules") + b"}" + text("loop") + b"h\x01ss"
    fill = b"h\x00" + names + text("state") + state + modules + b"s0"
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x03}" + text("G_ema") + call + fill + b"s.")
    with pytest.raises(ValueError, match="not laid out .*RecursionError"):
        load_generator(path)
