"""`load_generator`: a frozen generator from a `save_pretrained` folder, .safetensors file or .pkl.

Only tensors, JSON and inert records are read; nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import inspect
import re
import reprlib
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor

from dmgi_lib.files import read_json
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.official_networks import official_config
from dmgi_lib.generators.official_pickle import read_official_pickle
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.weight_folder import check_safetensors
from dmgi_lib.whole_folder import read_folder

CLASSES: dict[str, type[ModelMixin]] = {
    "TriPlaneGenerator": TriPlaneGenerator,
    "StyleGAN2Generator": StyleGAN2Generator,
}
CONFIG_NAME = "config.json"


def load_generator(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ModelMixin:
    """Loads a generator in eval mode, without gradients to its weights.

    Args:
        path: a folder written by `save_pretrained` (config.json and one .safetensors file), or a
            .safetensors file, or an official .pkl of StyleGAN2 (stylegan2-ada-pytorch, stylegan3)
            or EG3D, from which G_ema is taken. A .safetensors file without config.json beside it
            must hold a StyleGAN2 generator in official names, bare or under `G_ema.` or `G.`; its
            sizes are read off the tensors.
        device, dtype: of its weights; half precision is loaded without a detour through fp32

    Raises:
        FileNotFoundError: the path, its config.json or its weights are missing
        ValueError: not a generator, impossible sizes, a damaged file, tensors that do not fit the
            config or are not finite in `dtype`, or a .pkl that asks for unknown names
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"no generator at {path}; expected a folder written by save_pretrained, a .safetensors"
            " file or an official .pkl."
        )
    if path.suffix == ".pkl" and path.is_file():
        key, network = read_official_pickle(path)
        source = f"{key} of {path}"
        config = official_config(network, source)
        return build_generator(config, network.state_dict(source), source, device, dtype)
    if path.is_dir():
        return read_folder(path, lambda: _load_file(path, path, device, dtype))
    if path.suffix == ".safetensors":
        folder = path.parent if (path.parent / CONFIG_NAME).is_file() else None
        return _load_file(path, folder, device, dtype)
    raise ValueError(
        f"{path} has the suffix {path.suffix!r}; expected a folder written by save_pretrained,"
        " a .safetensors file or an official .pkl."
    )


def _load_file(
    file: Path, config_folder: Path | None, device: str | torch.device, dtype: torch.dtype
) -> ModelMixin:
    config = None if config_folder is None else read_json(config_folder / CONFIG_NAME)
    if file.is_dir():
        file = _weights_in(file)
    tensors = read_safetensors(file)
    if config is None:
        tensors = _bare_names(tensors, file)
        config = {"_class_name": "StyleGAN2Generator", **stylegan2_config(tensors, file)}
    return build_generator(config, tensors, str(file), device, dtype)


def build_generator(
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    source: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ModelMixin:
    """Builds the class that `config["_class_name"]` names and fills it with `tensors`, strictly.

    Raises:
        ValueError: unknown class, bad sizes, or missing, surplus, misshapen or infinite tensors;
            `source` is named in the message
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise ValueError(
            f"the config of {source} names the class {reprlib.repr(name)}; expected one of"
            f" {sorted(CLASSES)}."
        )
    known = inspect.signature(CLASSES[name].__init__).parameters
    surplus = sorted(k for k in config if k not in known and not k.startswith("_"))
    if surplus:
        raise ValueError(f"the config of {source} has options unknown to {name}: {surplus}.")
    try:
        with torch.device("meta"):  # nothing is allocated before the tensors are known to fit
            generator = CLASSES[name](**{k: v for k, v in config.items() if not k.startswith("_")})
        generator.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"the tensors of {source} do not fit its config; does the config belong to another"
            f" model? {str(error)[:1000]}"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"the config of {source} makes no generator: {error}") from error
    generator = generator.to(device=device, dtype=dtype)
    for key, tensor in generator.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"tensor {key} of {source} holds NaN or infinite numbers in {dtype}; fetch it"
                " again, train it again, or load it in another dtype."
            )
    return generator.eval().requires_grad_(False)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; ValueError if it is damaged."""
    check_safetensors(file)
    # copies, since the file may be replaced while its tensors are in use
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


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
    embed: Tensor | None = tensors.get("mapping.embed.weight")
    read = [*torgb, tensors["mapping.fc0.weight"], *([] if embed is None else [embed])]
    if any(weight.ndim < 2 for weight in read) or tensors["mapping.w_avg"].ndim != 1:
        raise ValueError(f"{source} holds official names with tensors of another shape.")
    w_dim = len(tensors["mapping.w_avg"])
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


def _bare_names(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Drops the prefix G_ema. (preferred) or G., and with it every other network of the file."""
    for prefix in ("G_ema.", "G."):
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if inside:
            return inside
    return tensors


def _weights_in(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        return folder / SAFETENSORS_WEIGHTS_NAME
    if len(files) != 1:
        raise FileNotFoundError(
            f"{folder} holds {[f.name for f in files] or 'no .safetensors file'}; expected"
            f" {SAFETENSORS_WEIGHTS_NAME} or exactly one .safetensors file."
        )
    return files[0]
