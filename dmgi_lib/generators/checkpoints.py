"""`load_generator`: a frozen generator from a `save_pretrained` folder, .safetensors file or .pkl.

Only tensors, JSON and inert records are read; nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.official_networks import official_config
from dmgi_lib.generators.official_pickle import read_official_pickle
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator

CLASSES: dict[str, type[ModelMixin]] = {
    "TriPlaneGenerator": TriPlaneGenerator,
    "StyleGAN2Generator": StyleGAN2Generator,
}
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
CONFIG_NAME = "config.json"


def load_generator(path: str | Path) -> ModelMixin:
    """Loads a generator in fp32 on the CPU, in eval mode, without gradients to its weights.

    Args:
        path: a folder written by `save_pretrained` (config.json and one .safetensors file), or a
            .safetensors file, or an official .pkl of StyleGAN2 (stylegan2-ada-pytorch, stylegan3)
            or EG3D, from which G_ema is taken. A .safetensors file without config.json beside it
            must hold a StyleGAN2 generator in official names, bare or under `G_ema.` or `G.`; its
            sizes are read off the tensors.

    Raises:
        FileNotFoundError: the path, its config.json or its weights are missing
        ValueError: not a generator, a damaged file, tensors that do not fit the config, or a .pkl
            that asks for unknown names
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"no generator at {path}; expected a folder written by save_pretrained, a .safetensors"
            " file or an official .pkl."
        )
    if path.suffix == ".pkl" and path.is_file():
        return _load_pickle(path)
    config: dict[str, Any] | None
    if path.is_dir():
        config, file = _read_config(path / CONFIG_NAME), _weights_in(path)
    elif path.suffix == ".safetensors":
        config_path, file = path.parent / CONFIG_NAME, path
        config = _read_config(config_path) if config_path.is_file() else None
    else:
        raise ValueError(
            f"{path} has the suffix {path.suffix!r}; expected a folder written by save_pretrained,"
            " a .safetensors file or an official .pkl."
        )
    tensors = read_safetensors(file)
    if config is None:
        tensors = _bare_names(tensors, file)
        config = {"_class_name": "StyleGAN2Generator", **stylegan2_config(tensors, file)}
    return build_generator(config, tensors, str(file))


def build_generator(config: dict[str, Any], tensors: dict[str, Tensor], source: str) -> ModelMixin:
    """Builds the class that `config["_class_name"]` names and fills it with `tensors`, strictly.

    Raises:
        ValueError: unknown class, bad sizes, or missing, surplus or misshapen tensors; `source` is
            named in the message
    """
    name = config.get("_class_name")
    if name not in CLASSES:
        raise ValueError(
            f"the config of {source} names the class {name!r}; expected one of {sorted(CLASSES)}."
        )
    known = inspect.signature(CLASSES[name].__init__).parameters
    surplus = sorted(k for k in config if k not in known and not k.startswith("_"))
    if surplus:
        raise ValueError(f"the config of {source} has options unknown to {name}: {surplus}.")
    generator = CLASSES[name](**{k: v for k, v in config.items() if not k.startswith("_")})
    try:
        generator.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(
            f"the tensors of {source} do not fit its config; does the config belong to another"
            f" model? {error}"
        ) from error
    return generator.eval().requires_grad_(False)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; ValueError if it is damaged."""
    try:
        with safe_open(file, framework="pt", device="cpu") as reader:
            return {name: reader.get_tensor(name) for name in reader.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} ({file.stat().st_size} bytes) is not a whole safetensors file ({error});"
            " an interrupted download or copy? Fetch it again."
        ) from error


def stylegan2_config(tensors: dict[str, Tensor], source: str | Path) -> dict[str, int]:
    """Constructor arguments of the StyleGAN2 generator whose official tensors these are.

    Raises:
        ValueError: the names are not those of a StyleGAN2 generator with skip architecture
    """
    resolutions = sorted(
        int(m[1])
        for m in (re.fullmatch(r"synthesis\.b(\d+)\.torgb\.weight", k) for k in tensors)
        if m
    )
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", k)) for k in tensors)
    needed = {"mapping.fc0.weight", "mapping.w_avg", "synthesis.b4.const"}
    if not resolutions or not layers or not needed <= set(tensors):
        raise ValueError(
            f"{source} holds {len(tensors)} tensors such as {sorted(tensors)[:3]}; expected the"
            " official names of a StyleGAN2 generator (mapping.fc0.weight, synthesis.b4.const)."
        )
    torgb = [tensors[f"synthesis.b{r}.torgb.weight"] for r in resolutions]
    w_dim = len(tensors["mapping.w_avg"])
    embed: Tensor | None = tensors.get("mapping.embed.weight")
    channels = [weight.shape[1] for weight in torgb]
    return {
        "z_dim": tensors["mapping.fc0.weight"].shape[1] - (0 if embed is None else w_dim),
        "c_dim": 0 if embed is None else embed.shape[1],
        "w_dim": w_dim,
        "img_resolution": resolutions[-1],
        "img_channels": torgb[0].shape[0],
        "mapping_layers": layers,
        "channel_base": max(c * r for c, r in zip(channels, resolutions, strict=True)),
        "channel_max": max(channels),
    }


def _load_pickle(path: Path) -> ModelMixin:
    key, network = read_official_pickle(path)
    source = f"{key} of {path}"
    return build_generator(official_config(network, source), network.state_dict(source), source)


def _bare_names(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Drops the prefix G_ema. (preferred) or G., and with it every other network of the file."""
    for prefix in ("G_ema.", "G."):
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if inside:
            return inside
    return tensors


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; a generator folder holds {CONFIG_NAME} and {WEIGHTS_NAME}."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); copy the folder again.") from error
    return config if isinstance(config, dict) else {}


def _weights_in(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    if len(files) != 1:
        raise FileNotFoundError(
            f"{folder} holds {[f.name for f in files] or 'no .safetensors file'}; expected"
            f" {WEIGHTS_NAME} or exactly one .safetensors file."
        )
    return files[0]
