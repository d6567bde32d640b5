"""Writes checkpoints in the layout of the official .pkl releases, from this kit's generators.

The modules that such a pickle names (dnnlib, torch_utils, training) are stand-ins that exist only
while pickling. Every network becomes a torch.nn.Module that reduces to a call of
`torch_utils.persistence._reconstruct_persistent_obj`, as in the releases.
"""

import contextlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmgi_lib.generators.eg3d import TriPlaneBackbone, TriPlaneGenerator
from dmgi_lib.generators.eg3d.planes import TriPlaneDecoder
from dmgi_lib.generators.eg3d.super_resolution import SameSizeBlock, SuperResolution
from dmgi_lib.generators.stylegan2 import (
    StyleGAN2Generator,
    StyleMapping,
    SynthesisBlock,
    SynthesisNetwork,
)
from dmgi_lib.generators.stylegan2_layers import FullyConnectedLayer, SynthesisLayer, ToRGBLayer

PERSISTENT = {
    StyleGAN2Generator: "Generator",
    TriPlaneGenerator: "TriPlaneGenerator",
    TriPlaneBackbone: "Generator",
    StyleMapping: "MappingNetwork",
    SynthesisNetwork: "SynthesisNetwork",
    SynthesisBlock: "SynthesisBlock",
    SameSizeBlock: "SynthesisBlockNoUp",
    SynthesisLayer: "SynthesisLayer",
    ToRGBLayer: "ToRGBLayer",
    FullyConnectedLayer: "FullyConnectedLayer",
}
SUPER_RESOLUTIONS = {
    (64, 128): "SuperresolutionHybrid2X",
    (128, 128): "SuperresolutionHybrid4X",
    (128, 256): "SuperresolutionHybrid8XDC",
}
PLANE_AXES = [
    [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
    [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
]


class EasyDict(dict):
    __module__ = "dnnlib.util"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the official reader's function was called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent(torch.nn.Module):
    """A network or layer that is saved with its source text and constructor arguments."""

    meta_type: type = EasyDict
    module_src = "raise AssertionError('recorded source was run')\n"

    def __init__(self, class_name: str, *args, **kwargs) -> None:
        super().__init__()
        self._class_name = class_name
        self._init_args, self._init_kwargs = args, kwargs

    def __reduce__(self):
        state = dict(self.__dict__)
        meta = self.meta_type(
            type="class",
            version=6,
            module_src=self.module_src,
            class_name=state.pop("_class_name"),
            state=state,
        )
        return _reconstruct_persistent_obj, (meta,)


def _stand_in(module: str, name: str) -> type:
    return type(name, (torch.nn.Module,), {"__module__": module})


PLAIN = {
    name: _stand_in(module, name)
    for module, names in {
        "training.triplane": ["OSGDecoder"],
        "training.superresolution": [*SUPER_RESOLUTIONS.values()],
        "training.volumetric_rendering.renderer": ["ImportanceRenderer"],
        "training.volumetric_rendering.ray_marcher": ["MipRayMarcher2"],
        "training.volumetric_rendering.ray_sampler": ["RaySampler"],
    }.items()
    for name in names
}


@contextlib.contextmanager
def official_names():
    """The stand-ins can be pickled under their official names inside of this context."""
    added: dict[str, types.ModuleType] = {}
    for item in (EasyDict, _reconstruct_persistent_obj, *PLAIN.values()):
        parts = item.__module__.split(".")
        for i in range(len(parts)):
            name = ".".join(parts[: i + 1])
            added.setdefault(name, types.ModuleType(name))
        setattr(added[item.__module__], item.__name__, item)
    assert not added.keys() & sys.modules.keys()
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def official_module(ours: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """The official counterpart of one of our modules, with the same tensors; recursive.

    args, kwargs: what the outermost constructor was called with
    """
    official: torch.nn.Module
    if type(ours) in PERSISTENT:
        if isinstance(ours, (SynthesisLayer, ToRGBLayer)):
            kwargs = {"conv_clamp": ours.conv_clamp}
        official = Persistent(PERSISTENT[type(ours)], *args, **kwargs)
        official.act_gain = np.sqrt(2)  # the releases keep gains as numpy numbers
    elif isinstance(ours, TriPlaneDecoder):
        official = PLAIN["OSGDecoder"]()
        official.hidden_dim = len(ours.net[0].weight)
    elif isinstance(ours, SuperResolution):
        key = (ours.input_resolution, len(ours.block0.conv1.weight))
        official = PLAIN[SUPER_RESOLUTIONS[key]]()
    else:
        official = type(ours)()  # Sequential, Softplus
    for name, parameter in ours.named_parameters(recurse=False):
        official.register_parameter(name, torch.nn.Parameter(parameter.clone(), False))
    for name, buffer in ours.named_buffers(recurse=False):
        official.register_buffer(name, buffer.clone())
    for name, child in ours.named_children():
        inner = {}
        if isinstance(child, TriPlaneBackbone):
            sizes = {"img_resolution": child.synthesis.resolutions[-1], "img_channels": 96}
            inner = sizes | {"mapping_kwargs": EasyDict()}
        official.add_module(name, official_module(child, **inner))
    return official.eval()


def official_eg3d(
    ours: TriPlaneGenerator, rendering_kwargs: dict, **kwargs: Any
) -> torch.nn.Module:
    """TriPlaneGenerator with the parts that hold no tensors; kwargs: as its constructor's."""
    sizes = {k: getattr(ours.config, k) for k in ("z_dim", "c_dim", "w_dim", "img_resolution")}
    options = {"img_channels": 3, "rendering_kwargs": rendering_kwargs}
    official = official_module(ours, **sizes, **options, **kwargs)
    official.renderer = PLAIN["ImportanceRenderer"]()
    official.renderer.ray_marcher = PLAIN["MipRayMarcher2"]()
    official.renderer.plane_axes = torch.tensor(PLANE_AXES)
    official.ray_sampler = PLAIN["RaySampler"]()
    official.ray_sampler.ray_origins_h = None
    official._last_planes = None
    official.rendering_kwargs = rendering_kwargs
    official.neural_rendering_resolution = ours.neural_rendering_resolution
    return official


def snapshot(G_ema: Any) -> dict[str, Any]:
    """What training writes: all networks; G differs from G_ema in every parameter."""
    D = Persistent("Discriminator", c_dim=0, img_resolution=16, epilogue_kwargs=EasyDict())
    D.register_buffer("resample_filter", torch.ones(4, 4))
    augment = Persistent("AugmentPipe", xflip=1, rotate90=1)
    augment.register_buffer("p", torch.ones([]))
    G = Persistent("Generator", *G_ema._init_args, **G_ema._init_kwargs)
    G.register_parameter("other", torch.nn.Parameter(torch.zeros(3)))
    return {
        "training_set_kwargs": EasyDict(class_name="training.dataset.ImageFolderDataset", xflip=1),
        "G": G,
        "D": D,
        "augment_pipe": augment,
        "G_ema": G_ema,
    }


def write_pickle(content: Any, path: Path, protocol: int = 4) -> Path:
    with official_names(), path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path
