"""Small networks for photographs, in the formats of the published ones."""

from pathlib import Path

import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from dmgi_lib.masks import CLASSES


def save_parser(folder: Path, labels: tuple[str, ...] = CLASSES) -> Path:
    """A SegFormer with random weights; returns its folder."""
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
        patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=16, id2label=dict(enumerate(labels)),
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder
