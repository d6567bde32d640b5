"""Training in stages: 1 mapping network M, 2 style modulation T (M frozen), 3 both across steps.

    python -m dmgi_lib.training.stages --stage 1 --minutes 15
    python -m dmgi_lib.training.stages --stage 2 --minutes 15
    python -m dmgi_lib.training.stages --stage 1 --minutes 15 --condition scribble

reads the feature cache, trains within the budget (resuming by itself), measures on held-out
identities and writes the network into the pipeline folder. E and G stay frozen.
`accelerate launch -m dmgi_lib.training.stages …` (or `torchrun --nproc_per_node 2 -m …`) does so on
several processes or GPUs. That there are stages, and supervision by I_0^d and across t, is the
paper's; the rest is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from PIL import Image
from safetensors.torch import load_file

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import machine
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.training.feature_cache import FeatureCache
from dmgi_lib.training.features import CacheConfig, Features, OnlineFeatures, PresetName
from dmgi_lib.training.loop import LoopConfig, accelerator_for
from dmgi_lib.training.run_files import card
from dmgi_lib.training.supervision import StageConfig
from dmgi_lib.training.trainer import StageTrainer
from dmgi_lib.weight_folder import (
    check_safetensors,
    load_part,
    part_name,
    required_part,
    save_component,
    write_model_index,
)

LOOP = LoopConfig(
    run_dir=Path("~/.cache/dmgi/runs/{condition}_stage{stage}"),
    minutes=15.0,
    batch_size=16,
    learning_rate=5e-4,
    warmup_steps=50,
    cooldown=0.3,
)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
def main(
    config: StageConfig,
    loop: LoopConfig = LOOP,
    weights: Path | None = None,
    preset: PresetName = "mini",
    data: Path | None = None,
    cache: Path = Path("~/.cache/dmgi/features/{condition}"),
    out: Path | None = None,
    condition: Literal["mask", "scribble"] = "mask",
    online: bool = False,
    augment: float = 0.0,
    latent_space: str = MINI.mapping.latent,
    origin: str = MINI.mapping.origin,
    pool: str = MINI.modulation.pool,
    average: str = MINI.modulation.average,
    paths: str = MINI.modulation.paths,
    pooled: int | None = None,
    codes: Path | None = None,
    code_steps: int = 1000,
    export_only: bool = False,
    device: str = "auto",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Train M (stage 1), T (stage 2) or both (stage 3) on the features of the frozen encoder.

    Args:
        config: what is trained, and how it is supervised
        loop: budget, batches and rates
        weights: pipeline folder; None: the preset's
        preset: sizes of new networks, and E where the folder holds none
        data: face dataset; None: the full one if it is built, else what ships
        cache: feature cache
        out: where to write; None: the pipeline folder
        condition: kind of x
        online: run E in the loop, without a cache
        augment: with online, share of x as if drawn by hand; a cache is built with its own
        latent_space: of a new M, see MappingConfig
        origin: of a new M
        pool: of a new T, see ModulationConfig
        average: of a new T
        paths: of a new T
        pooled: of T; None: a new one's, or as it was
        codes: of stage 1: file of codes of all training pictures, which M learns first, see
            data_prep.priors.codes; a resumed run has learnt them
        code_steps: steps of 64 that it learns them for
        export_only: write out the last checkpoint
        device: auto, cpu, cuda or mps
        dtype: of E's weights
    """
    if augment and not online:
        raise ValueError(
            f"augment came as {augment} without --online, but a stored cache has its x drawn"
            " already; build one with dmgi_lib.training.feature_cache --augment, or add --online."
        )
    stage, sizes = config.stage, PRESETS[preset]
    weights = weights or sizes.folder
    part = functools.partial(part_name, condition=condition)
    run_dir = str(loop.run_dir).replace("{condition}", condition).replace("{stage}", str(stage))
    loop = replace(loop, run_dir=Path(run_dir).expanduser())
    loop = replace(loop, minutes=0.0) if export_only else loop
    torch.manual_seed(loop.seed)  # initial weights
    T: Any = load_part(weights, part("style_modulation")) if stage > 2 else None
    if T is not None and pooled:
        T = T.with_layout(pooled)
    accelerator = accelerator_for(device)
    dataset = FaceDataset(data)
    own = (weights / "model_index.json").is_file()  # else E is the preset's released one
    pipe = DMGIPipeline.from_pretrained(weights if own else preset, dtype=getattr(torch, dtype))
    features: Features
    if online:
        made_with = CacheConfig(
            steps=config.steps or tuple(range(pipe.config.num_inference_steps)),
            num_inference_steps=pipe.config.num_inference_steps,
            guidance_scale=pipe.config.guidance_scale,
            seed=loop.seed,
            condition=condition,
            preset=preset,
            augment=augment,
        )
        pipe = pipe.to(accelerator.device)
        features = OnlineFeatures(made_with, pipe, dataset, diffusion_images=stage > 1)
    else:
        features = FeatureCache(str(cache).replace("{condition}", condition))
        features.check(dataset, pipe, condition=condition, preset=preset)
    trainer = StageTrainer(
        config,
        features,
        dataset,
        required_part(weights, "generator", "data_prep.priors.trainer stylegan2"),
        required_part(weights, "loss_net", "data_prep.priors.trainer loss_net"),
        load_part(weights, part("mapping_network")) if stage > 1 else None,
        T,
        replace(sizes.mapping, latent=latent_space, origin=origin),
        replace(
            sizes.modulation,
            pool=pool,
            average=average,
            paths=paths,
            pooled=pooled or sizes.modulation.pooled,
        ),
        accelerator,
    )
    if codes and stage == 1 and not (loop.run_dir / "checkpoint.pt").is_file():
        if "codes" not in check_safetensors(codes.expanduser()):
            raise ValueError(f"{codes} holds no codes; make it with data_prep.priors.codes.")
        left = trainer.learn_codes(load_file(codes.expanduser())["codes"], code_steps)
        print(f"codes of held-out people: {left:.0%} of their variance left open")
    before = trainer.measure({})
    result = trainer.fit(loop)
    if not accelerator.is_main_process:
        return
    numbers = trainer.measure(result.ema)
    for name, value in numbers.items():
        print(f"{name:28s} {before[name]:.4f} -> {value:.4f}")
    out = out or weights
    where = f"{accelerator.num_processes} x {machine(accelerator.device)}"
    facts = (
        f"seed {loop.seed}, batch size {loop.batch_size}, learning rate {loop.learning_rate}",
        f"{result.step} steps, {result.seconds / 60:.1f} minutes on {where}",
    )
    about = (
        f"Mean loss terms on {config.held_out} held-out training identities, per step of the"
        " reverse process (loss net, not the judges; I_0^d is the diffusion model's own image):"
    )
    command = "dmgi_lib.training.stages"
    for name, network in result.ema.items():
        configs = (config, features.config)
        text = card(name, command, facts, configs, about, "term @ step", numbers)
        save_component(network, out / part(name), text)
    picture = Image.fromarray(trainer.sample_grid(result.step, result.ema))
    picture.save(loop.run_dir / "final.png")
    if (out / "unet").is_dir() or (out / "model_index.json").is_file():
        names = ("num_inference_steps", "guidance_scale")
        write_model_index(out, **{name: getattr(features.config, name) for name in names})
    print(f"wrote {', '.join(str(out / part(name)) for name in result.ema)}")


if __name__ == "__main__":
    tyro.cli(main)
