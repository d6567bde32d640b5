"""Every command of docs/paper_scale.md, in its order, on small folders in the true formats.

The commands are read out of the page; only folders and sizes are put in their place here, so one
that no longer parses, or that does not find what an earlier one wrote, fails.
"""

import importlib.util
import json
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import fake_celebamask
import paper_scale
import pytest
import torch
import tyro
from accelerate.commands.launch import launch_command_parser
from fake_official import EasyDict, official_module, write_pickle
from PIL import Image
from tiny_checkpoints import stylegan2
from tiny_models import SD_BLOCKS, controlnet, unet, vae
from tiny_photo_judges import save_parser
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import PAPER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper_scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
HUB = {PAPER.base_model: "base", PAPER.controlnet: "controlnet"}
SMALLER = {  # by the page's own words, so that the page must hold them
    "--minutes 60": "--minutes 5 --max-steps 1",
    "--minutes 120": "--minutes 5 --max-steps 1",
    "--batch-size 8": "--batch-size 2",
    "--held-out 64": "--held-out 1",
    "--size 512": "--size 128",
    "--limit 4000": "--limit 4",
    "--dtype bfloat16": "--dtype bfloat16 --device cpu",
    "--steps 0,12,24,37,49": "--steps 0,1,3",
    "--steps 0,4": "--steps 0,1",
    '"cuda"': '"cpu"',
}

ONE_CORE = {
    "data_prep.celebamask_hq": ["--workers", "1"],
    "data_prep.priors.trainer": ["--threads", "1"],
}


def shrunk(text: str, folder: Path) -> str:
    for words, fewer in SMALLER.items():
        text = text.replace(words, fewer)
    for name, place in HUB.items():
        text = text.replace(name, str(folder / place))
    return text


def commands() -> list[str]:
    """The lines of the shell's blocks but for exports, without comments."""
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    return [line for line in lines if not line.startswith("export ")]


def exports() -> list[str]:
    return re.findall(r"^export (\w+)=", PAGE, re.MULTILINE)


def save_prior(folder: Path) -> None:
    """A small Stable Diffusion 1.x as the hub stores it, but for the checker, and a ControlNet."""
    letters = [chr(i) for i in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77,
        bos_token_id=len(words), eos_token_id=len(words) + 1,
    )  # fmt: skip
    base = folder / "base"
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(
        base / "tokenizer"
    )
    CLIPTextModel(text).save_pretrained(base / "text_encoder")
    unet(blocks=SD_BLOCKS).save_pretrained(base / "unet")
    vae().save_pretrained(base / "vae")
    (base / "scheduler").mkdir()
    released = {
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "clip_sample": False, "num_train_timesteps": 1000,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    }  # fmt: skip
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(released))
    controlnet(blocks=SD_BLOCKS).save_pretrained(folder / "controlnet")


def save_official(path: Path) -> None:
    """A StyleGAN2 of twice the pictures' size, in the official .pkl."""
    G = stylegan2(img_resolution=256, channel_base=512)
    options = EasyDict(channel_base=512, channel_max=8, num_fp16_res=4, conv_clamp=None)
    mapping = EasyDict(num_layers=2)
    sizes = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 256, "img_channels": 3}
    made = official_module(G, **sizes, mapping_kwargs=mapping, synthesis_kwargs=options)
    write_pickle({"G_ema": made}, path)


def run(command: str) -> None:
    """A command in this process, as `python` or `accelerate launch` would start it."""
    program, *words = shlex.split(os.path.expandvars(command), comments=True)
    if program == "accelerate":
        assert words[0] == "launch"
        given = launch_command_parser().parse_args(words[1:])
        assert given.module
        module, arguments = given.training_script, given.training_script_args
    else:
        assert program == "python"
        if words[0].endswith(".py"):
            return benchmark(words)
        assert words[0] == "-m"
        module, arguments = words[1], words[2:]
    arguments = [*arguments, *ONE_CORE.get(module, [])]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, f"{command}: {end.code}"


def benchmark(words: list[str]) -> None:
    """True sizes take minutes, so these lines are parsed; their numbers are tested below."""
    given = tyro.cli(paper_scale.Arguments, args=words[1:])
    assert (ROOT / words[0]).samefile(paper_scale.__file__)
    assert given.draw is None or isinstance(getattr(torch, given.draw), torch.dtype)
    assert given.count or given.estimate or given.draw


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Small downloads, and the page's folders below one."""
    for name in exports():
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    downloads = tmp_path / "downloads"
    fake_celebamask.write_download(downloads)
    save_official(downloads / "ffhq.pkl")
    save_parser(downloads / "face-parsing")
    save_prior(tmp_path)
    before = dict(vars(PAPER))
    small = {
        "folder": tmp_path / "dmgi_paper",
        "image_size": 128,
        "num_inference_steps": 4,
        "base_model": str(tmp_path / "base"),
        "controlnet": str(tmp_path / "controlnet"),
    }
    for name, value in small.items():
        object.__setattr__(PAPER, name, value)
    monkeypatch.setattr(sys, "argv", sys.argv)
    yield tmp_path
    for name, value in before.items():
        object.__setattr__(PAPER, name, value)


def test_the_page_holds_what_is_made_smaller():
    assert {kind for kind, _ in BLOCKS} == {"bash", "console", "python"}
    for words in (*SMALLER, *HUB):
        assert words in PAGE, words
    assert {"DMGI_PAPER", "DMGI_FACES"} <= set(exports())


def test_folders_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DMGI_PAPER", str(tmp_path))
    monkeypatch.setenv("DMGI_BASE_MODEL", "a/b")
    monkeypatch.setenv("DMGI_CONTROLNET", "c/d")
    found = runpy.run_path(str(ROOT / "dmgi_lib" / "presets.py"), run_name="presets")["PAPER"]
    assert (found.folder, found.base_model, found.controlnet) == (tmp_path, "a/b", "c/d")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_command_in_its_order(home, capsys):
    judged = [line for line in commands() if "--arcface-onnx" in line]
    drawing = [text for kind, text in BLOCKS if kind == "python"]
    assert len(judged) == len(drawing) == 1
    for command in commands():
        if "photo_judges" in command and not (home / "runs" / "pictures").exists():
            exec(compile(shrunk(drawing[0], home), "docs/paper_scale.md", "exec"), {})
        if command in judged and importlib.util.find_spec("onnxruntime") is None:
            with pytest.raises(ModuleNotFoundError, match="pip install onnxruntime"):
                run(shrunk(command, home))
            continue
        run(shrunk(command, home))
    test = FaceDataset(home / "dmgi_faces", "test")
    for record in test.records:
        with Image.open(home / "runs" / "pictures" / f"{record['id']}.png") as picture:
            assert picture.size == (256, 256)  # G's size, twice that of x and I
    columns = json.loads((home / "runs" / "pictures" / "columns.json").read_text())["columns"]
    assert list(columns) == ["SSIM", "ACC", "mIoU", "N"] and columns["N"] == len(test) == 2
    pipe = DMGIPipeline.from_pretrained("paper")
    assert pipe.style_modulation is not None and pipe.mapping_network.config.num_ws == 14
    assert "--stage 3" in (home / "dmgi_paper" / "mapping_network" / "card.md").read_text()
    assert (home / "runs" / "online" / "mapping_network" / "config.json").is_file()


def table(head: str) -> list[list[str]]:
    """Rows of the page's table whose first line begins so."""
    lines = PAGE.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(head)) + 2
    end = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:end]]


@pytest.mark.slow
def test_the_numbers_of_the_page_are_those_counted(capsys):
    counted = paper_scale.operations()
    written = [float(row[1]) for row in table("| network |")]
    assert written == [round(value, 3) for value in counted.values()]
    paper_scale.estimate(100.0)
    shown = capsys.readouterr().out.splitlines()
    estimated = {line[:36].strip(): [float(x) for x in line[36:].split()] for line in shown[2:10]}
    names = [name for name in estimated if not name.startswith("a call")]
    for (_, tera, hours, _), name in zip(table("| step |"), names, strict=True):
        assert float(tera) == pytest.approx(estimated[name][0], abs=0.06), name
        assert float(hours) == pytest.approx(estimated[name][1], rel=0.05), name
    assert estimated["features of 4,000 pictures"][2] == 217
    assert "2.9 GB in bf16" in shown[10] and "2.27 GB" in shown[11]
