"""Trains any of the networks that the method keeps frozen, and writes its weights and card.

    python -m data_prep.priors.trainer unet --minutes 45
    accelerate launch -m data_prep.priors.trainer stylegan2   # on several GPUs

A killed training goes on where it was. `train` is the same as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tqdm.auto import tqdm

from data_prep.priors.autoencoder import Autoencoder, AutoencoderSettings
from data_prep.priors.controlnet import ControlNet, ControlNetSettings
from data_prep.priors.eg3d import EG3D, EG3DSettings
from data_prep.priors.mask_encoder import MaskEncoderSettings, MaskToCode
from data_prep.priors.recipe import Folders, Precision, Recipe, Settings
from data_prep.priors.recognizers import SETTINGS as RECOGNIZERS
from data_prep.priors.recognizers import RecognizerRecipe
from data_prep.priors.style_offsets import StyleOffsetsSettings, Styles
from data_prep.priors.stylegan2 import StyleGAN2, StyleGAN2Settings
from data_prep.priors.text_image import TextImage, TextImageSettings
from data_prep.priors.unet import UNet, UNetSettings
from dmgi_lib.devices import has_fast_bf16, machine, pick_device
from dmgi_lib.training.loop import LoopConfig, LoopResult, accelerator_for, run, seed_of
from dmgi_lib.training.run_files import Logged, card
from dmgi_lib.weight_folder import save_component

NETWORKS: dict[str, tuple[type[Recipe], Settings]] = {
    **{name: (RecognizerRecipe, settings) for name, settings in RECOGNIZERS.items()},
    "stylegan2": (StyleGAN2, StyleGAN2Settings()),
    "eg3d": (EG3D, EG3DSettings()),
    "text_image": (TextImage, TextImageSettings()),
    "autoencoder": (Autoencoder, AutoencoderSettings()),
    "unet": (UNet, UNetSettings()),
    "controlnet": (ControlNet, ControlNetSettings()),
    "mask_encoder": (MaskToCode, MaskEncoderSettings()),
    "style_offsets": (Styles, StyleOffsetsSettings()),
}


def train(
    network: str,
    settings: Settings,
    folders: Folders,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> LoopResult:
    """Trains or resumes one of NETWORKS, then writes its weight folder.

    Args:
        settings:  of the class that NETWORKS names
        device:    where to compute; with several processes, accelerate decides
        precision: "auto" is bf16 autocast where that is fast

    Raises:
        FileNotFoundError: no data set, no frozen network, or minutes = 0 and no checkpoint
        ValueError:        the checkpoint is of other settings, or no such device
    """
    accelerator = accelerator_for(device)
    processes, rank = accelerator.num_processes, accelerator.process_index
    where = accelerator.device if processes > 1 else pick_device(device)
    if settings.batch_size % processes:
        raise ValueError(
            f"--batch-size came as {settings.batch_size} for {processes} processes; expected a"
            " multiple of their number."
        )
    recipe = NETWORKS[network][0](settings, folders, where, precision, accelerator)
    shared = {name: getattr(settings, name) for name in Settings.__dataclass_fields__}

    def step_fn(step: int, rng: torch.Generator, used: float) -> Logged:
        recipe.used = used
        if rank:  # noise of its own
            rng = torch.Generator().manual_seed(seed_of(rng.initial_seed(), rank))
        return recipe.step(step, rng)

    result = run(
        LoopConfig(folders.run_of(recipe.name), **shared),
        recipe.modules,
        recipe.optimizers,
        step_fn,
        ema=recipe.averaged,
        sample_fn=None if type(recipe).sample is Recipe.sample else recipe.sample,
        accelerator=accelerator,
        made_from=recipe.made_from,
    )

    seen, fast = result.step * settings.batch_size, precision == "auto" and has_fast_bf16(where)
    facts = (
        f"seed {settings.seed}, {'bf16 autocast' if fast else 'fp32'}",
        f"{result.step} steps of {settings.batch_size} images, {seen / recipe.training_images:.1f}"
        f" epochs of {recipe.training_images}",
        f"{result.seconds / 60:.1f} minutes on {machine(where)},"
        f" {seen / max(result.seconds, 1e-9):.1f} images per second",
    )

    def ship(
        folder: Path, net: Any, title: str, description: str, measured: Mapping[str, float]
    ) -> None:
        module = "data_prep.priors.trainer"
        text = card(title, module, facts, (), description, "measurement", measured)
        save_component(net, folder, text)
        tqdm.write(f"exported to {folder}")

    if accelerator.is_main_process:
        recipe.export(result, ship)
    return result


def main(arguments: list[str] | None = None) -> LoopResult:
    """The command: a network's name, then its options."""

    def command(network: str) -> Callable[..., LoopResult]:
        (recipe, defaults), usual = NETWORKS[network], Folders()

        def call(
            settings: Settings = defaults,
            folders: Folders = usual,
            device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
            precision: Precision = "auto",
            threads: int = 2,
            export_only: bool = False,
        ) -> LoopResult:
            torch.set_num_threads(threads)
            settings = replace(settings, minutes=0.0) if export_only else settings
            return train(network, settings, folders, device, precision)

        call.__annotations__["settings"] = type(defaults)
        call.__doc__ = f"""{(recipe.__doc__ or "").splitlines()[0]}

        Args:
            device: auto takes a CUDA GPU, else Apple's, else the CPU
            precision: auto is bf16 autocast where that is fast
            threads: CPU threads
            export_only: do not train, export the last checkpoint
        """
        return call

    return tyro.extras.subcommand_cli_from_dict(
        {name: command(name) for name in NETWORKS},
        args=arguments,
        prog="python -m data_prep.priors.trainer",
        description="Trains one of the networks that the method keeps frozen.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


if __name__ == "__main__":
    main()
