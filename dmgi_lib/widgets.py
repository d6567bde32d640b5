"""Interactive views for notebooks; without ipywidgets they are None, and the core never needs them.

A notebook that shows one shows the same as a static figure next, for readers without a kernel.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch

from dmgi_lib.display import Picture, as_array
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
    base = as_array(picture)
    figure = Figure(figsize=(5.4, 2.8), layout="constrained")
    plain, overlaid = figure.subplots(1, 2)
    shown = plain.imshow(weight, cmap="magma", vmin=0)
    figure.colorbar(shown, ax=plain, fraction=0.046).ax.tick_params(labelsize=7)
    overlaid.imshow(base.mean(-1), cmap="gray")
    extent = (0, base.shape[1], base.shape[0], 0)
    overlaid.imshow(weight, cmap="magma", alpha=0.6, interpolation="bicubic", extent=extent)
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

    class Explorer(ipywidgets.VBox):
        """Says what it is where no kernel can draw it."""

        def __repr__(self) -> str:
            return "sliders over word, step, block and head (shown while the notebook runs)"

    blocks = len(next(iter(features.values())).a)
    heads = min(block.shape[1] for block in next(iter(features.values())).a)
    positions = dict(reversed(words))  # the first of several equal words
    word = ipywidgets.Dropdown(options=list(dict(words)), description="word")
    step = ipywidgets.SelectionSlider(options=sorted(features), description="step")
    block = ipywidgets.IntSlider(min=1, max=blocks, value=blocks, description="block")
    head = ipywidgets.SelectionSlider(
        options=["mean", *range(1, heads + 1)], value="mean", description="head"
    )
    view = ipywidgets.Image(format="png")

    def redraw(change: Any = None) -> None:
        chosen = None if head.value == "mean" else int(head.value) - 1
        view.value = attention_panel(
            pictures[step.value],
            features[step.value],
            positions[word.value],
            block.value - 1,
            chosen,
            sample,
        )

    for slider in (word, step, block, head):
        slider.observe(redraw, "value")
    redraw()
    return Explorer([word, step, block, head, view])


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

    class Turner(ipywidgets.VBox):
        """Says what it is where no kernel can draw it."""

        def __repr__(self) -> str:
            return "sliders over yaw, pitch and roll (shown while the notebook runs)"

    known = G.config.get("pose_range") or {}
    ranges = {"yaw": (-45, 45), "pitch": (-20, 20), "roll": (-30, 30)}
    sliders = {}
    for name, usual in ranges.items():
        low, high = (int(end) for end in known.get(name, usual))
        sliders[name] = ipywidgets.IntSlider(min=low, max=high, value=0, description=name)
    output = ipywidgets.Dropdown(options=OUTPUTS, description="show")
    view = ipywidgets.Image(format="png", width=256, height=256)

    def redraw(change: Any = None) -> None:
        angles = {name: float(slider.value) for name, slider in sliders.items()}
        (picture,) = pipe.render(code, **angles, output=output.value)
        drawn = io.BytesIO()
        picture.save(drawn, format="PNG")
        view.value = drawn.getvalue()

    for widget in (*sliders.values(), output):
        widget.observe(redraw, "value")
    redraw()
    return Turner([*sliders.values(), output, view])
