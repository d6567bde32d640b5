"""Training stages as commands: what they write, and which checkpoints and features they refuse."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from safetensors.torch import save_file
from tiny_models import controlnet, face_mask, generator, pipeline, rng, unet
from tiny_shards import encoded, rewrite
from tiny_training import CONFIG, loop, trainer

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import machine
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training import stages
from dmgi_lib.training.feature_cache import build
from dmgi_lib.training.features import CacheConfig, OnlineFeatures
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.trainer import StageConfig, StageTrainer
from dmgi_lib.weight_folder import load_part


def test_command_trains_and_writes_a_loadable_folder(
    pipe, cache, dataset, loss_net, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "weights"
    pipe.save_pretrained(folder)
    loss_net.save_pretrained(folder / "loss_net")
    common = f"--weights {folder} --data {dataset.root} --cache {cache.folder} --held-out 2"

    def train(stage, more):
        arguments = (
            f"stages --stage {stage} {common} --minutes 0.03 --batch-size 4 --device cpu {more}"
        )
        monkeypatch.setattr(sys, "argv", f"{arguments} --run-dir {tmp_path}/run{stage}".split())
        tyro.cli(stages.main)

    known = generator().mapping(torch.randn(len(dataset), 16, generator=rng()))
    save_file({"codes": known}, tmp_path / "codes.safetensors")
    for stage in (1, 2):
        codes = f"--codes {tmp_path}/codes.safetensors --code-steps 4"
        train(stage, f"--code-prior 0.03 --row-growth 3 --average space {codes}")
    said = capsys.readouterr().out
    assert "wrote" in said and said.count("of their variance left open") == 1
    card = (folder / "style_modulation" / "card.md").read_text()
    assert "--stage 2" in card and "seed 0" in card and "identity (I) @ 2" in card
    assert "augment 0.0" in card and "'row_growth': 3.0" in card and "code_prior @ 2" in card
    assert f"minutes on 1 x {machine('cpu')}" in card
    loaded = DMGIPipeline.from_pretrained(folder)
    assert loaded.mapping_network.config.width == MINI.mapping.width  # the new one, not the old
    assert loaded.config.num_inference_steps == CONFIG.num_inference_steps  # as it was trained
    T = load_part(folder, "style_modulation")
    assert T.dtype == torch.float32 and (T.config.average, T.config.pooled) == ("space", 2)
    assert loaded("a young woman", mask=face_mask(), exit_step=0).images[0].size == (128, 128)
    train(3, "--pooled 4")
    T = load_part(folder, "style_modulation")
    assert (T.config.average, T.config.pooled) == ("space", 4)


def test_a_checkpoint_of_another_training_is_refused(pipe, cache, dataset, loss_net, tmp_path):
    def fit(made, **options):
        return made.fit(loop(tmp_path / "run", **({"max_steps": 1} | options)))

    fit(trainer(1, cache, dataset, loss_net))
    assert fit(trainer(1, cache, dataset, loss_net), max_steps=2, minutes=9.0).step == 2
    single, other_net = replace(MINI.mapping, origin="zero"), Recognizer(channels=(4, 8, 8, 8, 8))
    more = build(CONFIG, pipe, dataset, tmp_path / "cache", limit=4)
    changed = {
        "config.weights.l2 was 1.0, is 0.15": trainer(
            1, cache, dataset, loss_net, weights=LossWeights(l2=0.15)
        ),
        "config.held_out was 2, is 3": StageTrainer(
            StageConfig(1, held_out=3), cache, dataset, generator(), loss_net
        ),
        "networks.mapping_network.origin was 'w_avg', is 'zero'": StageTrainer(
            StageConfig(1, held_out=2), cache, dataset, generator(), loss_net, mapping=single
        ),
        "frozen.generator was ": StageTrainer(
            StageConfig(1, held_out=2), cache, dataset, generator(seed=50), loss_net
        ),
        "frozen.loss_net was ": trainer(1, cache, dataset, other_net),
        "features.entries was 20, is 4": trainer(1, more, dataset, loss_net),
        "features.weights.unet was ": trainer(
            1, OnlineFeatures(CONFIG, pipeline(unet=unet(seed=50)), dataset), dataset, loss_net
        ),
    }
    for what, other in changed.items():
        with pytest.raises(ValueError, match="was written by another run") as error:
            fit(other, max_steps=3)
        assert what in str(error.value)
    critic = trainer(1, cache, dataset, loss_net, weights=LossWeights(adversarial=0.1))
    with pytest.raises(ValueError, match="config.weights.adversarial was nothing, is 0.1"):
        fit(critic, max_steps=3)
    with pytest.raises(ValueError, match="optimisation.learning_rate was 0.0002, is 0.001"):
        fit(trainer(1, cache, dataset, loss_net), max_steps=3, learning_rate=1e-3)


def test_checkpoints_from_before_there_were_recipes_are_valid(cache, dataset, loss_net):
    facts = trainer(1, cache, dataset, loss_net).made_from(loop(Path("run")))["config"]
    assert {"l2", "code_prior", "row_growth"} < set(facts["weights"])
    assert not {"adversarial", "code_critic"} & set(facts["weights"])
    assert not {"mixing", "mixed_from"} & set(facts)


def test_a_checkpoint_of_t_belongs_to_its_m_and_stage(cache, dataset, loss_net, tmp_path):
    m = trainer(1, cache, dataset, loss_net).networks["mapping_network"]
    trainer(2, cache, dataset, loss_net, m).fit(loop(tmp_path, max_steps=1))
    with pytest.raises(ValueError, match="config.stage was 2, is 1"):
        trainer(1, cache, dataset, loss_net).fit(loop(tmp_path, max_steps=2))
    torch.nn.init.normal_(m.fc.weight, std=0.05)
    with pytest.raises(ValueError, match="frozen.mapping_network was "):
        trainer(2, cache, dataset, loss_net, m).fit(loop(tmp_path, max_steps=2))


def test_command_trains_with_e_in_the_loop(pipe, dataset, loss_net, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    pipe.save_pretrained(folder)
    loss_net.save_pretrained(folder / "loss_net")
    seen = []
    online = stages.OnlineFeatures
    monkeypatch.setattr(
        stages, "OnlineFeatures", lambda *a, **k: seen.append(online(*a, **k)) or seen[0]
    )
    options = f"--stage 1 --online --weights {folder} --data {dataset.root} --held-out 2"
    more = f"--seed 7 --max-steps 1 --batch-size 2 --run-dir {tmp_path}/{{condition}}_{{stage}}"
    tyro.cli(stages.main, args=f"{options} {more} --device cpu --dtype bfloat16".split())
    assert seen[0].steps == (0, 1, 2, 3) and seen[0].config.seed == 7
    assert not seen[0].diffusion_images and seen[0].pipe.unet.dtype == torch.bfloat16
    assert (tmp_path / "mask_1" / "checkpoint.pt").is_file()


def test_the_options_are_those_of_the_readme(monkeypatch):
    read = {}

    def picked(name):
        read["device"] = name
        raise KeyboardInterrupt  # as far as the options go

    monkeypatch.setattr(stages, "accelerator_for", picked)
    monkeypatch.setattr(
        stages, "replace", lambda loop, **k: read.update(loop=replace(loop, **k)) or read["loop"]
    )
    monkeypatch.setattr(
        stages, "load_part", lambda folder, name: read.update(folder=folder, part=name)
    )
    options = "--stage 3 --condition scribble --pooled 4 --minutes 32 --code-prior 0.06 --l2 2"
    with pytest.raises(KeyboardInterrupt):
        tyro.cli(stages.main, args=f"{options} --steps 0,9 --preset mini-3d".split())
    assert read["folder"] == PRESETS["mini-3d"].folder
    assert read["device"] == "auto" and read["part"] == "style_modulation_scribble"
    assert read["loop"].minutes == 32 and read["loop"].run_dir.name == "scribble_stage3"
    assert (read["loop"].warmup_steps, read["loop"].learning_rate) == (50, 5e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--stage 4", "stage came as 4"),
        ("--stage 1 --l2 -1", "expected none below 0"),
        ("--stage 1 --steps 0,x", "'x'"),
        ("--stage 3 --targets mixed", "'composite'"),
        ("--stage 3 --mixing 2", "mixing came as 2"),
        ("--stage 3 --adversarial -1", "expected none below 0"),
        ("--stage 1 --precision fp8", "precision came as 'fp8'"),
        ("--minutes 3", "--stage"),
    ],
)
def test_bad_options_are_named(options, said, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(stages.main, args=options.split())
    shown = capsys.readouterr()
    assert said in shown.out + shown.err


def test_scribbles_have_networks_of_their_own(pipe, dataset, loss_net, tmp_path, monkeypatch):
    root = shutil.copytree(dataset.root, tmp_path / "faces")
    drawn = {
        record["id"]: encoded(((mask == 13) * 255).numpy().astype(np.uint8))
        for record, mask in zip(dataset.records, dataset.masks, strict=True)
    }
    rewrite(root / "train", lambda sample: sample | {"scribble": drawn[sample["id"]]})
    folder = tmp_path / "weights"
    own = pipeline(controlnet_scribble=controlnet(seed=9))
    own.save_pretrained(folder)
    loss_net.save_pretrained(folder / "loss_net")
    with pytest.raises(ValueError, match="no mapping_network_scribble"):
        own("a woman", scribble=np.zeros((128, 128), np.uint8), exit_step=0)
    drawings = FaceDataset(root)
    config = CacheConfig((0, 2), num_inference_steps=3, shard_size=4, condition="scribble")
    cache = build(config, own, drawings, tmp_path / "cache")
    common = f"--weights {folder} --data {root} --cache {cache.folder} --held-out 2"
    arguments = f"stages --stage 1 {common} --minutes 0.03 --batch-size 4 --run-dir {tmp_path}/run"
    monkeypatch.setattr(sys, "argv", arguments.split())
    with pytest.raises(ValueError, match="config.condition was 'scribble', is 'mask'"):
        tyro.cli(stages.main)
    monkeypatch.setattr(sys, "argv", [*arguments.split(), "--condition", "scribble"])
    tyro.cli(stages.main)
    shown = np.asarray(Image.open(tmp_path / "run" / "final.png"))[:128]  # x, above the faces
    assert set(np.unique(shown)) == {0, 255} and (shown == shown[..., :1]).all()
    loaded = DMGIPipeline.from_pretrained(folder)
    assert loaded.mapping_network_scribble is not None
    strokes = np.zeros((128, 128), np.uint8)
    strokes[40:44, 30:90] = 255
    drawn = loaded("a young woman", scribble=strokes, exit_step=0, output_type="pt").latents
    assert torch.isfinite(drawn).all()


def test_a_stored_cache_is_not_augmented_afterwards():
    with pytest.raises(ValueError, match="augment came as 0.5 without --online"):
        stages.main(StageConfig(stage=1), augment=0.5)
