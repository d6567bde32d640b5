"""The order of a world's parts, their budget and commands, failures, stops, and what is skipped."""

import importlib
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
import tyro
from tiny_views import with_views

from data_prep.priors import codes, trainer, world
from data_prep.priors.world import World, able, chosen, few_people, run
from data_prep.priors.world_parts import (
    HOURS,
    PARTS,
    START,
    URGENCY,
    end_of_all,
    startable,
    training_minutes,
)
from dmgi_lib import mask_camera
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.training import edit_directions, feature_cache, stages
from dmgi_lib.weight_folder import COMPONENTS

ENDS = ("", "_scribble")
BY_NAME = {part.name: part for part in PARTS}
WRITE = "import pathlib; p = pathlib.Path({folder!r}); p.mkdir(parents=True, exist_ok=True);"
WRITE += " (p / 'config.json').touch()"


class Scripted(World):
    """A world whose parts are scripts; those without one write their folders."""

    scripts: dict = {}

    def command(self, part):
        writes = "\n".join(WRITE.format(folder=str(self.out / name)) for name in part.makes)
        return [sys.executable, "-m", "script_part", self.scripts.get(part.name, writes)]

    def index(self):
        pass


@pytest.fixture
def scripted(tmp_path):
    minutes = dict.fromkeys(BY_NAME, 1.0)
    Scripted.scripts = {}
    return Scripted(tmp_path / "world", tmp_path, "cpu", 4, minutes)


def test_every_part_comes_after_its_needs_and_all_folders_are_made():
    seen = set()
    for part in PARTS:
        assert seen.issuperset(part.needs), part.name
        seen.add(part.name)
    made = {name for part in PARTS for name in part.makes}
    judges = {f"judge_{name}" for name in ("parser", "attributes", "identity")}
    others = {*judges, "encoder", "loss_net", "image_encoder", "mask_encoder", "mask_camera"}
    mapped = (f"{name}{end}" for name in ("mapping_network", "style_modulation") for end in ENDS)
    heads = {f"3d/{name}" for name in ("generator", "encoder", *mapped)}
    assert made == {*COMPONENTS, *others, *heads}


@pytest.mark.parametrize(("device", "smoke"), [("cpu", False), ("cuda", False), ("cpu", True)])
def test_every_command_is_understood(device, smoke, tmp_path, monkeypatch):
    home = World(tmp_path / "a world", tmp_path, device, 1, dict.fromkeys(BY_NAME, 7.0), smoke)
    read = []

    def train(network, settings, folders, *_, **__):
        read.append((network, settings.minutes, settings.max_steps, folders.weights))

    def reaches(*_, **__):
        raise KeyboardInterrupt  # as far as the options go

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(stages, "accelerator_for", reaches)
    monkeypatch.setattr(stages, "load_part", lambda *_: None)
    monkeypatch.setattr(feature_cache.DMGIPipeline, "from_pretrained", reaches)
    monkeypatch.setattr(codes.ImageEncoder, "from_pretrained", reaches)
    monkeypatch.setattr(mask_camera, "FaceDataset", reaches)
    monkeypatch.setattr(edit_directions, "pick_device", reaches)
    threads = torch.get_num_threads()
    home.out.mkdir()
    for part in PARTS:
        _, _, module, *words = home.command(part)
        if module.endswith("trainer"):
            trainer.main(words)
            network = part.name.removesuffix("_scribble")
            assert read.pop() == (network, 7.0, 2 if smoke else None, home.out)
            continue
        with pytest.raises(KeyboardInterrupt):
            tyro.cli(importlib.import_module(module).main, args=words)
    torch.set_num_threads(threads)


def test_a_gpu_gets_larger_batches_and_a_trial_few_steps(tmp_path):
    home = World(tmp_path, tmp_path, "cuda", 1, dict.fromkeys(BY_NAME, 7.0))
    assert "192" in home.command(BY_NAME["unet"])
    assert "--batch-size" not in replace(home, device="cpu").command(BY_NAME["unet"])
    assert "192" not in replace(home, smoke=True).command(BY_NAME["unet"])


def test_one_after_the_other_the_hours_are_those_of_the_table():
    budget = 60 * HOURS + START * len(PARTS)
    minutes = training_minutes(budget, 1)
    assert minutes == pytest.approx({part.name: 60 * part.hours for part in PARTS})


def test_side_by_side_the_longest_chain_fills_the_budget():
    minutes = training_minutes(15.0, len(PARTS))
    chain = ("loss_net", "autoencoder", "unet", "controlnet", "features")
    chain += ("stage1", "stage2", "stage3", "edit_directions")
    assert sum(minutes[name] + START for name in chain) == pytest.approx(15.0, rel=1e-3)
    assert minutes["unet"] / minutes["autoencoder"] == pytest.approx(8 / 12)
    with pytest.raises(ValueError, match="--minutes came as 3; .* takes about 4.5. Give more"):
        training_minutes(3.0, len(PARTS))


def test_fewer_at_once_end_later():
    minutes = {part.name: part.hours for part in PARTS}
    ends = [end_of_all(minutes, n) for n in (1, 2, len(PARTS))]
    assert ends[0] == pytest.approx(HOURS) and ends[0] > ends[1] >= ends[2]
    assert ends[2] == pytest.approx(max(URGENCY.values()))


def test_what_most_waits_for_starts_first():
    first = [part.name for part in startable((), ())]
    assert first[0] == "loss_net" and {"text_image", "judge_parser"} < {*first}
    assert startable(("loss_net",), ())[0].name == "autoencoder"
    assert "unet" not in {p.name for p in startable(("loss_net", "autoencoder"), ())}


def test_all_parts_run_and_are_skipped_afterwards(scripted, capsys):
    assert run(scripted, PARTS) == {}
    assert all(map(scripted.is_done, PARTS))
    assert capsys.readouterr().out.count("finished after") == len(PARTS)
    Scripted.scripts = dict.fromkeys(BY_NAME, "raise SystemExit(1)")
    assert run(scripted, PARTS) == {}
    assert capsys.readouterr().out.count("finished before") == len(PARTS)


def test_needs_are_finished_before(scripted):
    told = scripted.out.with_name("order.txt")
    note = f"open({str(told)!r}, 'a').write('{{0}}\\n')"
    Scripted.scripts = {name: note.format(name) for name in ("loss_net", "autoencoder")}
    Scripted.scripts["loss_net"] = f"import time; time.sleep(.5); {note.format('loss_net')}"
    run(scripted, [BY_NAME["loss_net"], BY_NAME["autoencoder"]])
    assert told.read_text().split() == ["loss_net", "autoencoder"]


def test_a_part_that_fails_is_named_and_leaves_the_others(scripted, capsys):
    Scripted.scripts = {"autoencoder": "print('many lines\\n' * 99); raise ValueError('no luck')"}
    problems = run(scripted, PARTS)
    shown = capsys.readouterr().out
    log = scripted.runs / "autoencoder" / "output.txt"
    assert f"autoencoder: failed with exit status 1, see {log}:\n" in shown
    assert "    ValueError: no luck\n" in shown and shown.count("many lines") < 12
    assert problems["unet"] == "waits for autoencoder"
    assert problems["stage1_scribble"] == "waits for features_scribble"
    assert all(scripted.is_done(BY_NAME[n]) for n in ("stylegan2", "mask_encoder", "text_image"))
    Scripted.scripts = {}
    assert run(scripted, PARTS) == {}  # what failed is run again


def test_a_folder_from_elsewhere_is_done_and_a_run_cut_off_is_not(scripted):
    vae = BY_NAME["autoencoder"]
    assert not scripted.is_done(vae)
    (scripted.out / "vae").mkdir(parents=True)
    assert not scripted.is_done(vae)  # nothing in it
    (scripted.out / "vae" / "config.json").touch()
    assert scripted.is_done(vae)
    (scripted.runs / "autoencoder").mkdir(parents=True)
    assert not scripted.is_done(vae)
    scripted.mark(vae).touch()
    assert scripted.is_done(vae)


def test_features_are_not_made_for_m_and_t_from_elsewhere(scripted):
    for name in ("mapping_network", "style_modulation"):
        for home in (scripted.out, scripted.out / "3d"):
            (home / name).mkdir(parents=True)
            (home / name / "config.json").touch()
    assert scripted.is_done(BY_NAME["features"])
    assert not scripted.is_done(BY_NAME["features_scribble"])


def test_only_some_parts(scripted):
    assert run(scripted, chosen(["loss_net"])) == {}
    assert not scripted.is_done(BY_NAME["text_image"])
    assert run(scripted, chosen(["unet"])) == {"unet": "waits for autoencoder, text_image"}
    with pytest.raises(ValueError, match="--only came with ..x..; expected some of ..loss_net"):
        chosen(["x"])


def test_no_more_at_once_than_asked(scripted, monkeypatch):
    most, start = [], World.start
    alone = replace(scripted, at_once=1)
    Scripted.scripts = dict.fromkeys(BY_NAME, "import time; time.sleep(.3)")

    def counted(self, part):
        one = start(self, part)
        most.append(one)
        assert sum(o.process.exitcode is None for o in most) == 1
        return one

    monkeypatch.setattr(World, "start", counted)
    run(alone, chosen(["loss_net", "text_image", "judge_parser"]))
    assert len(most) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process(scripted, monkeypatch, how):
    begun, start = [], World.start
    monkeypatch.setattr(World, "start", lambda *a: begun.append(start(*a)) or begun[-1])
    Scripted.scripts = dict.fromkeys(BY_NAME, "import time; time.sleep(60)")

    def stop():
        while len(begun) < 2:
            time.sleep(0.05)
        signal.raise_signal(how)

    threading.Thread(target=stop).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has none
    try:
        with pytest.raises(KeyboardInterrupt):
            run(scripted, chosen(["loss_net", "text_image"]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert all(one.process.exitcode is not None for one in begun)


def test_a_trial_sees_few_people(tiny_faces, tmp_path):
    few = few_people(tiny_faces, tmp_path / "few")
    assert few_people(tiny_faces, tmp_path / "few") == few  # again
    for split, count in (("train", 16), ("test", 8)):
        data = FaceDataset(few, split)
        assert len(data) == count and data.images.shape == (count, 3, 128, 128)
    with pytest.raises(FileNotFoundError, match="no face dataset"):
        few_people(tmp_path, tmp_path / "none")


def test_a_part_without_its_data_is_skipped_and_takes_no_time(tiny_faces, tmp_path, capsys):
    with_them = with_views(tiny_faces, tmp_path / "faces")
    assert able(PARTS, with_them) == [*PARTS]
    rest = able(PARTS, tiny_faces)
    missing = {part.name for part in PARTS} - {part.name for part in rest}
    heads = {f"heads_stage{number}{end}" for number in (1, 2, 3) for end in ENDS}
    assert missing == {"eg3d", "heads_codes", "style_offsets", *heads}
    minutes = training_minutes(600.0, 1, rest)
    assert "eg3d" not in minutes and minutes["unet"] > training_minutes(600.0, 1)["unet"]
    assert len(FaceDataset(few_people(with_them, tmp_path / "few"), "train_views")) == 8
    with pytest.raises(SystemExit, match="nothing to train"):
        world.main(out=tmp_path / "w", data=tiny_faces, device="cpu", only=("eg3d",))
    assert "eg3d: skipped, " in capsys.readouterr().out


def test_the_card_has_a_row_a_part(tmp_path):
    home = World(tmp_path / "world", tmp_path, "cpu", 1, {})
    out, runs = home.out, home.runs
    (out / "vae").mkdir(parents=True)
    (out / "vae" / "card.md").write_text(
        "| seed | 0 |\n| PSNR, test (dB) | 29.18 |\n| L1, test | 1e-03 |\n"
    )
    (runs / "autoencoder").mkdir(parents=True)
    state = {"step": 300, "batch_size": 4, "seconds": 120.0}
    torch.save(state, runs / "autoencoder" / "checkpoint.pt")
    text = world.world_card(home, torch.device("cpu"), ["--out", "two words"])
    assert "python -m data_prep.priors.world --out 'two words'\n" in text
    assert "\n| autoencoder | 2.0 | 1,200 | 10.0 | PSNR, test (dB) 29.18 |\n" in text
    assert "\n| unet |  |  |  |  |\n" in text
    assert all(f"\n| {part.name} |" in text for part in PARTS)


def test_rows_that_the_card_repeats_are_rows_of_cards(trained, tiny_faces):
    """The names are those that the recipes write; a renamed one would leave the table empty."""
    for part in PARTS:
        known = world.measured_rows(part, trained)
        if known and part.name not in ("loss_net", "judge_parser", "judge_identity"):
            assert {*part.measured} & known.keys(), part.name


def test_the_command_refuses_what_it_cannot_do(tmp_path, tiny_faces):
    for options, why in (({"at_once": 0}, "--at-once"), ({"minutes": 1.0}, "--minutes came as 1")):
        with pytest.raises(ValueError, match=why):
            world.main(out=tmp_path / "world", data=tiny_faces, device="cpu", **options)
