"""Small settings of all frozen networks: seconds instead of hours."""

from dataclasses import replace

from data_prep.priors.latent_prior import PriorFit
from data_prep.priors.trainer import NETWORKS


def brief_fit(steps: int) -> PriorFit:
    return PriorFit(
        flow_steps=steps, flow_batch=128, width=64, integration=8, pairs=1024,
        distill_steps=steps, energy_steps=steps, batch_size=128,
    )  # fmt: skip


TOWER = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
SIZES = {
    "stylegan2": {
        "generator": {
            "z_dim": 8, "w_dim": 8, "img_resolution": 128, "mapping_layers": 2,
            "channel_base": 256, "channel_max": 8,
        },
        "batch_size": 8, "warmup_images": 16, "growth": (), "prior_images": 16,
        "prior": brief_fit(2),
    },
    "eg3d": {
        "generator": {
            "z_dim": 8, "w_dim": 8, "img_resolution": 128, "mapping_layers": 2,
            "channel_base": 256, "channel_max": 8, "plane_resolution": 16, "plane_channels": 4,
            "decoder_hidden": 8, "feature_channels": 4, "neural_rendering_resolution": 64,
            "sr_channels": (4, 4), "third_plane": "yz", "backdrop_resolution": 8,
            "rendering": {"depth_resolution": 4, "depth_resolution_importance": 4},
        },
        "batch_size": 8, "growth": ((16, 0.5),), "prior_images": 16, "prior": brief_fit(2),
        "held_out": 1, "blur_images": 24, "ramp_images": 8,
    },
    "text_image": {
        "text": TOWER | {"num_hidden_layers": 2},
        "vision": TOWER | {"num_hidden_layers": 1, "image_size": 128, "patch_size": 32},
        "projection_dim": 16,
    },
    "autoencoder": {
        "architecture": {
            "in_channels": 12, "out_channels": 12,
            "block_out_channels": (8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2,
            "mid_block_add_attention": False, "latent_channels": 4, "sample_size": 128,
        },
    },
    "unet": {
        "architecture": {
            "sample_size": 16, "block_out_channels": (16, 16, 16), "layers_per_block": 1,
            "attention_head_dim": (2, 2, 2), "norm_num_groups": 4,
        },
    },
    "controlnet": {"embedding_channels": (4, 4, 4, 8)},
    "style_offsets": {"rank": 2, "inversion_steps": 2, "held_out": 2},
    "mask_encoder": {"channels": (4, 4, 8, 8, 8), "width": 16, "held_out": 3},
}  # fmt: skip
SMALL = {
    name: replace(defaults, **{"batch_size": 4} | SIZES.get(name, {}))
    for name, (_, defaults) in NETWORKS.items()
}
