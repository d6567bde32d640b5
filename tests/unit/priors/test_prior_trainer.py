"""The trainer: what every network ships, resuming, the command line, and cards."""

import sys
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from tiny_priors import SMALL
from transformers import CLIPModel, CLIPTextModel, PreTrainedTokenizerFast

from data_prep.priors import trainer
from data_prep.priors.recipe import Folders
from dmgi_lib.generators import StyleGAN2Generator
from dmgi_lib.mask_encoder import MaskEncoder
from dmgi_lib.recognizers import AttributeJudge

SHIPPED = {
    "judge_attributes": AttributeJudge,
    "generator": StyleGAN2Generator,
    "text_encoder": CLIPTextModel,
    "image_encoder": CLIPModel,
    "vae": AutoencoderKL,
    "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel,
    "controlnet_scribble": ControlNetModel,
    "mask_encoder": MaskEncoder,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_half_precision_weights_and_a_card(name, trained):
    model = SHIPPED[name].from_pretrained(trained / name)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    card = (trained / name / "card.md").read_text()
    for words in ("- command: `python -m data_prep.priors.trainer", "seed 0, ", "minutes on "):
        assert words in card, words
    split = "held-out" if name == "mask_encoder" else "test"
    assert split in card.split("| measurement")[1]
    weights = next((trained / name).glob("*.safetensors"))
    elements = sum(p.numel() for p in (*model.parameters(), *model.buffers()))
    assert weights.stat().st_size < 2.5 * elements + 50_000


def test_what_ships_beside_the_networks(trained):
    scheduler = DDIMScheduler.from_pretrained(trained / "scheduler")
    assert scheduler.config.prediction_type == "v_prediction"
    assert len(PreTrainedTokenizerFast.from_pretrained(trained / "tokenizer")) > 20
    assert (trained / "judge_attributes" / "hair_colors.json").is_file()
    assert {path.suffix for path in trained.glob(".*")} == {".lock"}  # nothing half written


def test_runs_leave_samples_and_resume(trained, tiny_faces):
    run_dir = trained / "runs" / "unet"
    assert (run_dir / "samples" / "0000002.png").is_file()
    out = trained / "again" / "unet"
    folders = Folders(tiny_faces, trained, out, run_dir)
    settings = replace(SMALL["unet"], max_steps=4, minutes=30.0)
    assert trainer.train("unet", settings, folders, "cpu").step == 4
    (out / "config.json").unlink()
    settings = replace(settings, minutes=0.0)
    assert trainer.train("unet", settings, folders, "cpu").step == 4
    assert (out / "config.json").is_file()


def test_the_command_line_trains_and_exports(tiny_faces, tmp_path, capsys, monkeypatch):
    out = tmp_path / "judge_parser"
    words = ["judge_parser", "--data", str(tiny_faces), "--out", str(out), "--device", "cpu"]
    words += ["--run-dir", str(tmp_path / "run"), "--threads", "1", "--batch-size", "4"]
    monkeypatch.setattr(sys, "argv", ["", *words, "--max-steps", "1", "--precision", "fp32"])
    assert trainer.main().step == 1
    card = (out / "card.md").read_text()
    assert "python -m data_prep.priors.trainer judge_parser --data" in card
    assert "seed 21, fp32" in card
    assert "parsing mIoU (test)" in card
    before = (out / "diffusion_pytorch_model.safetensors").read_bytes()
    assert trainer.main([*words, "--export-only"]).step == 1
    assert (out / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert "exported to" in capsys.readouterr().out


@pytest.mark.parametrize("name", trainer.NETWORKS)
def test_every_network_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        trainer.main([name, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    for option in ("--data", "--minutes", "--batch-size", "--seed", "--threads", "--max-steps"):
        assert option in text
    for option in ("--run-dir", "--weights", "--out", "--export-only", "--device", "--precision"):
        assert option in text
    assert "--architecture" not in text
