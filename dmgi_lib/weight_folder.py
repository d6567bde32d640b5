"""On-disk format of a trained model: one diffusers-style folder of safetensors, checked on load.

    python -m dmgi_lib.weight_folder --folder dmgi_lib/weights/faces128  # (re)writes the index

model_index.json lists the components that a folder holds, with library and class.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import diffusers
import transformers
from diffusers import ModelMixin

from dmgi_lib.presets import MINI


@dataclass(frozen=True)
class Component:
    """A row of model_index.json: package and class, and what its folder must hold."""

    package: str
    class_name: str
    weights: str | None = None  # name of the safetensors file; None: no weights


COMPONENTS: dict[str, Component] = {
    "tokenizer": Component("transformers", "PreTrainedTokenizerFast"),
    "text_encoder": Component("transformers", "CLIPTextModel", "model.safetensors"),
    "vae": Component("diffusers", "AutoencoderKL", "diffusion_pytorch_model.safetensors"),
    "unet": Component("diffusers", "UNet2DConditionModel", "diffusion_pytorch_model.safetensors"),
    "controlnet": Component("diffusers", "ControlNetModel", "diffusion_pytorch_model.safetensors"),
    "controlnet_scribble": Component(
        "diffusers", "ControlNetModel", "diffusion_pytorch_model.safetensors"
    ),
    "scheduler": Component("diffusers", "DDIMScheduler"),
    "mapping_network": Component(
        "dmgi_lib", "MappingNetwork", "diffusion_pytorch_model.safetensors"
    ),
    "style_modulation": Component(
        "dmgi_lib", "StyleModulationNetwork", "diffusion_pytorch_model.safetensors"
    ),
    "mapping_network_scribble": Component(
        "dmgi_lib", "MappingNetwork", "diffusion_pytorch_model.safetensors"
    ),
    "style_modulation_scribble": Component(
        "dmgi_lib", "StyleModulationNetwork", "diffusion_pytorch_model.safetensors"
    ),
    "generator": Component("dmgi_lib", "StyleGAN2Generator", "diffusion_pytorch_model.safetensors"),
}

# What every pipeline needs; without M, T or G it still encodes, which is how their training starts.
REQUIRED = ("tokenizer", "text_encoder", "vae", "unet", "controlnet", "scheduler")
OPTIONAL = tuple(name for name in COMPONENTS if name not in REQUIRED)

CALL_DEFAULTS = ("num_inference_steps", "guidance_scale", "detail_psi")  # kept in model_index.json


def part_name(part: str, condition: str) -> str:
    """Component of "controlnet", "mapping_network" or "style_modulation" for a mask or scribble."""
    return part if condition == "mask" else f"{part}_{condition}"


def check_weights(folder: Path) -> None:
    """Checks that every component listed in model_index.json is there and whole.

    Raises:
        FileNotFoundError: folder, model_index.json or a component's file is missing.
        ValueError: a safetensors file or JSON file is truncated or unreadable.
    """
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no model_index.json, so it is no pipeline folder. Fetch the kit's"
            " weights anew (git checkout dmgi_lib/weights), or write the index of a folder of"
            f" components: python -m dmgi_lib.weight_folder --folder {folder}"
        )
    for name, entry in _read_json(index_path).items():
        if name.startswith("_") or not isinstance(entry, list) or entry[0] is None:
            continue
        if not (folder / name).is_dir():
            raise FileNotFoundError(
                f"component folder {folder / name} is missing although model_index.json lists it;"
                " fetch the weights anew (git checkout dmgi_lib/weights)."
            )
        configs = list((folder / name).glob("*.json"))
        for config in configs:
            _read_json(config)
        known = COMPONENTS.get(name)
        if known is not None and known.weights is not None:
            check_safetensors(folder / name / known.weights)


def check_safetensors(path: Path) -> None:
    """Checks a safetensors file against the sizes in its own header, without reading the tensors.

    Raises: FileNotFoundError, ValueError (truncated or no safetensors file).
    """
    mend = "Fetch it anew (git checkout dmgi_lib/weights) or train it again."
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} is missing. {mend}")
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        try:
            if size < 8 or header_size > size - 8:
                raise ValueError("header longer than the file")
            header = json.loads(file.read(header_size))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"weight file {path} ({size} bytes) is truncated or not a safetensors file"
                f" ({error}). {mend}"
            ) from error
    expected = 8 + header_size + max(ends, default=0)
    if size != expected:
        raise ValueError(
            f"weight file {path} is truncated: it has {size} bytes, its header says {expected}."
            f" {mend}"
        )


def save_component(module: ModelMixin, folder: Path, card: str) -> None:
    """Writes a trained network as fp16 safetensors with its card, whole or not at all.

    Args:
        module: left unchanged.
        folder: replaced if it exists.
        card: text of card.md: command, seed, duration, measurements.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        copy.deepcopy(module).half().save_pretrained(new)
        settings = _read_json(new / "config.json")
        settings.pop("_name_or_path", None)  # the folder that it was loaded from
        (new / "config.json").write_text(
            json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        (new / "card.md").write_text(card, encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)


def write_model_index(folder: Path, **defaults: float) -> dict:
    """Writes model_index.json for the component folders that are present; returns its content.

    Args:
        defaults: of a call, by the names of CALL_DEFAULTS; those not given stay as they are in an
            existing index, else are those of the mini preset.

    Raises FileNotFoundError if a component that every pipeline needs is absent.
    """
    index: dict = {
        "_class_name": "DMGIPipeline",
        "_diffusers_version": diffusers.__version__,
    } | {name: getattr(MINI, name) for name in CALL_DEFAULTS}
    if (folder / "model_index.json").is_file():
        old = _read_json(folder / "model_index.json")
        index |= {k: old[k] for k in CALL_DEFAULTS if k in old}
    index |= defaults
    for name, component in COMPONENTS.items():
        row: list[str | None] = [component.package, component.class_name]
        if not (folder / name).is_dir():
            if name not in OPTIONAL:
                raise FileNotFoundError(
                    f"component folder {folder / name} is missing; train it first"
                    " (python -m data_prep.priors.trainer), every pipeline needs it."
                )
            row = [None, None]
        elif name == "scheduler":
            row[1] = _read_json(folder / name / "scheduler_config.json")["_class_name"]
        elif name == "generator":
            row[1] = _read_json(folder / name / "config.json")["_class_name"]
        index[name] = row
    temporary = folder / f".model_index.{os.getpid()}.json"
    temporary.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "model_index.json")
    return index


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Loading takes about a second; the libraries' bars for each part only fill notebooks."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    shown = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, was_shown in zip(libraries, shown, strict=True):
            if was_shown:
                library.enable_progress_bar()


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; fetch the weights anew.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is truncated or no JSON ({error}); fetch it anew.") from error


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write model_index.json for a folder of trained components.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=MINI.folder, help="the pipeline folder")
    folder = parser.parse_args().folder
    present = [k for k, v in write_model_index(folder).items() if isinstance(v, list) and v[0]]
    print(f"{folder / 'model_index.json'}: {', '.join(present)}")


if __name__ == "__main__":
    main()
