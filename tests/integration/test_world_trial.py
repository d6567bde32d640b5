"""A trial of the whole way: every network for two steps, from the data to a pipeline that draws."""

import pytest
import torch
from tiny_views import with_views

from data_prep.priors import world
from data_prep.priors.world_parts import PARTS
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.recognizers import load_judges


@pytest.mark.slow
def test_a_trial_ends_in_a_pipeline_that_draws(tiny_faces, tmp_path, capfd):
    out = tmp_path / "world"
    data = with_views(tiny_faces, tmp_path / "faces")
    options = {"out": out, "data": data, "device": "cpu", "smoke": True, "at_once": 2}
    world.main(**options)
    assert capfd.readouterr().out.count("finished after") == len(PARTS)
    assert (tmp_path / "world_runs" / "faces.png").is_file()
    pipe, people = DMGIPipeline.from_pretrained(out), FaceDataset(tiny_faces, "test")
    drawn = pipe("a woman", mask=people.masks[0], output_type="pt").images
    assert drawn.shape == (1, 3, 128, 128) and torch.isfinite(drawn).all()
    drawn = pipe("a woman", scribble=people.scribbles[0], output_type="pt").images
    assert torch.isfinite(drawn).all()
    heads = DMGIPipeline.from_pretrained(out / "3d")
    drawn = heads("a woman", mask=people.masks[0], output_type="pt").images
    assert drawn.shape == (1, 3, 128, 128) and torch.isfinite(drawn).all()
    assert load_judges(out).parser is not None
    for part in PARTS:
        for name in part.makes:
            plain = name in ("tokenizer", "scheduler")
            assert plain or "python -m " in (out / name / "card.md").read_text(), name
    card = (out / "card.md").read_text()
    assert "\n| autoencoder | 0." in card and " | 8 | " in card and "PSNR, test (dB)" in card
    world.main(**options)  # nothing is left to do
    shown = capfd.readouterr().out
    assert shown.count("finished before") == len(PARTS) and "begun" not in shown
