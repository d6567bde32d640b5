"""Official .pkl checkpoints: same images as their networks, nothing executed, clear refusals."""

import io
import os
import pickle
import sys
import tarfile
import warnings
from pathlib import Path

import fake_official
import numpy as np
import pytest
import torch
from fake_official import EasyDict, Persistent, official_eg3d, official_module, snapshot
from safetensors.torch import load_file, save_file

from dmgi_lib.generators import StyleGAN2Generator, load_generator
from dmgi_lib.generators.cameras import look_at
from dmgi_lib.generators.convert import convert, main
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.official_networks import official_config
from dmgi_lib.generators.official_pickle import _KNOWN, OfficialModule

torch.set_num_threads(1)
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "parity"
SIZES = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3}
WIDTHS = {"channel_base": 64, "channel_max": 8}
RENDERING = {
    "image_resolution": 128,
    "disparity_space_sampling": False,
    "clamp_mode": "softplus",
    "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
    "c_gen_conditioning_zero": False,
    "gpc_reg_prob": 0.8,
    "c_scale": 0.5,
    "superresolution_noise_mode": "none",
    "density_reg": 0.25,
    "reg_type": "l1",
    "decoder_lr_mul": 1.0,
    "sr_antialias": True,
    "depth_resolution": 5,
    "depth_resolution_importance": 6,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "avg_camera_radius": 2.7,
    "avg_camera_pivot": [0, 0, 0.2],
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(G):
    for tensor in (*G.parameters(), *G.buffers()):
        if tensor.ndim < 2:  # biases, noise strengths, w_avg: all zero or one at first
            tensor.data.normal_(generator=rng(tensor.numel()))
    return G.eval().requires_grad_(False)


def tiny(**changes) -> StyleGAN2Generator:
    torch.manual_seed(0)
    return randomised(StyleGAN2Generator(**(SIZES | WIDTHS | {"mapping_layers": 2} | changes)))


def ada(G: StyleGAN2Generator, **synthesis_kwargs) -> Persistent:
    """As stylegan2-ada-pytorch records it."""
    options = EasyDict(**WIDTHS, num_fp16_res=4, conv_clamp=G.config.conv_clamp, **synthesis_kwargs)
    mapping = EasyDict(num_layers=G.config.mapping_layers)
    return official_module(G, **SIZES, mapping_kwargs=mapping, synthesis_kwargs=options)


def write(content, folder: Path, name: str = "network.pkl", protocol: int = 4) -> Path:
    return fake_official.write_pickle(content, folder / name, protocol)


@pytest.mark.parametrize("protocol", [3, 4])
@torch.no_grad()
def test_stylegan2_ada_pickle_gives_the_same_images(tmp_path, protocol):
    G = tiny(conv_clamp=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write(snapshot(ada(G)), tmp_path, protocol=protocol)
        loaded = load_generator(path)
    z = torch.randn(2, 8, generator=rng())
    for psi in (1.0, 0.7):
        assert torch.equal(loaded(z, truncation_psi=psi), G(z, truncation_psi=psi))
    assert {k: loaded.config[k] for k in G.config if k[0] != "_"} == {
        k: v for k, v in G.config.items() if k[0] != "_"
    }
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@torch.no_grad()
def test_stylegan3_stylegan2_pickle_gives_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setattr(Persistent, "meta_type", dict)
    G = tiny(c_dim=3, conv_clamp=0.7)
    inline = {"fused_modconv_default": "inference_only", "num_fp16_res": 0}
    official = official_module(  # conv_clamp is a default, known to the layers alone
        G, *(SIZES | {"c_dim": 3}).values(), mapping_kwargs={"num_layers": 2}, **WIDTHS, **inline
    )
    loaded = load_generator(write({"G": official, "G_ema": None}, tmp_path))
    assert loaded.config.conv_clamp == 0.7
    z, c = torch.randn(2, 8, generator=rng()), torch.eye(3)[:2]
    assert torch.equal(loaded(z, c), G(z, c))


@torch.no_grad()
def test_pickle_of_the_reference_weights_gives_the_reference_image(tmp_path):
    weights = load_file(FIXTURES / "stylegan2_weights.safetensors")
    io_ = load_file(FIXTURES / "stylegan2_io.safetensors")
    G = StyleGAN2Generator(64, 0, 64, 32, mapping_layers=4, channel_base=1024, channel_max=64)
    G.load_state_dict({k[2:]: v for k, v in weights.items() if k.startswith("G.")})
    arguments = {"mapping_kwargs": EasyDict(num_layers=4), "channel_base": 1024, "channel_max": 64}
    path = write(snapshot(official_module(G, 64, 0, 64, 32, 3, **arguments)), tmp_path)
    image = load_generator(path)(io_["z"])
    reference = io_["image_const_noise"]
    assert (image - reference).abs().max() / reference.std() < 1e-4


def test_constructor_defaults_apply_to_what_is_not_recorded():
    layer = OfficialModule("SynthesisLayer", (), {}, {"conv_clamp": 256}, {}, {})
    block = OfficialModule("SynthesisBlock", (), {}, {}, {"conv1": layer}, {})
    synthesis = OfficialModule("SynthesisNetwork", (), {}, {}, {"b4": block}, {})
    children = {"synthesis": synthesis}
    network = OfficialModule("Generator", (512, 0, 512, 1024, 3), {}, {}, children, {})
    assert official_config(network, "a file") == {
        "_class_name": "StyleGAN2Generator",
        **{"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 1024, "img_channels": 3},
        **{"mapping_layers": 8, "channel_base": 32768, "channel_max": 512, "conv_clamp": 256},
    }


def eg3d(**changes) -> TriPlaneGenerator:
    torch.manual_seed(0)
    fields = ("depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp")
    config = {
        **{"z_dim": 8, "w_dim": 8, "img_resolution": 128, "mapping_layers": 2},
        **{"channel_base": 64, "channel_max": 8, "plane_resolution": 16},
        **{"neural_rendering_resolution": 16, "sr_channels": (128, 64), "sr_input_resolution": 64},
        **{"c_scale": 0.5, "rendering": {k: RENDERING[k] for k in fields}},
    }
    return randomised(TriPlaneGenerator(**(config | changes)))


EG3D_KWARGS = {
    "mapping_kwargs": EasyDict(num_layers=2),
    "sr_num_fp16_res": 4,
    "sr_kwargs": EasyDict(channel_base=32768, fused_modconv_default="inference_only"),
    **WIDTHS,
    **{"num_fp16_res": 0, "conv_clamp": None, "fused_modconv_default": "inference_only"},
}


@torch.no_grad()
def test_eg3d_pickle_gives_the_same_images(tmp_path):
    G = eg3d(sr_conv_clamp=2.0)
    official = official_eg3d(G, EasyDict(RENDERING, depth_resolution=48), **EG3D_KWARGS)
    official.rendering_kwargs = dict(RENDERING)  # set later: counts, not what it was built with
    loaded = load_generator(write(snapshot(official), tmp_path))
    assert isinstance(loaded, TriPlaneGenerator)
    z, c = torch.randn(2, 8, generator=rng()), look_at(yaw=[-20.0, 30.0], pitch=5.0)
    ours, theirs = G(z, c, truncation_psi=0.7), loaded(z, c, truncation_psi=0.7)
    for name in ("image", "image_raw", "image_depth"):
        assert torch.equal(getattr(theirs, name), getattr(ours, name))
    assert loaded.config.sr_conv_clamp == 2.0
    assert loaded.config.conv_clamp is None


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
        ({"channel_max": 4}, "tensors of G_ema of .* do not fit"),
    ],
)
def test_options_without_counterpart_are_refused(tmp_path, change, message):
    official = ada(tiny())
    official._init_kwargs["synthesis_kwargs"] |= change
    with pytest.raises(ValueError, match=message):
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
        (np.zeros(3), "a NumpyArray, not a generator|asks for numpy"),
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


@torch.no_grad()
def test_conversion_writes_a_whole_folder_once(tmp_path, capsys):
    G = tiny()
    path, folder = write(snapshot(ada(G)), tmp_path), tmp_path / "deep" / "folder"
    assert main([str(path), str(folder)]) == 0
    z = torch.randn(1, 8, generator=rng())
    for loaded in (load_generator(folder), StyleGAN2Generator.from_pretrained(folder)):
        assert torch.equal(loaded(z), G(z))
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]
    assert not list(folder.glob("*.pkl"))

    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(FileExistsError, match="exists already"):
        convert(path, folder)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    empty = tmp_path / "empty"
    empty.mkdir()
    convert(path, empty)
    assert {p.name for p in empty.iterdir()} == {p.name for p in folder.iterdir()}

    capsys.readouterr()
    path.write_bytes(path.read_bytes()[:-1])
    assert main([str(path), str(tmp_path / "new")]) == 1
    assert "no whole pickle" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
