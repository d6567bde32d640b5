"""What the training stages read: features of E for one sample, one caption and one noise.

Each entry is one reverse process, from noise, conditioned on one sample's (x, c): it holds h_t,
f_t and pooled a_t of the chosen steps and, if the process ran to its end, the image I_0^d. Entries
of a second view use the mirrored sample, another caption and other noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.constructors import PrimitiveConstructorSpec

from dmgi_lib.checks import one_of
from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import autocast
from dmgi_lib.diffusion_encoder import check_exit_step
from dmgi_lib.feature_capture import DiffusionFeatures
from dmgi_lib.files import differences, plain, state_hash
from dmgi_lib.masks import MIRRORS, PICTURES
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, MINI_3D, PRESETS
from dmgi_lib.prompts import encode_empty, encode_text, tokenize
from dmgi_lib.style_modulation import POOLS, pool_attention
from dmgi_lib.training.condition_augmentation import by_hand, check_share
from dmgi_lib.training.loop import seed_of
from dmgi_lib.weight_folder import part_name

PresetName = Literal["mini", "mini-3d", "paper"]
WHOLE = ("sample", "caption", "diffusion_image")  # what a shard holds once for all steps
STORED = torch.float16  # in shards
FROZEN = ("text_encoder", "unet", "vae")  # and a ControlNet
Rows = dict[str, torch.Tensor]  # h, f1, …, a1, …, sample, caption and diffusion_image, each (B, …)

Steps = Annotated[  # of commands: 0,2,4,7,9
    tuple[int, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="STEP,STEP,…",
        instance_from_str=lambda args: tuple(int(step) for step in args[0].split(",") if step),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]


def spread_steps(num_inference_steps: int) -> tuple[int, ...]:
    """Five steps of 0 … S-1 at equal distances, with the first and the last."""
    return tuple(sorted({round((num_inference_steps - 1) * k / 4) for k in range(5)}))


@dataclass(frozen=True)
class CacheConfig:
    """What the content of an entry depends on; a cache made with another value is refused.

    Args:
        steps: steps kept, 0 … S-1; none: five, evenly spread
        num_inference_steps: S; 0: the preset's
        guidance_scale: at most 1 turns it off; 0: the preset's
        seed: with view and sample, the seed of caption and noise
        condition: kind of x, mask or scribble
        source: reverse process from noise, or noised pictures I, which leak I and hold no I_0^d:
            only to measure how much that flatters M
        shard_size: samples a file; 0: as many as stay below a GB
        preset: whose E it is, mini (which mini-3d shares) or paper
        augment: share of entries whose x is as if drawn by hand, see `condition_augmentation`
    """

    steps: Steps = ()
    num_inference_steps: int = 0
    guidance_scale: float = 0.0
    seed: int = 0
    condition: Literal["mask", "scribble"] = "mask"
    source: Literal["reverse", "noised"] = "reverse"
    shard_size: int = 0
    preset: PresetName = "mini"
    augment: float = 0.0

    def __post_init__(self) -> None:
        sizes = PRESETS[one_of("preset", self.preset, tuple(PRESETS))]
        if sizes is MINI_3D:  # M and T of heads read the features that those of pictures do
            object.__setattr__(self, "preset", MINI.name)
        total = self.num_inference_steps or sizes.num_inference_steps
        usual = {
            "steps": spread_steps(total),
            "num_inference_steps": total,
            "guidance_scale": sizes.guidance_scale,
            "shard_size": 16 if sizes.base_model else 128,  # at 54 MB a sample of Stable Diffusion
        }
        for name, value in usual.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps came as {self.steps}; expected rising, different steps.")
        for step in self.steps:
            check_exit_step(step, self.num_inference_steps)
        one_of("condition", self.condition, ("mask", "scribble"))
        one_of("source", self.source, ("reverse", "noised"))
        check_share(self.augment)


@dataclass(frozen=True)
class CachedBatch:
    """Entries of a cache, one step each.

    sample: (B,) index into the dataset      mirrored: (B,) bool      step: (B,) 0 … S-1
    caption: (B,) which of the sample's captions was c
    h: (B, C, H, W)   f: N x (B, C_n, H_n, W_n)   maps: N x (B, 1, H'_n, W'_n), float32
    diffusion_images: (B, 3, H, W) uint8, I_0^d; None if the processes stopped early
    """

    sample: torch.Tensor
    caption: torch.Tensor
    mirrored: torch.Tensor
    step: torch.Tensor
    h: torch.Tensor
    f: tuple[torch.Tensor, ...]
    maps: tuple[torch.Tensor, ...]
    diffusion_images: torch.Tensor | None


@torch.no_grad()
def captured(
    pipe: DMGIPipeline,
    kind: str,
    text: torch.Tensor,
    x: torch.Tensor,
    steps: Sequence[int],
    *,
    generator: Sequence[torch.Generator],
    num_inference_steps: int,
    guidance_scale: float,
    leaked: torch.Tensor | None = None,
) -> tuple[list[DiffusionFeatures], torch.Tensor | None]:
    """Features of E at rising `steps`, and I_0^d (B, 3, H, W) if the last of them is S-1.

    Args:
        kind, x: "mask" or "scribble", (B, H, W) class ids or strokes.
        text: (B, L, D) hidden states.
        leaked: (B, 3, H, W) in [-1, 1], whose noised latents are read instead: then no I_0^d.
    """
    encoder, condition, vae = pipe.encoder(kind), PICTURES[kind](x), pipe.vae
    process: dict[str, Any] = {"generator": generator, "num_inference_steps": num_inference_steps}
    if leaked is not None:
        clean = vae.encode(leaked.to(vae.device, vae.dtype)).latent_dist.mode()
        clean = clean * vae.config.scaling_factor
        return encoder.noised_features(clean, text, condition, steps=steps, **process), None
    process |= {"guidance_scale": guidance_scale, "exit_step": steps[-1], "capture_steps": steps}
    empty = encode_empty(pipe.tokenizer, pipe.text_encoder)
    states = list(encoder.reverse_process(text, empty, condition, **process))
    latents = states[-1].latents
    image = None if latents is None else pipe.decode_latents(latents)
    return [state.features for state in states if state.features is not None], image


@torch.no_grad()
def encode_samples(
    config: CacheConfig,
    pipe: DMGIPipeline,
    dataset: FaceDataset,
    samples: Sequence[int],
    view: int,
) -> Rows:
    """One batch of reverse processes as a shard holds them; steps are the second axis.

    E runs where the pipeline is, with noise drawn on the CPU; the tensors come back to the CPU.
    Each sample has a generator of its own, so that an entry depends on no batch.
    """
    generators = [torch.Generator().manual_seed(seed_of(config.seed, view, i)) for i in samples]
    choices = [dataset.records[i]["captions"] for i in samples]
    picked = [
        int(torch.randint(len(captions), (1,), generator=rng))
        for captions, rng in zip(choices, generators, strict=True)
    ]
    tokens = tokenize(pipe.tokenizer, [c[k] for c, k in zip(choices, picked, strict=True)])
    text = encode_text(pipe.text_encoder, tokens.ids).to(pipe.unet.dtype)
    kind, rows, flipped = config.condition, torch.tensor(samples), view % 2 == 1
    x = getattr(dataset, f"{kind}s")[rows]
    x = by_hand(kind, MIRRORS[kind](x) if flipped else x, config.augment, generators)
    leaked = to_float(dataset.images[rows]) if config.source == "noised" else None
    if leaked is not None and flipped:
        leaked = leaked.flip(-1)
    with autocast(text.device, enabled=text.dtype == torch.float32):
        features, image = captured(
            *(pipe, kind, text, x, config.steps),
            generator=generators,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            leaked=leaked,
        )
    entry = _stacked(features, tokens.word_mask.to(text.device))
    entry |= {"sample": rows, "caption": torch.tensor(picked)}
    return entry if image is None else entry | {"diffusion_image": to_uint8(image).cpu()}


def _stacked(features: Sequence[DiffusionFeatures], word_mask: torch.Tensor) -> Rows:
    """Features of all steps as they are stored, (B, steps, …)."""
    kept = []
    for one in features:
        pooled = [pool_attention(one.a, word_mask, p) for p in POOLS]
        maps = [torch.cat(block, dim=1) for block in zip(*pooled, strict=True)]
        kept.append((one.h, *one.f, *maps))
    blocks = range(1, 1 + len(features[0].f))
    names = ["h", *(f"f{n}" for n in blocks), *(f"a{n}" for n in blocks)]
    return {
        name: torch.stack(x, dim=1).to(STORED).cpu() for name, *x in zip(names, *kept, strict=True)
    }


def encoder_facts(config: CacheConfig, pipe: DMGIPipeline) -> dict[str, Any]:
    """Config, weights, vocabulary, noise schedule, guidance and precision of E.

    augment = 0 is left out: caches from before there was augmentation are the same.
    """
    networks = {name: getattr(pipe, name) for name in FROZEN}
    networks[part_name("controlnet", config.condition)] = pipe.encoder(config.condition).controlnet
    schedule = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    words = json.dumps(pipe.tokenizer.get_vocab(), sort_keys=True)
    return plain(
        {
            "config": {k: v for k, v in asdict(config).items() if k != "augment" or v},
            "weights": {name: state_hash(network) for name, network in networks.items()},
            "vocabulary": hashlib.sha256(words.encode()).hexdigest()[:16],
            "scheduler": {"class": type(pipe.scheduler).__name__} | schedule,
            "guidance": {"guide_condition": pipe.config.guide_condition},
            "precision": {"weights": str(pipe.unet.dtype), "stored": str(STORED)},
        }
    )


def dataset_facts(dataset: FaceDataset) -> dict[str, Any]:
    """Split, size and content of a data set."""
    return {"split": dataset.split, "samples": len(dataset), "digest": dataset.digest}


def compare(folder: Path | str, made_from: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError naming all that differs. Parts that `now` lacks are not compared."""
    found = differences({part: made_from.get(part, {}) for part in now}, now)
    if found:
        raise ValueError(
            f"feature cache {folder} was made from something else: {'; '.join(found)}."
            " Delete it and build it anew, or give another --cache folder."
        )


class Features:
    """What a stage reads its entries from: a `FeatureCache`, or E itself in `OnlineFeatures`.

    Attributes:
        folder: where they are, for messages.
        manifest: what they are made from, see `encoder_facts` and `dataset_facts`.
        views, samples: (E,) of each entry; odd views are mirrored.
    """

    def __init__(
        self,
        folder: Path | str,
        config: CacheConfig,
        manifest: dict[str, Any],
        views: torch.Tensor,
        samples: torch.Tensor,
    ) -> None:
        self.folder, self.config, self.manifest = folder, config, manifest
        self.views, self.samples = views, samples
        self.steps, self.num_inference_steps = config.steps, config.num_inference_steps

    def __len__(self) -> int:
        return len(self.samples)

    def check(self, dataset: FaceDataset, pipe: DMGIPipeline | None = None, **wanted: Any) -> None:
        """Raises ValueError naming all that differs from what the features were made from.

        Args:
            pipe: holds E; None compares the data set alone.
            wanted: fields of the config that are asked for; compared with a pipe only.
        """
        now = {"dataset": dataset_facts(dataset)}
        now |= encoder_facts(replace(self.config, **wanted), pipe) if pipe else {}
        compare(self.folder, self.manifest, now)

    def keep_on(self, device: torch.device) -> None:
        """Moves what is stored to a GPU that has room for it."""

    def batch(
        self, entries: torch.Tensor, slots: torch.Tensor, pool: str = "tokens"
    ) -> CachedBatch:
        """Entries (B,) at `steps[slots]`, slots (B,); pool as in ModulationConfig."""
        rows, channel = self._read(entries, slots), POOLS.index(pool)
        blocks = range(1, 1 + sum(name.startswith("f") for name in rows))
        return CachedBatch(
            sample=rows["sample"],
            caption=rows["caption"],
            mirrored=self.views[entries] % 2 == 1,
            step=torch.tensor(self.steps)[slots],
            h=rows["h"],
            f=tuple(rows[f"f{n}"] for n in blocks),
            maps=tuple(rows[f"a{n}"][:, channel : channel + 1] for n in blocks),
            diffusion_images=rows.get("diffusion_image"),
        )

    def _read(self, entries: torch.Tensor, slots: torch.Tensor) -> Rows:
        """Entries at one step each, see `at`."""
        raise NotImplementedError


def at(name: str, x: torch.Tensor, row: Any, slot: Any) -> torch.Tensor:
    """Rows of a shard's tensor at one step each, float32 where there are steps."""
    return x[row] if name in WHOLE else x[row, slot].float()


def stacked(rows: Sequence[Rows]) -> Rows:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class OnlineFeatures(Features):
    """Features without a cache: E runs anew for every batch, for data sets too large to store.

        online = OnlineFeatures(CacheConfig(steps=(0, 9)), pipe, dataset, diffusion_images=True)
        StageTrainer(config, online, dataset, ...)

    Noise and caption of an entry stay the same from epoch to epoch, as they do in a cache.

    Args:
        config: steps that may be asked for.
        views: copies of each sample; odd ones are mirrored.
        diffusion_images: run every process to its end, for stages that need I_0^d.
        batch_size: samples per reverse process.
    """

    def __init__(
        self,
        config: CacheConfig,
        pipe: DMGIPipeline,
        dataset: FaceDataset,
        views: int = 2,
        diffusion_images: bool = False,
        batch_size: int = 16,
    ) -> None:
        manifest = encoder_facts(config, pipe) | {"dataset": dataset_facts(dataset)}
        samples = torch.arange(len(dataset)).repeat(views)
        view = torch.arange(views).repeat_interleave(len(dataset))
        super().__init__("(online)", config, manifest, view, samples)
        self.pipe, self.dataset = pipe, dataset
        self.diffusion_images, self.batch_size = diffusion_images, batch_size

    def _read(self, entries: torch.Tensor, slots: torch.Tensor) -> Rows:
        steps = [self.steps[k] for k in slots.tolist()]
        made = sorted({*steps, self.num_inference_steps - 1} if self.diffusion_images else {*steps})
        config = replace(self.config, steps=tuple(made))
        rows: list[Rows] = [{}] * len(entries)
        views = self.views[entries]
        for view in views.unique().tolist():
            for part in (views == view).nonzero()[:, 0].split(self.batch_size):
                samples = self.samples[entries[part]].tolist()
                found = encode_samples(config, self.pipe, self.dataset, samples, view)
                for row, place in enumerate(part.tolist()):
                    slot = made.index(steps[place])
                    rows[place] = {name: at(name, x, row, slot) for name, x in found.items()}
        return stacked(rows)
