"""Reading x as it is given: files opened, sizes bounded, pictures made square by a named option."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

FITS = ("pad", "crop")
LARGEST = 4096 * 4096  # pixels of a picture: more hardly is a mask, and takes seconds to decode
SMALLEST = 16  # pixels of an edge: less cannot show a face


def opened(source: Any, what: str) -> Any:
    """The picture at a path; anything else as it is.

    Raises:
        FileNotFoundError: nothing there. ValueError: a folder, no picture, or over LARGEST pixels.
    """
    if isinstance(source, Image.Image):
        _check_pixels(source.height, source.width, what)
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        raise ValueError(f"{what} {path} is a folder; expected the path of a PNG.")
    if not path.is_file():
        raise FileNotFoundError(f"{what} file {path} does not exist; give the path of a PNG.")
    try:
        with Image.open(path) as image:
            _check_pixels(image.height, image.width, f"{what} file {path}")
            image.load()
            return image.copy()
    except Image.DecompressionBombError as error:  # Pillow's own bound, far above ours
        raise ValueError(f"{what} file {path} is too large ({error}); shrink it first.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{what} file {path} is not a readable picture ({error}); expected a whole PNG."
        ) from error


def as_array(source: Any, what: str) -> np.ndarray[Any, Any]:
    """A PIL image, array or tensor as a NumPy array; float tensors of any kind become float32."""
    if isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        source = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(source, (np.ndarray, Image.Image)):
        return np.asarray(source)
    raise ValueError(
        f"{what} came as {type(source).__name__}; expected a path, a PIL image, or an array/tensor"
        " (H, W)."
    )


@dataclass(frozen=True)
class Square:
    """The square of a picture (H, W) that is used; it reaches beyond the picture when padded.

    top, left: of the square in the picture, negative when padded      edge: pixels
    """

    height: int
    width: int
    top: int
    left: int
    edge: int

    def nearest(self, array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
        """(H, W, ...) → (size, size, ...) by nearest neighbours, 0 where there is no picture."""
        if size == self.edge == self.height == self.width:
            return array.copy()
        centres = ((np.arange(size) + 0.5) * (self.edge / size)).astype(np.int64)
        rows, columns = centres + self.top, centres + self.left
        sampled: np.ndarray[Any, Any] = array[rows.clip(0, self.height - 1)][
            :, columns.clip(0, self.width - 1)
        ]
        sampled[(rows < 0) | (rows >= self.height)] = 0
        sampled[:, (columns < 0) | (columns >= self.width)] = 0
        return sampled

    def largest(self, array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
        """(H, W) bool → (size, size), True where any pixel of a cell is: thin strokes survive."""
        top, left = max(self.top, 0), max(self.left, 0)
        kept = array[top : top + self.edge, left : left + self.edge]
        before = (max(-self.top, 0), max(-self.left, 0))
        after = [self.edge - n - b for n, b in zip(kept.shape, before, strict=True)]
        kept = np.pad(kept, list(zip(before, after, strict=True)))
        starts = np.arange(size) * self.edge // size
        return np.logical_or.reduceat(np.logical_or.reduceat(kept, starts, 0), starts, 1)


def square_of(shape: tuple[int, ...], what: str, fit: str | None) -> Square:
    """Where the square lies in a picture (H, W) or (H, W, channels).

    Args:
        fit: what happens to a picture that is not square: "pad" adds empty margins, "crop" cuts the
            longer edge on both sides; None refuses it.

    Raises:
        ValueError: no picture, not square without `fit`, smaller than SMALLEST pixels.
    """
    if fit is not None and fit not in FITS:
        raise ValueError(f"fit came as {fit!r}; expected one of {FITS}, or None.")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)) or 0 in shape:
        raise ValueError(
            f"{what} has shape {tuple(shape)}; expected one picture (H, W), or (H, W, 3) in colour."
        )
    height, width = shape[:2]
    _check_pixels(height, width, what)
    if height != width and fit is None:
        raise ValueError(
            f"{what} has shape {tuple(shape)}; expected a square. Pass fit='pad' to add empty"
            " margins, or fit='crop' to cut the longer edge."
        )
    edge = max(height, width) if fit == "pad" else min(height, width)
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"{what} has {width} x {height} pixels; expected {SMALLEST} or more a side, 128 or more"
            " for a face with all its parts."
        )
    return Square(height, width, (height - edge) // 2, (width - edge) // 2, edge)


def _check_pixels(height: int, width: int, what: str) -> None:
    if width * height > LARGEST:
        raise ValueError(
            f"{what} has {width} x {height} pixels; at most {LARGEST:,} are read."
            " Shrink it first: image.resize((1024, 1024), Image.Resampling.NEAREST)."
        )
