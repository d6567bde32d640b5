"""What a tab of the page opens."""

from __future__ import annotations

import warnings

import ipywidgets

from dmgi_lib.devices import pick_device
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.studio.people import shipped_masks
from dmgi_lib.studio.studio import Studio


def studio(weights: str = "mini", device: str = "auto") -> ipywidgets.Widget:
    """The studio with a model and the shipped test people, or a word why there is none.

    Args:
        weights: preset, or folder of weights.
        device: as `pick_device` takes it.
    """
    warnings.simplefilter("ignore")  # of libraries; the studio shows the pipeline's own
    try:
        place = pick_device(device)
        pipe, people = DMGIPipeline.from_pretrained(weights).to(place), shipped_masks()
    except (OSError, ValueError) as error:
        return ipywidgets.Label(f"The studio can't open: {error}")
    pipe.set_progress_bar_config(disable=True)
    return Studio(pipe, mask=next(iter(people.values())), examples=people)
