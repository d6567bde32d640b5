"""The parts of the paper's scale from local folders."""

from dataclasses import replace

import pytest
import torch
from tiny_models import pipeline

from dmgi_lib import paper_components
from dmgi_lib.paper_components import load_paper_components
from dmgi_lib.presets import PAPER
from dmgi_lib.weight_folder import save_component


@pytest.fixture(scope="module")
def tiny():
    return pipeline()


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    tiny.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_paper_parts_come_in_the_dtype_asked_for(tiny, saved, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(paper_components, "CLIPTokenizer", type(tiny.tokenizer))
    folder = tmp_path / "paper"
    monkeypatch.setattr(paper_components, "PAPER", replace(PAPER, folder=folder))
    save_component(tiny.mapping_network, folder / "mapping_network", "a card")
    parts = load_paper_components(saved, saved / "controlnet", dtype=dtype)
    for name in ("text_encoder", "vae", "unet", "controlnet", "mapping_network"):
        found = {p.dtype for p in parts[name].parameters()}
        assert found == {dtype or torch.float32}, name
    assert parts["style_modulation"] is None and parts["generator"] is None
    save_component(tiny.generator, folder / "generator", "a card")
    G = load_paper_components(saved, saved / "controlnet", dtype=dtype)["generator"]
    assert {p.dtype for p in G.parameters()} == {dtype or torch.float32}


def test_parts_that_are_not_here_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CLIPTokenizer of .*nowhere.*`hf download"):
        load_paper_components(tmp_path / "nowhere")
