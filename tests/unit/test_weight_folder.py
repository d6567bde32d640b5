"""What a pipeline folder may hold, and how components are written and checked."""

import json
import shutil
import stat
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import generator, mapping_network, pipeline

from dmgi_lib import DMGIPipeline, MappingNetwork
from dmgi_lib.presets import MINI
from dmgi_lib.weight_folder import (
    check_loaded,
    check_safetensors,
    check_weights,
    main,
    save_component,
    write_model_index,
)

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "tiny")


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_the_shipped_and_the_written_folder_pass(saved):
    check_weights(saved)
    check_weights(MINI.folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"unet": ["evil", "X"]}, r"unet is \['evil', 'X'\]; expected \['diffusers', 'UNet2DCond"),
        ({"unet": ["os", "system"]}, "Nothing was imported"),
        ({"vae": ["diffusers", "UNet2DConditionModel"]}, "vae is .*expected .*AutoencoderKL"),
        ({"scheduler": ["diffusers", "StableDiffusionPipeline"]}, "expected .*DDIMScheduler"),
        ({"generator": ["dmgi_lib.recognizers", "Recognizer"]}, "generator is"),
        ({"tokenizer": "transformers"}, "tokenizer is 'transformers'"),
        ({"unet": ["diffusers", "UNet2DConditionModel", "more"]}, "unet is"),
        ({"unet": {"diffusers": 1}}, "unet is"),
        ({"unet": None}, "unet is None"),
        ({"helper": ["evil", "X"]}, "lists the component 'helper'; expected some of"),
        ({"_class_name": ["evil", "X"]}, r"names the class \['evil', 'X'\]"),
        ({"_class_name": "StableDiffusionPipeline"}, "expected DMGIPipeline"),
        ({"guidance_scale": "2"}, "guidance_scale is '2'; expected one like 2.5"),
        ({"guidance_scale": True}, "guidance_scale is True; expected one like 2.5"),
        ({"guide_condition": 1}, "guide_condition is 1; expected one like True"),
    ],
)
def test_an_index_of_other_things_is_refused_before_anything_is_imported(folder, entries, message):
    change(folder / "model_index.json", **entries)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=message):
        DMGIPipeline.from_pretrained(folder)
    assert not {"evil", "dmgi_lib.recognizers"} & (set(sys.modules) - before)


def test_code_in_a_folder_is_refused_and_not_run(folder, tmp_path):
    (folder / "unet" / "evil.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"Python files \(\['evil.py'\]\).*Nothing was run"):
        DMGIPipeline.from_pretrained(folder)
    change(folder / "model_index.json", unet=["evil", "X"])
    with pytest.raises(ValueError, match="Python files"):
        DMGIPipeline.from_pretrained(folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", "[" * 10**5])
def test_json_of_another_kind_is_named(folder, content):
    for path in (folder / "unet" / "config.json", folder / "model_index.json"):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{path.name} (holds a|is truncated or no JSON)"):
            DMGIPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("unet/config.json", {"_class_name": ["UNet2DConditionModel"]}, "names the class"),
        ("unet/config.json", {"_class_name": "ControlNetModel"}, "expected UNet2DConditionModel"),
        ("generator/config.json", {"_class_name": "Evil"}, "expected StyleGAN2Generator"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.X"}}, "code of its own"),
    ],
)
def test_settings_of_another_class_are_refused(folder, name, entries, message):
    change(folder / name, **entries)
    with pytest.raises(ValueError, match=message):
        DMGIPipeline.from_pretrained(folder)


@pytest.mark.parametrize("part", ["unet", "mapping_network", "generator", "text_encoder"])
def test_weights_that_are_missing_or_not_finite_are_named(folder, part):
    path = next((folder / part).glob("*.safetensors"))
    whole = load_file(path)
    name = sorted(k for k, v in whole.items() if v.ndim)[-1]
    broken = whole | {name: torch.full_like(whole[name], float("nan"))}
    lacking = {k: v for k, v in whole.items() if k != name}
    for tensors, message in (
        (broken, f"NaN or infinite numbers in {name}"),
        (lacking, f"lacks {name}"),
        (whole | {"surplus": torch.zeros(1)}, "holds the unexpected surplus"),
    ):
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            DMGIPipeline.from_pretrained(folder)


def test_check_loaded_passes_what_is_whole(tmp_path):
    network = mapping_network()
    save_component(network, tmp_path / "m", "a card")
    check_loaded(MappingNetwork.from_pretrained(tmp_path / "m"), tmp_path / "m" / WEIGHTS)
    shapes = check_safetensors(tmp_path / "m" / WEIGHTS)
    assert shapes == {k: list(v.shape) for k, v in network.state_dict().items()}


def test_components_are_written_with_the_modes_of_any_file(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    for card in ("first", "second"):
        save_component(generator(), tmp_path / "g", card)
    assert (tmp_path / "g" / "card.md").read_text() == "second"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "g").iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}
    names = {path.name for path in (tmp_path / "g").iterdir()}
    assert names == {"card.md", "config.json", WEIGHTS}


def test_the_index_names_what_is_there(folder, capsys):
    (folder / "model_index.json").unlink()
    shutil.rmtree(folder / "style_modulation")
    main(folder)
    assert "generator" in capsys.readouterr().out
    index = json.loads((folder / "model_index.json").read_text())
    assert index["style_modulation"] == [None, None]
    check_weights(folder)
    change(folder / "generator" / "config.json", _class_name="Evil")
    with pytest.raises(ValueError, match="expected StyleGAN2Generator or TriPlaneGenerator"):
        write_model_index(folder)
