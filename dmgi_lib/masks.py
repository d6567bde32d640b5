"""Semantic masks x: the 19 CelebAMask-HQ classes, their palette, validation and conversions.

Class ids follow the order of the CelebAMask-HQ annotation tool (nose = 2, hair = 13). A second
order is in circulation (nose = 10, hair = 17); `load_mask` recognises it by its statistics and
warns. `l_` and `r_` are the person's own left and right, so `l_eye` lies on the right side of the
image.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

CLASSES: tuple[str, ...] = (
    "background",
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)

PALETTE: np.ndarray = np.array(
    [
        (0, 0, 0),
        (204, 0, 0),
        (76, 153, 0),
        (204, 204, 0),
        (51, 51, 255),
        (204, 0, 204),
        (0, 255, 255),
        (255, 204, 204),
        (102, 51, 0),
        (255, 0, 0),
        (102, 204, 0),
        (255, 255, 0),
        (0, 0, 153),
        (0, 0, 204),
        (255, 51, 153),
        (0, 204, 204),
        (0, 51, 0),
        (255, 153, 51),
        (0, 204, 0),
    ],
    dtype=np.uint8,
)  # (19, 3)

# Largest Euclidean RGB distance at which a colour still counts as a palette colour. The two closest
# palette colours (l_lip and hair) are 51 apart, so no colour can be claimed by two classes.
COLOUR_TOLERANCE = 24.0

# Lookup from the other circulating order to the order used here.
OTHER_ORDER_TO_CLASSES: np.ndarray = np.array(
    [0, 1, 6, 7, 4, 5, 3, 8, 9, 15, 2, 10, 11, 12, 17, 16, 18, 13, 14], dtype=np.uint8
)

_MIRROR = torch.tensor([0, 1, 2, 3, 5, 4, 7, 6, 9, 8, *range(10, 19)], dtype=torch.uint8)
_PALETTE_UNIT = torch.from_numpy(PALETTE).float() / 255.0


def load_mask(mask: Any, size: int | None = 128) -> torch.Tensor:
    """Reads and validates a semantic mask.

    Args:
        mask: path, PIL image (mode P, L or RGB), integer array or tensor (H, W) of class ids, or
            uint8 array (H, W, 3) in palette colours. Must be square.
        size: edge of the result in pixels (nearest-neighbour resize); None keeps the given size.

    Returns:
        uint8 tensor (size, size) of class ids 0..18.

    Raises:
        ValueError: wrong type, shape or dtype, ids outside 0..18, colours off the palette.
        FileNotFoundError: the path does not exist.
    """
    ids = _class_ids(_opened(mask, "mask"))
    _require_square(ids, "mask")
    top = int(ids.max())
    if top >= len(CLASSES) or int(ids.min()) < 0:
        bad = sorted({int(i) for i in np.unique(ids) if not 0 <= i < len(CLASSES)})
        raise ValueError(
            f"mask holds label ids {bad[:8]}; expected class ids 0..{len(CLASSES) - 1} in"
            " CelebAMask-HQ order (dmgi_lib.masks.CLASSES). Map unknown or 'ignore' labels to 0"
            " (background) first."
        )
    ids = ids.astype(np.uint8)
    if size is not None and ids.shape != (size, size):
        ids = np.asarray(Image.fromarray(ids).resize((size, size), Image.Resampling.NEAREST))
    if looks_like_other_order(ids):
        warnings.warn(
            "mask looks as if its ids were in the other CelebAMask-HQ order (nose = 10, hair ="
            " 17): class positions and areas are implausible in the expected order (nose = 2, hair"
            " = 13). If so, convert it: mask = dmgi_lib.masks.OTHER_ORDER_TO_CLASSES[mask].",
            stacklevel=2,
        )
    return torch.from_numpy(ids.copy())


def load_scribble(scribble: Any, size: int | None = 128) -> torch.Tensor:
    """Reads and validates a scribble: white strokes on black.

    Args:
        scribble: path, PIL image, or square array/tensor (H, W), bool or integer 0..255.
        size: edge of the result in pixels; None keeps the given size.

    Returns:
        uint8 tensor (size, size), 0 or 255.

    Raises:
        ValueError: wrong type, shape, dtype or values. FileNotFoundError: the path does not exist.
    """
    source = _opened(scribble, "scribble")
    if isinstance(source, Image.Image):
        strokes = np.asarray(source.convert("L"))
    else:
        strokes = _array(source)
        if strokes.dtype == bool:
            strokes = strokes.astype(np.uint8) * 255
        if strokes.ndim != 2 or strokes.dtype.kind not in "iu":
            raise ValueError(
                f"scribble came as {strokes.dtype} array of shape {strokes.shape}; expected a bool"
                " or integer array (H, W), white (255) strokes on black (0)."
            )
        if strokes.size and (strokes.min() < 0 or strokes.max() > 255):
            raise ValueError(
                f"scribble values run from {strokes.min()} to {strokes.max()}; expected 0..255."
            )
        if strokes.size and strokes.max() == 1:
            strokes = strokes * 255
    _require_square(strokes, "scribble")
    strokes = strokes.astype(np.uint8)
    if size is not None and strokes.shape != (size, size):
        strokes = np.asarray(Image.fromarray(strokes).resize((size, size), Image.Resampling.BOX))
        strokes = np.where(strokes > 63, 255, 0)  # a thin stroke must survive being shrunk
    return torch.from_numpy(np.where(strokes > 63, 255, 0).astype(np.uint8))


def mask_to_rgb(mask: torch.Tensor) -> torch.Tensor:
    """Palette colours of class ids: the picture that ControlNet reads.

    Args:
        mask: (B, H, W) integer class ids 0..18.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    return _PALETTE_UNIT.to(mask.device)[mask.long()].permute(0, 3, 1, 2).contiguous()


def scribble_to_rgb(scribble: torch.Tensor) -> torch.Tensor:
    """(B, H, W) with values 0..255 → (B, 3, H, W) float in [0, 1]."""
    return (scribble.float() / 255.0).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()


def flip_mask(mask: torch.Tensor) -> torch.Tensor:
    """Mirrors a mask: left and right change sides, and the l_ and r_ classes change names.

    Args:
        mask: (..., H, W) integer class ids. Returns the same shape and dtype.
    """
    return _MIRROR.to(mask.device)[mask.flip(-1).long()].to(mask.dtype)


def mask_to_image(mask: torch.Tensor) -> Image.Image:
    """(H, W) class ids → PIL palette image ("P") in CelebAMask-HQ colours, as stored on disk."""
    ids = mask.to(torch.uint8).cpu().numpy()
    image = Image.frombytes("P", (ids.shape[1], ids.shape[0]), ids.tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


def looks_like_other_order(ids: np.ndarray) -> bool:
    """True if the mask makes anatomical sense in the other circulating order and not in this one.

    Args:
        ids: (H, W) class ids 0..18.
    """
    here = _implausibilities(ids)
    return here >= 2 and _implausibilities(OTHER_ORDER_TO_CLASSES[ids]) <= here - 2


def _implausibilities(ids: np.ndarray) -> int:
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
        ("l_brow", "nose"),
        ("r_brow", "nose"),
        ("l_eye", "nose"),
        ("r_eye", "nose"),
        ("nose", "u_lip"),
        ("nose", "mouth"),
        ("u_lip", "l_lip"),
        ("hat", "skin"),
        ("skin", "neck"),
        ("skin", "cloth"),
        ("hair", "neck"),
        ("eye_g", "mouth"),
    )
    largest = {"nose": 0.08, "mouth": 0.06, "ear_r": 0.03, "neck_l": 0.04, "l_lip": 0.04}
    largest |= {"u_lip": 0.04, "l_eye": 0.03, "r_eye": 0.03, "l_brow": 0.03, "r_brow": 0.03}
    return sum(below(*pair) for pair in order) + sum(area[k] > v for k, v in largest.items())


def _opened(source: Any, what: str) -> Any:
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{what} file {path} does not exist; give the path of a PNG.")
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(
            f"{what} file {path} is not a readable picture ({error}); expected a whole PNG."
        ) from error


def _array(source: Any) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        return source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return source
    raise ValueError(
        f"came as {type(source).__name__}; expected a path, a PIL image, or an array/tensor (H, W)."
    )


def _require_square(ids: np.ndarray, what: str) -> None:
    if ids.ndim != 2 or ids.shape[0] != ids.shape[1] or ids.size == 0:
        raise ValueError(
            f"{what} has shape {tuple(ids.shape)}; expected a square (H, W) with H = W > 0."
            " Crop or pad it to a square, one sample at a time."
        )


def _class_ids(source: Any) -> np.ndarray:
    """(H, W) integer ids, unchecked for range, of any accepted kind of input."""
    if isinstance(source, Image.Image):
        if source.mode == "L":
            return np.asarray(source)
        if source.mode == "P":
            return _palette_image_ids(source)
        if source.mode == "RGB":
            return _nearest_class(np.asarray(source))
        raise ValueError(
            f"mask image has mode {source.mode!r}; expected 'P' or 'L' (class ids) or 'RGB'"
            " (palette colours). Convert it: image.convert('RGB')."
        )
    ids = _array(source)
    if ids.ndim == 3 and ids.shape[-1] == 3 and ids.dtype == np.uint8:
        return _nearest_class(ids)
    if ids.dtype.kind not in "iu":
        raise ValueError(
            f"mask has dtype {ids.dtype}; expected integer class ids 0..18. If the ids are whole"
            " numbers, convert them: mask.astype('uint8')."
        )
    return ids


def _palette_image_ids(image: Image.Image) -> np.ndarray:
    """Ids of a "P" image: its indices if its palette is ours or grey, else its colours."""
    ids = np.asarray(image)
    palette = np.array(image.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3)
    used = np.unique(ids)
    colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    first = np.array([colours[np.flatnonzero(ids.ravel() == i)[0]] for i in used], dtype=np.int64)
    grey = np.repeat(used[:, None], 3, axis=1)
    if len(palette) == 0 or np.array_equal(first, grey) or used.max() >= len(CLASSES):
        return ids
    if np.array_equal(first, PALETTE[used].astype(np.int64)):
        return ids
    return _nearest_class(np.asarray(image.convert("RGB")))


def _nearest_class(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 palette colours → (H, W) ids; a colour off the palette is an error."""
    colours, inverse = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
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
    return nearest[inverse].reshape(rgb.shape[:2]).astype(np.uint8)
