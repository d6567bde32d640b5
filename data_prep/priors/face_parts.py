"""Where the small parts are that make a face and cover few of its pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.masks import CLASSES

FEATURES = ("eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
EYES = ("l_eye", "r_eye")


def region(masks: Tensor, names: tuple[str, ...], margin: int = 2) -> Tensor:
    """(B, H, W) class ids -> (B, 1, H, W) float, 1 within `margin` pixels of the named classes."""
    inside = torch.stack([masks == CLASSES.index(name) for name in names]).any(0).float()[:, None]
    return F.max_pool2d(inside, 2 * margin + 1, stride=1, padding=margin)
