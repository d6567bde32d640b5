"""Semantic masks x: the 19 CelebAMask-HQ classes, their palette, validation and conversions.

Class ids follow the order of the CelebAMask-HQ annotation tool (nose = 2, hair = 13). A second
order is in circulation (nose = 10, hair = 17); `load_mask` recognises it by its statistics and
warns. `l_` and `r_` are the person's own left and right, so `l_eye` lies on the right side of the
image.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmgi_lib.devices import moved
from dmgi_lib.pictures import as_array, opened, square_of

Array = np.ndarray[Any, Any]

CLASSES: tuple[str, ...] = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip

PALETTE: Array = np.array([
    (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204),
    (0, 255, 255), (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0),
    (0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51),
    (0, 204, 0),
], dtype=np.uint8)  # (19, 3)  # fmt: skip

# Largest Euclidean RGB distance at which a colour still counts as a palette colour. The two closest
# palette colours (l_lip and hair) are 51 apart, so no colour can be claimed by two classes.
COLOUR_TOLERANCE = 24.0
MOST_COLOURS = 65536  # different ones in a mask; antialiasing and compression make thousands

FEATURES = (2, 3, 4, 5, 6, 7, 10, 11, 12)  # nose, glasses, eyes, brows, mouth, lips

# Lookup from the other circulating order to the order used here.
OTHER_ORDER_TO_CLASSES: Array = np.array(
    [0, 1, 6, 7, 4, 5, 3, 8, 9, 15, 2, 10, 11, 12, 17, 16, 18, 13, 14], dtype=np.uint8
)

_MIRROR = torch.tensor([0, 1, 2, 3, 5, 4, 7, 6, 9, 8, *range(10, 19)], dtype=torch.uint8)
_PALETTE_UNIT = torch.from_numpy(PALETTE).float() / 255.0


def load_mask(mask: Any, size: int | None = 128, fit: str | None = None) -> torch.Tensor:
    """Reads and validates a semantic mask, and warns of one that can hardly be of a face.

    Args:
        mask: path, PIL image (mode P, L or RGB), integer array or tensor (H, W) of class ids, or
            uint8 array (H, W, 3) in palette colours.
        size: edge of the result in pixels (nearest-neighbour resize); None keeps the given size.
        fit: "pad" (with background) or "crop" a mask that is not square; None refuses it.

    Returns:
        uint8 tensor (size, size) of class ids 0..18.

    Raises:
        ValueError: wrong type, shape or dtype, ids outside 0..18, colours off the palette.
        FileNotFoundError: the path does not exist.
    """
    source = opened(mask, "mask")
    pixels = _checked(source)
    square = square_of(pixels.shape, "mask", fit)
    # Shrunk before colours are told, which takes most of the time.
    ids = square.nearest(pixels, square.edge if size is None else size)
    if ids.ndim == 3:
        ids = _nearest_class(ids)
    elif isinstance(source, Image.Image) and source.mode == "P":
        ids = _palette_image_ids(ids, source)
    _check_range(ids)
    ids = ids.astype(np.uint8)
    step = max(1, len(ids) // 256)  # enough to judge by
    _warn_of_implausible(ids[::step, ::step])
    return torch.from_numpy(ids)


def mask_to_rgb(mask: torch.Tensor) -> torch.Tensor:
    """Palette colours of class ids: the picture that ControlNet reads.

    Args:
        mask: (B, H, W) integer class ids 0..18.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    return moved(_PALETTE_UNIT, mask.device)[mask.long()].permute(0, 3, 1, 2).contiguous()


def rgb_to_mask(picture: torch.Tensor) -> torch.Tensor:
    """What `mask_to_rgb` made, (B, 3, H, W) in [0, 1] → (B, H, W) uint8 class ids."""
    palette = moved(_PALETTE_UNIT, picture.device)
    distance = (picture[:, None] - palette[:, :, None, None]).abs().sum(2)  # [B, 19, H, W]
    return distance.argmin(1).to(torch.uint8)


def scribble_to_rgb(scribble: torch.Tensor) -> torch.Tensor:
    """(B, H, W) with values 0..255 → (B, 3, H, W) float in [0, 1]."""
    return (scribble.float() / 255.0).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()


def flip_mask(mask: torch.Tensor) -> torch.Tensor:
    """Mirrors a mask: left and right change sides, and the l_ and r_ classes change names.

    Args:
        mask: (..., H, W) integer class ids. Returns the same shape and dtype.
    """
    return moved(_MIRROR, mask.device)[mask.flip(-1).long()].to(mask.dtype)


# Of each kind of x: the pictures that ControlNet reads, and its mirror image.
PICTURES = {"mask": mask_to_rgb, "scribble": scribble_to_rgb}
MIRRORS = {"mask": flip_mask, "scribble": lambda scribble: scribble.flip(-1)}


def as_uint8(kind: str, x: torch.Tensor) -> torch.Tensor:
    """x (B, H, W), a mask or a scribble, as pictures to look at: (B, 3, H, W) uint8."""
    return (255 * PICTURES[kind](x)).round().byte()


def mask_to_image(mask: torch.Tensor) -> Image.Image:
    """(H, W) class ids → PIL palette image ("P") in CelebAMask-HQ colours, as stored on disk."""
    ids = mask.to(torch.uint8).cpu().numpy()
    image = Image.frombytes("P", (ids.shape[1], ids.shape[0]), ids.tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


def looks_like_other_order(ids: Array) -> bool:
    """True if the mask makes anatomical sense in the other circulating order and not in this one.

    Args:
        ids: (H, W) class ids 0..18.
    """
    here = _implausibilities(ids)
    return here >= 2 and _implausibilities(OTHER_ORDER_TO_CLASSES[ids]) <= here - 2


def _implausibilities(ids: Array) -> int:
    """Number of anatomical rules that a mask breaks. Our choice of rules and thresholds."""
    rows = np.arange(ids.shape[0], dtype=np.float64)[:, None] / ids.shape[0]
    area = {name: float((ids == i).mean()) for i, name in enumerate(CLASSES)}
    height = {
        name: float((rows * (ids == i)).sum() / (ids == i).sum()) if area[name] > 0 else None
        for i, name in enumerate(CLASSES)
    }  # 0 = top of the picture, 1 = bottom

    def below(upper: str, lower: str) -> bool:
        u, lo = height[upper], height[lower]
        return u is not None and lo is not None and u > lo

    order = (
        *(("l_brow", "nose"), ("r_brow", "nose"), ("l_eye", "nose"), ("r_eye", "nose")),
        *(("nose", "u_lip"), ("nose", "mouth"), ("u_lip", "l_lip"), ("eye_g", "mouth")),
        *(("hat", "skin"), ("skin", "neck"), ("skin", "cloth"), ("hair", "neck")),
    )
    largest = {"nose": 0.08, "mouth": 0.06, "ear_r": 0.03, "neck_l": 0.04, "l_lip": 0.04}
    largest |= {"u_lip": 0.04, "l_eye": 0.03, "r_eye": 0.03, "l_brow": 0.03, "r_brow": 0.03}
    return sum(below(*pair) for pair in order) + sum(area[k] > v for k, v in largest.items())


def _warn_of_implausible(ids: Array) -> None:
    found = {int(i) for i in np.flatnonzero(np.bincount(ids.ravel()))}
    changes = np.mean([(ids[1:] != ids[:-1]).mean(), (ids[:, 1:] != ids[:, :-1]).mean()])
    if looks_like_other_order(ids):
        what = (
            "as if its ids were in the other CelebAMask-HQ order (nose = 10, hair = 17): class"
            " positions and areas are implausible in the expected order (nose = 2, hair = 13). If"
            " so, convert it: mask = dmgi_lib.masks.OTHER_ORDER_TO_CLASSES[mask]"
        )
    elif changes > 0.25:  # at most .09 in the face world
        what = f"like noise: {changes:.0%} of neighbouring pixels differ in class"
    elif 1 not in found or not found & set(FEATURES):
        names = [CLASSES[i] for i in sorted(found)]
        what = f"unlike a face: it holds {names}; expected skin, and eyes, nose or mouth"
    elif _implausibilities(ids) >= 3:
        what = "unlike a face: its parts lie in implausible places, or are too large"
    else:
        return
    warnings.warn(f"mask looks {what}.", stacklevel=3)


def _checked(source: Any) -> Array:
    """(H, W) integers or (H, W, 3) uint8 of any accepted kind of mask."""
    if isinstance(source, Image.Image) and source.mode not in ("L", "P", "RGB"):
        raise ValueError(
            f"mask image has mode {source.mode!r}; expected 'P' or 'L' (class ids) or 'RGB'"
            " (palette colours). Convert it: image.convert('RGB')."
        )
    pixels = as_array(source, "mask")
    if pixels.dtype.kind not in "iu":
        came = source.dtype if isinstance(source, torch.Tensor) else pixels.dtype
        raise ValueError(
            f"mask has dtype {came}; expected integer class ids 0..18. If the ids are whole"
            " numbers, convert them: mask.astype('uint8'), or mask.to(torch.uint8) for a tensor."
        )
    if pixels.ndim == 3 and (pixels.shape[-1] != 3 or pixels.dtype != np.uint8):
        raise ValueError(
            f"mask has shape {pixels.shape} and dtype {pixels.dtype}; expected (H, W) class ids, or"
            " (H, W, 3) uint8 palette colours, one mask at a time."
        )
    if pixels.ndim == 2 and pixels.size and not isinstance(source, Image.Image):
        _check_range(pixels)
    return pixels


def _check_range(ids: Array) -> None:
    if ids.min() < 0 or ids.max() >= len(CLASSES):
        bad = np.unique(ids[(ids < 0) | (ids >= len(CLASSES))][:100_000])
        raise ValueError(
            f"mask holds label ids {bad[:8].tolist()}; expected class ids 0..{len(CLASSES) - 1} in"
            " CelebAMask-HQ order (dmgi_lib.masks.CLASSES). Map unknown or 'ignore' labels to 0"
            " (background) first."
        )


def _palette_image_ids(ids: Array, image: Image.Image) -> Array:
    """Ids of a "P" image: its indices if its palette is ours or grey, else its colours."""
    colours = np.zeros((256, 3), np.uint8)
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    colours[: len(palette)] = palette
    used = np.flatnonzero(np.bincount(ids.ravel()))
    grey = np.repeat(used[:, None], 3, axis=1)
    if not len(palette) or np.array_equal(colours[used], grey) or used.max() >= len(CLASSES):
        return ids
    if np.array_equal(colours[used], PALETTE[used]):
        return ids
    return _nearest_class(colours[ids])


def _nearest_class(rgb: Array) -> Array:
    """(H, W, 3) uint8 palette colours → (H, W) ids; a colour off the palette is an error."""
    four = np.zeros((*rgb.shape[:2], 4), np.uint8)
    four[..., :3] = rgb
    packed = four.view("<u4")[..., 0]  # a number a colour, looked up below
    seen = np.zeros(1 << 24, bool)
    seen[packed] = True
    numbers = np.flatnonzero(seen)
    if len(numbers) > MOST_COLOURS:
        raise ValueError(
            f"mask holds {len(numbers)} colours; expected the 19 of dmgi_lib.masks.PALETTE. This"
            " looks like a photograph: pass its parsing instead."
        )
    colours = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=1)
    distance = np.linalg.norm(colours[:, None].astype(float) - PALETTE[None].astype(float), axis=-1)
    nearest = distance.argmin(axis=1)
    worst = int(distance.min(axis=1).argmax())
    if distance[worst].min() > COLOUR_TOLERANCE:
        colour = tuple(int(v) for v in colours[worst])
        close = CLASSES[int(nearest[worst])]
        raise ValueError(
            f"mask holds the colour {colour}, {distance[worst].min():.0f} away from the nearest"
            f" palette colour ({close} {tuple(int(v) for v in PALETTE[nearest[worst]])}); at most"
            f" {COLOUR_TOLERANCE:.0f} is accepted. Use the colours of dmgi_lib.masks.PALETTE, save"
            " as PNG and resize with nearest-neighbour sampling, or pass class ids."
        )
    table = np.zeros(1 << 24, np.uint8)
    table[numbers] = nearest
    ids: Array = table[packed]
    return ids
