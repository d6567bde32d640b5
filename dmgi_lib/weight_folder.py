"""On-disk format of a trained model: one diffusers-style folder of safetensors, checked on load.

    python -m dmgi_lib.weight_folder --folder dmgi_lib/weights/faces128  # (re)writes the index

model_index.json lists the components that a folder holds, with library and class. A folder inside
of another one shares its diffusion prior, see `shares_prior`.
"""

from __future__ import annotations

import copy
import json
import reprlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
import tyro
from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open

import dmgi_lib
from dmgi_lib.files import read_json, write_text
from dmgi_lib.presets import CALL_DEFAULTS, MINI, MINI_3D, PRESETS
from dmgi_lib.whole_folder import read_folder, settle, write_folder


@dataclass(frozen=True)
class Component:
    """A row of model_index.json: the permitted classes, and what its folder must hold."""

    classes: dict[str, str]  # name -> package; the first is the usual one
    weights: str | None = SAFETENSORS_WEIGHTS_NAME  # None: no weights
    config: str = "config.json"


_CONTROLNET = Component({"ControlNetModel": "diffusers"})
_MAPPING = Component({"MappingNetwork": "dmgi_lib"})
_MODULATION = Component({"StyleModulationNetwork": "dmgi_lib"})
_TOKENIZERS = (
    *("PreTrainedTokenizerFast", "TokenizersBackend", "CLIPTokenizer", "CLIPTokenizerFast"),
)
_SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"),
    *("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"),
)
# What every pipeline needs; without M, T or G it still encodes, which is how their training starts.
REQUIRED: dict[str, Component] = {
    "tokenizer": Component(
        dict.fromkeys(_TOKENIZERS, "transformers"), None, "tokenizer_config.json"
    ),
    "text_encoder": Component({"CLIPTextModel": "transformers"}, "model.safetensors"),
    "vae": Component({"AutoencoderKL": "diffusers", "PatchAutoencoderKL": "dmgi_lib"}),
    "unet": Component({"UNet2DConditionModel": "diffusers"}),
    "controlnet": _CONTROLNET,
    "scheduler": Component(dict.fromkeys(_SCHEDULERS, "diffusers"), None, "scheduler_config.json"),
}
OPTIONAL: dict[str, Component] = {
    "controlnet_scribble": _CONTROLNET,
    "mapping_network": _MAPPING,
    "style_modulation": _MODULATION,
    "mapping_network_scribble": _MAPPING,
    "style_modulation_scribble": _MODULATION,
    "generator": Component(dict.fromkeys(("StyleGAN2Generator", "TriPlaneGenerator"), "dmgi_lib")),
    "edit_directions": Component({"EditDirections": "dmgi_lib"}),
    "style_offsets": Component({"StyleOffsets": "dmgi_lib"}),
}
COMPONENTS = REQUIRED | OPTIONAL
# What belongs to one G; a folder that shares a prior holds its own of these and nothing else.
OF_G = (
    *("mapping_network", "style_modulation", "mapping_network_scribble"),
    *("style_modulation_scribble", "generator", "mask_encoder"),
    *("edit_directions", "style_offsets"),
)

PARTS = (  # classes of `load_part`
    *("MappingNetwork", "StyleModulationNetwork", "StyleGAN2Generator", "TriPlaneGenerator"),
    *("MaskEncoder", "Recognizer", "EditDirections", "StyleOffsets"),
)


def part_name(part: str, condition: str) -> str:
    """Component of "controlnet", "mapping_network" or "style_modulation" for a mask or scribble."""
    return part if condition == "mask" else f"{part}_{condition}"


def check_weights(folder: Path) -> None:
    """Checks a pipeline folder before anything of it is imported or loaded.

    Every component that model_index.json lists must be one of COMPONENTS, of a permitted class, and
    there and whole; nothing in the folder may be code.

    Raises:
        FileNotFoundError: folder, model_index.json or a component's file is missing.
        ValueError: a safetensors file or JSON file is truncated or unreadable, or the folder names
            components or classes that no pipeline of this kit has.
    """
    index_path = folder / "model_index.json"
    untrained = {p.folder: p for p in PRESETS.values() if p.training}.get(folder)
    if untrained and not index_path.is_file():
        raise FileNotFoundError(
            f"the weights of {untrained.name!r} are not there: {folder} holds no model_index.json."
            f" Train them: {untrained.training}."
        )
    if not index_path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no model_index.json, so it is no pipeline folder. Fetch the kit's"
            " weights anew (git checkout dmgi_lib/weights), or write the index of a folder of"
            f" components: python -m dmgi_lib.weight_folder --folder {folder}"
        )
    settle(folder)
    if code := sorted(path.name for path in folder.rglob("*.py")):
        raise ValueError(
            f"{folder} holds Python files ({reprlib.repr(code)}); expected weights and settings"
            " only. Nothing was run. Remove them if you trust the rest."
        )
    for name, entry in read_json(index_path).items():
        if name in CALL_DEFAULTS:
            usual = getattr(MINI, name)
            if isinstance(entry, bool) != isinstance(usual, bool) or not isinstance(
                entry, (int, float)
            ):
                raise ValueError(
                    f"{index_path}: {name} is {reprlib.repr(entry)}; expected one like {usual}."
                )
        elif name == "_class_name":
            _check_class(entry, ("DMGIPipeline",), index_path)
        elif name in COMPONENTS:
            if entry != [None, None]:
                _check_component(folder / name, entry, COMPONENTS[name], index_path)
        elif not name.startswith("_"):
            raise ValueError(
                f"{index_path} lists the component {name!r}; expected some of {list(COMPONENTS)}."
            )


def _check_component(folder: Path, entry: Any, known: Component, index_path: Path) -> None:
    rows = [[package, class_name] for class_name, package in known.classes.items()]
    if entry not in rows:
        raise ValueError(
            f"{index_path}: {folder.name} is {reprlib.repr(entry)}; expected"
            f" {' or '.join(map(str, rows))}. Nothing was imported."
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            f"component folder {folder} is missing although model_index.json lists it; fetch the"
            " weights anew (git checkout dmgi_lib/weights)."
        )
    for path in {folder / known.config, *folder.glob("*config.json")}:
        config = read_json(path)
        if "auto_map" in config:
            raise ValueError(f"{path} names code of its own (auto_map); it is refused.")
        if path.name == known.config and entry[0] != "transformers":
            _check_class(config.get("_class_name"), (entry[1],), path)
    if known.weights is not None:
        check_safetensors(folder / known.weights)


def _check_class(came: Any, expected: tuple[str, ...], path: Path) -> None:
    if came not in expected:
        raise ValueError(
            f"{path} names the class {reprlib.repr(came)}; expected {' or '.join(expected)}."
        )


def check_safetensors(path: Path) -> dict[str, list[int]]:
    """Names and shapes of a safetensors file, which is checked without reading the tensors.

    Raises: FileNotFoundError, ValueError (truncated or no safetensors file).
    """
    mend = "Fetch it anew (git checkout dmgi_lib/weights) or train it again."
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} is missing. {mend}")
    try:
        with safe_open(path, framework="pt") as reader:
            return {name: reader.get_slice(name).get_shape() for name in reader.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"weight file {path} ({path.stat().st_size} bytes) is truncated or not a safetensors"
            f" file ({error}). {mend}"
        ) from error


def check_loaded(module: torch.nn.Module, path: Path) -> None:
    """Checks that a module has all its weights from a safetensors file, and that they are finite.

    Libraries fill what a file lacks with random numbers and ignore what they do not know.

    Raises:
        ValueError: names the first tensor that is missing, unexpected, or not finite.
    """
    stored, weights = check_safetensors(path), module.state_dict()
    for problem, names in (
        ("lacks", weights.keys() - stored.keys()),
        ("holds the unexpected", stored.keys() - weights.keys()),
        ("has NaN or infinite numbers in", {k for k, v in weights.items() if _is_broken(v)}),
    ):
        if found := sorted(name for name in names if not name.endswith("position_ids")):
            raise ValueError(
                f"{path} {problem} {found[0]} ({len(found)} such tensors) for a"
                f" {type(module).__name__}; fetch it anew or train it again."
            )


def _is_broken(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or not bool(tensor.isfinite().all())


def save_component(module: ModelMixin, folder: Path, card: str) -> None:
    """Writes a trained network as fp16 safetensors with its card, whole or not at all.

    Args:
        module: left unchanged.
        folder: replaced if it exists.
        card: text of card.md: command, seed, duration, measurements.
    """

    def write(new: Path) -> None:
        copy.deepcopy(module).half().save_pretrained(new)
        settings = read_json(new / "config.json")
        settings.pop("_name_or_path", None)  # the folder that it was loaded from
        write_text(new / "config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
        write_text(new / "card.md", card)

    write_folder(folder, write)


def shares_prior(folder: Path) -> bool:
    """Whether a folder holds M, T and G alone (see OF_G), inside of the folder that has the rest.

    So does `3d` in the folder of a model, with a generator of heads and its M and T.
    """
    return (folder.parent / "model_index.json").is_file() and not (folder / "unet").is_dir()


def write_model_index(folder: Path, **defaults: float) -> dict:
    """Writes model_index.json for the component folders that are present; returns its content.

    Args:
        defaults: of a call, by the names of CALL_DEFAULTS; those not given stay as they are in an
            existing index, else are those of the mini preset, or of mini-3d.

    Raises FileNotFoundError if a component that every pipeline needs is absent.
    """
    path = folder / "model_index.json"
    old = read_json(path) if path.is_file() else {}
    index: dict = {"_class_name": "DMGIPipeline", "_diffusers_version": diffusers.__version__}
    usual_of = MINI_3D if shares_prior(folder) else MINI
    for name in CALL_DEFAULTS:
        index[name] = defaults.get(name, old.get(name, getattr(usual_of, name)))
    for name, component in COMPONENTS.items():
        (usual, package), *others = component.classes.items()
        row: list[str | None] = [package, usual]
        if not (folder / name).is_dir():
            if name in REQUIRED and not shares_prior(folder):
                raise FileNotFoundError(
                    f"component folder {folder / name} is missing; train it first"
                    " (python -m data_prep.priors.trainer), every pipeline needs it."
                )
            row = [None, None]
        elif others and name != "tokenizer":  # whose settings name another class
            class_name = read_json(folder / name / component.config).get("_class_name")
            _check_class(class_name, tuple(component.classes), folder / name)
            row = [component.classes[str(class_name)], class_name]
        index[name] = row
    write_text(path, json.dumps(index, indent=2) + "\n")
    return index


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Loading takes about a second; the libraries' bars for each part only fill notebooks."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def load_checked(folder: Path, load: Callable[[], Any], given: Collection[str]) -> Any:
    """The pipeline that `load()` makes of a folder, checked before and after, see `check_weights`.

    Args:
        given: components that do not come from the folder.
    """

    def read() -> Any:
        check_weights(folder)
        with quiet_loading():
            pipe = load()
        for name, module in pipe.components.items():
            if isinstance(module, torch.nn.Module) and name not in given:
                check_loaded(module, folder / name / str(COMPONENTS[name].weights))
        return pipe

    return read_folder(folder, read)


def load_part(folder: Path, name: str) -> Any:
    """A trained network of a pipeline folder in fp32; None if it is not there yet.

    A folder that shares its prior shares the networks of the world as well: loss net and judges.

    Raises:
        ValueError: its weights are truncated, lack a tensor or are not finite, or it is of a class
            that no folder of this kit holds.
    """
    home = folder / name
    if not home.is_dir() and name not in OF_G and shares_prior(folder):
        home = folder.parent / name

    def read() -> ModelMixin | None:
        if not (home / "config.json").is_file():
            return None
        class_name = read_json(home / "config.json").get("_class_name")
        _check_class(class_name, PARTS, home / "config.json")
        check_safetensors(home / SAFETENSORS_WEIGHTS_NAME)
        kind = getattr(dmgi_lib, str(class_name))
        network: ModelMixin = kind.from_pretrained(home, dtype=torch.float32)
        check_loaded(network, home / SAFETENSORS_WEIGHTS_NAME)
        return network

    return read_folder(home, read)


def required_part(folder: Path, name: str, script: str) -> Any:
    """`load_part`, or FileNotFoundError naming the script that makes it."""
    part = load_part(folder, name)
    if part is None:
        raise FileNotFoundError(f"{folder / name} is missing; train it first: python -m {script}")
    return part


def main(folder: Path = MINI.folder) -> None:
    """Writes model_index.json for a folder of trained components.

    Args:
        folder: the pipeline folder.
    """
    index = write_model_index(folder)
    present = [k for k, v in index.items() if isinstance(v, list) and v[0]]
    print(f"{folder / 'model_index.json'}: {', '.join(present)}")


if __name__ == "__main__":
    tyro.cli(main)
