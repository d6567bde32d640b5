"""Figures and widgets of the notebooks."""

import io
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_models import tiny_eg3d

from dmgi_lib import widgets
from dmgi_lib.display import as_array, show_curves, show_scores, show_sweep, show_tables
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.views import render

matplotlib.use("Agg")


def features(seed: int) -> DiffusionFeatures:
    rng = torch.Generator().manual_seed(seed)
    a = tuple(torch.rand(1, heads, edge**2, 6, generator=rng) for heads, edge in ((2, 8), (3, 16)))
    return DiffusionFeatures(torch.zeros(1, 4, 4, 4), (), a)


def test_curves_and_tables_show_what_they_are_given():
    log = {"step": [1.0, 2.0], "loss": [3.0, 1.0]}
    figure = show_curves({"live": log, "other": {"step": [1.0]}}, ("loss",))
    (line,) = figure.axes[0].lines
    assert line.get_ydata().tolist() == [3.0, 1.0] and line.get_label() == "live"
    table = np.array([[0.0, 1.0], [np.nan, 4.0]])
    figure = show_tables({"a": table, "b": table / 2}, ["x", "y"], ["0", "1"])
    first, second = figure.axes[:2]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0.0, 4.0)
    figure = show_tables({"a": table, "b": table / 2}, ["x", "y"], ["0", "1"], shared=False)
    assert figure.axes[1].images[0].get_clim() == (0.0, 2.0)


def test_scores_are_bars_with_intervals():
    rows = {"ours": {"mIoU": 0.6, "mIoU low": 0.5, "mIoU high": 0.7}, "floor": {"mIoU": 0.2}}
    (axis,) = show_scores(rows, ["mIoU"]).axes
    assert [bar.get_width() for bar in axis.patches] == [0.6, 0.2]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[0.5, 0.7]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ours", "floor"]
    assert axis.get_title() == "mIoU"
    rows = {"ours": {"mIoU": 0.6, "FID": 1.0}}
    axes = show_scores(rows, ["mIoU", "FID"], lower_is_better=("FID",)).axes
    assert [axis.get_title() for axis in axes] == ["mIoU", "FID\nlower is better"]


def test_explorer_redraws_for_every_choice():
    pytest.importorskip("ipywidgets")
    words = [("a", [1]), ("hair", [2, 3]), ("a", [4])]
    steps = {0: features(0), 3: features(1)}
    grey = Image.new("RGB", (128, 128), "gray")
    explorer = widgets.attention_explorer({0: grey, 3: grey}, steps, words)
    word, step, block, head, view = explorer.children
    assert word.options == ("a", "hair") and head.options == ("mean", 1, 2)
    seen = [view.value]
    for widget, value in ((word, "hair"), (step, 3), (block, 1), (head, 2)):
        widget.value = value
        seen.append(view.value)
    assert len(set(seen)) == 5
    assert Image.open(io.BytesIO(seen[-1])).width > 300
    assert "while the notebook runs" in repr(explorer)


class Heads:
    """As much of a pipeline as draws a head."""

    def __init__(self, **options) -> None:
        self.generator = tiny_eg3d(**options)

    def render(self, latents, yaw, pitch, roll, output) -> list[Image.Image]:
        return render(self.generator, latents, look_at(yaw, pitch, roll=roll)[None], output)


def test_a_head_turns_with_the_sliders():
    pytest.importorskip("ipywidgets")
    heads = Heads(pose_range={"yaw": [-40, 30], "pitch": [-10, 10]})
    code = torch.randn(1, heads.generator.num_ws, heads.generator.w_dim)
    turner = widgets.head_turner(heads, code)
    yaw, pitch, roll, output, view = turner.children
    assert (yaw.min, yaw.max, pitch.max, roll.max) == (-40, 30, 10, 30)
    seen = [view.value]
    for widget, value in ((yaw, 30), (pitch, -10), (roll, 20), (output, "depth")):
        widget.value = value
        seen.append(view.value)
    assert len(set(seen)) == 5
    assert Image.open(io.BytesIO(seen[-1])).size == (heads.generator.img_resolution,) * 2
    assert "while the notebook runs" in repr(turner)
    with pytest.raises(ValueError, match="2 codes came"):
        widgets.head_turner(heads, code.repeat(2, 1, 1))


def test_core_works_without_ipywidgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    heads = Heads()
    code = torch.zeros(heads.generator.num_ws, heads.generator.w_dim)
    assert widgets.head_turner(heads, code) is None
    assert widgets.attention_explorer({}, {0: features(0)}, [("a", [1])]) is None


def test_tensors_of_bytes_and_of_floats_show_the_same_picture():
    bytes_ = torch.randint(256, (3, 4, 5), generator=torch.Generator().manual_seed(0)).byte()
    shown = as_array(bytes_)
    assert shown.dtype == np.uint8 and shown.shape == (4, 5, 3)
    np.testing.assert_allclose(shown / 255, as_array(bytes_ / 127.5 - 1), atol=1e-6)
    assert as_array(bytes_[0]).max() == bytes_[0].max()  # class ids stay as they are


def test_panels_of_one_measure_share_a_scale():
    table = pd.DataFrame({"seed": [0, 1], "mIoU_a": [0.1, 0.2], "mIoU_b": [0.8, 0.9]})
    one, other = show_sweep(table, "seed", ["mIoU_a", "mIoU_b"]).axes
    assert one.get_ylim() == other.get_ylim() and one.get_ylim()[1] > 0.9
    table["seconds"] = [5.0, 6.0]
    one, other = show_sweep(table, "seed", ["mIoU_a", "seconds"]).axes
    assert one.get_ylim()[1] < 1 < other.get_ylim()[0]
