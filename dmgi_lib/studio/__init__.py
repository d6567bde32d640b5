"""A page to paint masks, type a sentence and see the face; needs the extra `studio`.

from dmgi_lib.studio import Studio

Studio(DMGIPipeline.from_pretrained("mini"), mask="mask.png")   # the last line of a cell
"""

try:
    import anywidget as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'the studio needs anywidget: pip install "dmgi-kit[studio]", then restart the kernel.',
        name="anywidget",
    ) from error

from dmgi_lib.studio.painter import Painter
from dmgi_lib.studio.studio import Studio

__all__ = ["Painter", "Studio"]
