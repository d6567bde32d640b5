"""A page to paint masks, type a sentence and see the face; needs the extra `studio`.

from dmgi_lib.studio import Studio

Studio(DMGIPipeline.from_pretrained("mini"), mask="mask.png")   # the last line of a cell

`python -m dmgi_lib.studio`, or `make studio`, shows the same as a page of its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    import anywidget as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'the studio needs anywidget: pip install "dmgi-kit[studio]", then restart the kernel.',
        name="anywidget",
    ) from error

if TYPE_CHECKING:
    from dmgi_lib.studio.painter import Painter
    from dmgi_lib.studio.studio import Studio

__all__ = ["Painter", "Studio"]


def __getattr__(name: str) -> Any:
    """On first use, so that the page's server need not wait for PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.lower()}"), name)
