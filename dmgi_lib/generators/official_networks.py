"""The config of our generator for a network of an official release, from its recorded arguments.

Constructors: stylegan2-ada-pytorch `training.networks.Generator` (synthesis options in a dict
synthesis_kwargs), stylegan3 `training.networks_stylegan2.Generator` (the same options inline) and
EG3D `training.triplane.TriPlaneGenerator`. What a file does not record has the constructor's
default.
"""

from __future__ import annotations

import reprlib
from typing import Any

import torch

from dmgi_lib.generators.eg3d.planes import PLANE_AXES
from dmgi_lib.generators.official_pickle import OfficialModule
from dmgi_lib.generators.pickled_tensors import CheckpointError, tensor_value

_SIZES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_STYLEGAN2_ORDER = (*_SIZES, "mapping_kwargs", "synthesis_kwargs")
_EG3D_ORDER = (*_SIZES, "sr_num_fp16_res", "mapping_kwargs", "rendering_kwargs", "sr_kwargs")
# Speed or training only: another value means the same images up to rounding.
_WITHOUT_EFFECT = {
    *("num_fp16_res", "use_fp16", "fp16_channels_last", "channels_last"),
    *("fused_modconv_default", "w_avg_beta"),
}
# The one value that our generators are built with.
_FIXED: dict[str, Any] = {
    "architecture": "skip",
    "resample_filter": [1, 3, 3, 1],
    "kernel_size": 3,
    "use_noise": True,
    "activation": "lrelu",
    "lr_multiplier": 0.01,
}
_W_DIM_WIDE = ("embed_features", "layer_features")  # of the mapping network; None = w_dim
_FIXED_RENDERING: dict[str, Any] = {
    "clamp_mode": "softplus",
    "disparity_space_sampling": False,
    "superresolution_noise_mode": "none",
    "decoder_lr_mul": 1,
}
# class of the super-resolution: side of its input, channels of its two blocks
_SUPER_RESOLUTIONS = {
    "SuperresolutionHybrid2X": (64, (128, 64)),
    "SuperresolutionHybrid4X": (128, (128, 64)),
    "SuperresolutionHybrid8X": (128, (128, 64)),
    "SuperresolutionHybrid8XDC": (128, (256, 128)),
}
_REQUIRED: Any = object()


def official_config(network: OfficialModule, source: str) -> dict[str, Any]:
    """Class name and constructor arguments of our generator for an official network.

    Raises:
        CheckpointError: (a ValueError) not a generator, a StyleGAN3 generator, or one built with
            options that our generators do not have
    """
    if network.class_name == "Generator":
        return {"_class_name": "StyleGAN2Generator", **_stylegan2_config(network, source)}
    if network.class_name == "TriPlaneGenerator":
        return {"_class_name": "TriPlaneGenerator", **_eg3d_config(network, source)}
    raise CheckpointError(
        f"{source} holds a network of class {network.class_name!r}; expected a Generator"
        " (stylegan2-ada-pytorch, or StyleGAN2 from stylegan3) or a TriPlaneGenerator (EG3D)."
    )


def _stylegan2_config(network: OfficialModule, source: str) -> dict[str, Any]:
    if "input" in _child(network, "synthesis", source).children:
        raise CheckpointError(
            f"{source} holds an alias-free StyleGAN3 generator (stylegan3-t or stylegan3-r);"
            " expected a StyleGAN2 generator. The StyleGAN2 checkpoints of stylegan3"
            " (stylegan2-*.pkl) can be read."
        )
    arguments = _Arguments.of(network, _STYLEGAN2_ORDER, source)
    config = {name: arguments.take(name, int) for name in _SIZES}
    config |= _backbone_options(arguments, network)
    arguments.check_rest(config["w_dim"])
    return config


def _eg3d_config(network: OfficialModule, source: str) -> dict[str, Any]:
    arguments = _Arguments.of(network, _EG3D_ORDER, source)
    backbone = _child(network, "backbone", source)
    super_resolution = _child(network, "superresolution", source)
    config = {name: arguments.take(name, int) for name in _SIZES}
    if (img_channels := config.pop("img_channels")) != 3:
        raise arguments.error(f"img_channels = {img_channels}", "img_channels = 3")
    rendering = _rendering(arguments, network)
    # What sr_num_fp16_res and sr_kwargs came to is recorded in the blocks.
    arguments.take("sr_num_fp16_res", int, 0)
    arguments.take("sr_kwargs", dict, {})
    config |= _backbone_options(arguments, backbone)
    arguments.check_rest(config["w_dim"])

    if super_resolution.class_name not in _SUPER_RESOLUTIONS:
        expected = f"one of {sorted(_SUPER_RESOLUTIONS)}"
        raise arguments.error(f"the super-resolution {super_resolution.class_name}", expected)
    sr_input_resolution, sr_channels = _SUPER_RESOLUTIONS[super_resolution.class_name]
    planes = _Arguments.of(backbone, _SIZES, source)
    decoder = _Arguments(_child(network, "decoder", source).attributes, "decoder", source)
    own = _Arguments(network.attributes, network.class_name, source)
    return config | {
        "plane_resolution": planes.take("img_resolution", int, 256),
        "plane_channels": planes.take("img_channels", int, 96) // 3,
        "decoder_hidden": decoder.take("hidden_dim", int, 64),
        "neural_rendering_resolution": own.take("neural_rendering_resolution", int, 64),
        "sr_channels": sr_channels,
        "sr_input_resolution": sr_input_resolution,
        "sr_antialias": rendering.take("sr_antialias", bool),
        "sr_conv_clamp": _recorded_clamp(_child(super_resolution, "block1", source), source),
        "c_gen_conditioning_zero": rendering.take("c_gen_conditioning_zero", bool),
        "c_scale": rendering.take("c_scale", (int, float), 0),
        "rendering": {
            "depth_resolution": rendering.take("depth_resolution", int),
            "depth_resolution_importance": rendering.take("depth_resolution_importance", int),
            "ray_start": rendering.take("ray_start", (int, float)),
            "ray_end": rendering.take("ray_end", (int, float)),
            "box_warp": rendering.take("box_warp", (int, float)),
            "white_back": rendering.take("white_back", bool, False),
        },
    }


def _rendering(arguments: _Arguments, network: OfficialModule) -> _Arguments:
    """The rendering options: the network's own if it has them (training changes some), else those
    that it was built with. Options of training alone, such as density_reg, are left alone."""
    options = arguments.take("rendering_kwargs", dict, {})
    recorded = network.attributes.get("rendering_kwargs", options)
    rendering = _Arguments(recorded, network.class_name, arguments.source)
    for name, value in _FIXED_RENDERING.items():
        if rendering.values.get(name, value) != value:
            raise rendering.error(
                f"{name} = {rendering.values[name]!r}", f"{name} = {reprlib.repr(value)}"
            )
    renderer = network.children.get("renderer")
    if renderer is not None and "plane_axes" in renderer.attributes:
        # a plane's rows are unit vectors: horizontal axis, vertical axis, normal
        axes = tensor_value(renderer.attributes["plane_axes"], f"plane_axes in {arguments.source}")
        expected = torch.eye(3)[torch.tensor(PLANE_AXES)]
        if axes.shape != (3, 3, 3) or not torch.equal(axes[:, :2], expected):
            raise rendering.error(
                f"the plane axes {axes.tolist()}",
                "XY, XZ and ZX, as the first releases (other than *-fixed-triplane*)",
            )
    return rendering


def _backbone_options(arguments: _Arguments, network: OfficialModule) -> dict[str, Any]:
    """Options of a mapping and synthesis network, given in dicts or inline."""
    for name in ("mapping_kwargs", "synthesis_kwargs"):
        arguments.values |= arguments.take(name, dict, {})
    options = {
        "mapping_layers": arguments.take("num_layers", int, 8),
        "channel_base": arguments.take("channel_base", int, 32768),
        "channel_max": arguments.take("channel_max", int, 512),
    }
    if "conv_clamp" in arguments.values:
        return options | {"conv_clamp": arguments.take("conv_clamp", (int, float, type(None)))}
    # its default differs between releases, so the layers have to tell
    synthesis = _child(network, "synthesis", arguments.source)
    first_block = _child(synthesis, "b4", arguments.source)
    return options | {"conv_clamp": _recorded_clamp(first_block, arguments.source)}


def _recorded_clamp(block: OfficialModule, source: str) -> float | None:
    layer = _child(block, "conv1", source)
    arguments = _Arguments(layer.attributes | layer.init_kwargs, layer.class_name, source)
    return arguments.take("conv_clamp", (int, float, type(None)))


def _child(module: OfficialModule, name: str, source: str) -> OfficialModule:
    if name not in module.children:
        raise CheckpointError(
            f"the {module.class_name} in {source} has the parts {sorted(module.children)};"
            f" expected {name!r} among them, as in the official networks."
        )
    return module.children[name]


class _Arguments:
    """Recorded values by name: those that matter are taken, the rest may be checked."""

    def __init__(self, values: Any, class_name: str, source: str) -> None:
        self.class_name, self.source = class_name, source
        if not isinstance(values, dict):
            raise self.error(f"{reprlib.repr(values)} as options", "a dict of options")
        self.values: dict[str, Any] = dict(values)

    @classmethod
    def of(cls, module: OfficialModule, order: tuple[str, ...], source: str) -> _Arguments:
        """What the constructor with positional arguments in this `order` was called with."""
        arguments = cls(module.init_kwargs, module.class_name, source)
        if len(module.init_args) > len(order):
            raise arguments.error(f"{len(module.init_args)} positional arguments", f"{len(order)}")
        arguments.values |= dict(zip(order, module.init_args, strict=False))
        return arguments

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        """Removes and returns a value of this kind; `default` if it is not recorded."""
        value = self.values.pop(name, default)
        if value is _REQUIRED:
            raise self.error(f"no recorded {name}", f"no default for {name}")
        # Python counts booleans as integers
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(f"{name} = {reprlib.repr(value)}", f"{name} of another type")
        if isinstance(value, int) and value < 0:
            raise self.error(f"{name} = {value}", f"no negative {name}")
        return value

    def check_rest(self, w_dim: int) -> None:
        """Raises on options that would change the images and that our generators do not have."""
        for name, value in self.values.items():
            if name in _WITHOUT_EFFECT or (name in _W_DIM_WIDE and value in (None, w_dim)):
                continue
            if name not in _FIXED:
                raise self.error(f"{name} = {reprlib.repr(value)}", "no such option")
            if value != _FIXED[name]:
                raise self.error(f"{name} = {reprlib.repr(value)}", f"{name} = {_FIXED[name]!r}")

    def error(self, came: str, expected: str) -> CheckpointError:
        return CheckpointError(
            f"the {self.class_name} in {self.source} has {came}; this kit's generators have"
            f" {expected}. Such a network needs the repository that trained it."
        )
