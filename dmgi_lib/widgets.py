"""Interactive views for notebooks; without ipywidgets they are None, and the core never needs them.

A notebook that shows one shows the same as a static figure next, for readers without a kernel.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dmgi_lib.display import Picture, as_array, overlay
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.generators.eg3d.views import OUTPUTS, as_3d, one_code


def attention_panel(
    picture: Picture,
    features: DiffusionFeatures,
    tokens: list[int],
    block: int,
    head: int | None,
    sample: int = 0,
) -> bytes:
    """PNG of one attention map, alone and over a picture.

    Args:
        picture: what to lay the map over.
        features: of one step.
        tokens: positions in the prompt, averaged.
        block: 0 … N-1, deepest first.
        head: 0 … heads-1; None averages them.
    """
    from matplotlib.figure import Figure

    maps = features.a[block][sample][..., tokens].mean(-1)  # [heads, Q]
    edge = int(maps.shape[-1] ** 0.5)
    weight = (maps.mean(0) if head is None else maps[head]).view(edge, edge).float().cpu().numpy()
    figure = Figure(figsize=(5.4, 2.8), layout="constrained")
    plain, overlaid = figure.subplots(1, 2)
    shown = plain.imshow(weight, cmap="magma", vmin=0)
    figure.colorbar(shown, ax=plain, fraction=0.046).ax.tick_params(labelsize=7)
    overlay(overlaid, as_array(picture), weight)
    for axis in (plain, overlaid):
        axis.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    return drawn.getvalue()


def attention_explorer(
    pictures: Mapping[int, Picture],
    features: Mapping[int, DiffusionFeatures],
    words: list[tuple[str, list[int]]],
    sample: int = 0,
) -> Any:
    """Sliders over word, step, block and head of the cross-attention maps.

    Args:
        pictures: step → what its maps are laid over.
        features: step → features, the same steps.
        words: `Tokens.words[i]` of the prompt.

    Returns:
        A widget to display; None if ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ModuleNotFoundError:
        return None

    blocks = len(next(iter(features.values())).a)
    heads = min(block.shape[1] for block in next(iter(features.values())).a)
    positions = dict(reversed(words))  # the first of several equal words
    word = ipywidgets.Dropdown(options=list(dict(words)), description="word")
    step = ipywidgets.SelectionSlider(options=sorted(features), description="step")
    block = ipywidgets.IntSlider(min=1, max=blocks, value=blocks, description="block")
    head = ipywidgets.SelectionSlider(
        options=["mean", *range(1, heads + 1)], value="mean", description="head"
    )

    def draw() -> bytes:
        chosen = None if head.value == "mean" else int(head.value) - 1
        return attention_panel(
            pictures[step.value],
            features[step.value],
            positions[word.value],
            block.value - 1,
            chosen,
            sample,
        )

    return _drawn([word, step, block, head], draw, "word, step, block and head")


def head_turner(pipe: Any, latents: torch.Tensor) -> Any:
    """Sliders over yaw, pitch and roll of one head, and a choice of picture, depth or normals.

    The sliders end where the generator's `pose_range` does, or at 45 and 20 degrees.

    Args:
        pipe: with a 3D generator.
        latents: (num_ws, w_dim) or (1, num_ws, w_dim), one code.

    Returns:
        A widget to display; None if ipywidgets is not installed.

    Raises:
        ValueError: a generator of pictures, several codes, or codes of another generator.
    """
    G = as_3d(pipe.generator)
    code = one_code(G, latents)
    try:
        import ipywidgets
    except ModuleNotFoundError:
        return None

    known = G.config.get("pose_range") or {}
    ranges = {"yaw": (-45, 45), "pitch": (-20, 20), "roll": (-30, 30)}
    sliders = {}
    for name, usual in ranges.items():
        low, high = (int(end) for end in known.get(name, usual))
        sliders[name] = ipywidgets.IntSlider(min=low, max=high, value=0, description=name)
    output = ipywidgets.Dropdown(options=OUTPUTS, description="show")

    def draw() -> bytes:
        angles = {name: float(slider.value) for name, slider in sliders.items()}
        (picture,) = pipe.render(code, **angles, output=output.value)
        drawn = io.BytesIO()
        picture.save(drawn, format="PNG")
        return drawn.getvalue()

    return _drawn([*sliders.values(), output], draw, "yaw, pitch and roll", width=256, height=256)


def _drawn(controls: list[Any], draw: Callable[[], bytes], over: str, **size: int) -> Any:
    """Controls, and the PNG that is drawn anew with each of their values."""
    import ipywidgets

    class Box(ipywidgets.VBox):
        """Says what it is where no kernel can draw it."""

        def __repr__(self) -> str:
            return f"sliders over {over} (shown while the notebook runs)"

    view = ipywidgets.Image(format="png", value=draw(), **size)
    for control in controls:
        control.observe(lambda change: setattr(view, "value", draw()), "value")
    return Box([*controls, view])
