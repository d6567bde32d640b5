"""Tiny generators with random weights, and official checkpoints of them."""

from pathlib import Path

import fake_official
import torch
from fake_official import EasyDict, Persistent, official_module
from tiny_models import rng

from dmgi_lib.generators import StyleGAN2Generator
from dmgi_lib.generators.eg3d import TriPlaneGenerator

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


def randomised(G):
    for tensor in (*G.parameters(), *G.buffers()):
        if tensor.ndim < 2:  # biases, noise strengths, w_avg: all zero or one at first
            tensor.data.normal_(generator=rng(tensor.numel()))
    return G.eval().requires_grad_(False)


def stylegan2(**changes) -> StyleGAN2Generator:
    torch.manual_seed(0)
    return randomised(StyleGAN2Generator(**(SIZES | WIDTHS | {"mapping_layers": 2} | changes)))


def ada(G: StyleGAN2Generator, **synthesis_kwargs) -> Persistent:
    """As stylegan2-ada-pytorch records it."""
    options = EasyDict(**WIDTHS, num_fp16_res=4, conv_clamp=G.config.conv_clamp, **synthesis_kwargs)
    mapping = EasyDict(num_layers=G.config.mapping_layers)
    return official_module(G, **SIZES, mapping_kwargs=mapping, synthesis_kwargs=options)


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


def write(content, folder: Path, name: str = "network.pkl", protocol: int = 4) -> Path:
    return fake_official.write_pickle(content, folder / name, protocol)
