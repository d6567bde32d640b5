"""One stage of training: cached features → w_t → I'_t = G(w_t), compared with I and I_0^d.

Stage 1 trains M against I; stage 2 trains T against I_0^d [stated by the paper] and I, with M
frozen; stage 3 trains both, one step drawn per sample. E and G stay frozen. The comparisons are in
`supervision`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm

from dmgi_lib.checks import whole_number
from dmgi_lib.dataset import FaceDataset, resized, to_uint8
from dmgi_lib.devices import moved
from dmgi_lib.files import state_hash
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import mirrored_camera
from dmgi_lib.mapping_network import MappingConfig, MappingNetwork
from dmgi_lib.masks import MIRRORS, as_uint8
from dmgi_lib.presets import MINI
from dmgi_lib.style_modulation import (
    POOLS,
    ModulationConfig,
    StyleModulationNetwork,
    modulate,
)
from dmgi_lib.training.critics import CodeCritic, critics_for, teach
from dmgi_lib.training.features import CachedBatch, Features
from dmgi_lib.training.loop import LoopConfig, LoopResult, accelerator_for, batch_indices, run
from dmgi_lib.training.losses import drawn_codes, step_probabilities
from dmgi_lib.training.run_files import Logged
from dmgi_lib.training.supervision import LAYOUT, STAGES, StageConfig, StageTerms, mirrored

BUFFERS_FROM = 512  # entries whose statistics standardise the inputs of M and T
CRITICS_EVERY = 2  # steps; our choice, a divisor of critics.R1_INTERVAL


class StageTrainer:
    """One stage: draws cached features, makes I'_t, compares it with I and I_0^d.

    Args:
        config: see StageConfig.
        cache, dataset: the features (cached or online), and the dataset they were made from.
        generator, loss_net: G, of pictures or of heads, and the recogniser behind the losses; both
            are frozen.
        mapping_network: a trained M (stages 2 and 3); None in stage 1 starts a new one.
        style_modulation: a trained T (stage 3); None in stage 2 starts a new one.
        mapping, modulation: choices of a new M or T; sizes are taken from the features and G.
        accelerator: device and processes, see `loop.accelerator_for`; None: where the generator is.

    Raises:
        ValueError: a network or the images I_0^d that the stage needs are missing; unknown steps;
            a cache of another dataset; a G of heads, but samples without a camera; mixed_from is no
            row of G but the first.
    """

    def __init__(
        self,
        config: StageConfig,
        cache: Features,
        dataset: FaceDataset,
        generator: Any,
        loss_net: Any,
        mapping_network: MappingNetwork | None = None,
        style_modulation: StyleModulationNetwork | None = None,
        mapping: MappingConfig = MINI.mapping,
        modulation: ModulationConfig = MINI.modulation,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.accelerator = accelerator or accelerator_for(generator.mean_latent.device)
        self.device = self.accelerator.device
        self.config, self.cache, self.dataset = config, cache, dataset
        self.image_size = dataset.images[:1].shape[-1]
        cache.check(dataset)
        for network in (generator, loss_net):
            network.eval().requires_grad_(False).to(self.device)
        self.generator, self.loss_net = generator, loss_net
        self.cameras = dataset.cameras if isinstance(generator, TriPlaneGenerator) else None
        self.slots = _slots(cache, config.steps)
        steps = [cache.steps[k] for k in self.slots.tolist()]
        self.chances = step_probabilities(steps, cache.num_inference_steps, config.sampling)
        self.train_entries, self.test_entries = _split(cache, dataset, config.held_out)
        first = self.train_entries[:BUFFERS_FROM]
        sample = cache.batch(first, self.slots[torch.arange(len(first)) % len(self.slots)])
        if config.stage > 1 and config.targets != "image" and sample.diffusion_images is None:
            raise ValueError(
                f"stage {config.stage} is supervised by I_0^d, but the cache {cache.folder}"
                " stopped before the last step; build one whose --steps include it."
            )
        if config.stage > 1 and mapping_network is None:
            raise ValueError(f"stage {config.stage} needs a trained mapping_network; run stage 1.")
        if config.stage == 3 and style_modulation is None:
            raise ValueError("stage 3 needs a trained style_modulation; run stage 2.")
        if config.mixing:
            whole_number("mixed_from", config.mixed_from, 1, generator.num_ws - 1)
        sizes: dict[str, Any] = {"num_ws": generator.num_ws, "w_dim": len(generator.mean_latent)}
        if mapping_network is None:  # starts at the mean face
            found = {"in_channels": sample.h.shape[1], "in_resolution": sample.h.shape[2]}
            mapping_network = MappingNetwork(**(asdict(mapping) | sizes | found))
            mapping_network.calibrate(generator.mean_latent.cpu(), sample.h)
        self.networks: dict[str, Any] = {"mapping_network": mapping_network}
        if config.stage > 1:
            if style_modulation is None:  # starts by changing nothing
                sizes["in_channels"] = tuple(f.shape[1] for f in sample.f)
                sizes["resolution"] = max(f.shape[2] for f in sample.f)
                style_modulation = StyleModulationNetwork(**(asdict(modulation) | sizes))
                style_modulation.calibrate(sample.f, sample.maps)
            self.networks["style_modulation"] = style_modulation
        for name, network in self.networks.items():
            network.train().requires_grad_(name in STAGES[config.stage]).to(self.device)
        cache.keep_on(self.device)
        self.terms = StageTerms(config, dataset, generator, loss_net, cache.num_inference_steps)

    @property
    def trained(self) -> dict[str, Any]:
        return {name: self.networks[name] for name in STAGES[self.config.stage]}

    def codes(self, batch: CachedBatch, networks: dict[str, nn.Module]) -> torch.Tensor:
        """w_t (B, num_ws, w_dim) = w_t^m, or w_t^m ⊙ w_t^γ ⊕ w_t^β from stage 2 on."""
        w = networks["mapping_network"](moved(batch.h, self.device))
        if "style_modulation" in networks:
            f, maps = ([moved(x, self.device) for x in xs] for xs in (batch.f, batch.maps))
            w = modulate(w, *networks["style_modulation"](f, maps))
        return w

    def draw(self, w: torch.Tensor, batch: CachedBatch) -> torch.Tensor:
        """I' = G(w) (B, 3, H, W), float32, of I's size: a G of 1024 px meets pictures of 512.

        A G of heads sees them by the cameras of the samples, mirrored where these are.
        """
        with self.config.autocast(w.device):
            if self.cameras is None:
                image = self.generator.synthesis(w, noise_mode="const").float()
            else:
                c = self.cameras[batch.sample]
                c = torch.where(batch.mirrored[:, None], mirrored_camera(c), c)
                c = moved(c, w.device)
                image = self.generator.synthesis(w, c, noise_mode="const").image.float()
        return resized(image, self.image_size)

    def _mixed(
        self, w: torch.Tensor, batch_size: int, own: slice, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which samples (B,) are mixed, and w_t with G's own draws in their finest rows.

        Args:
            batch_size, own: of all processes, and this one's part of it.
        """
        if not self.config.mixing:
            return torch.zeros(len(w), dtype=torch.bool, device=w.device), w
        chosen = torch.rand(batch_size, generator=rng)[own] < self.config.mixing
        drawn, chosen = drawn_codes(self.generator, batch_size, rng)[own], moved(chosen, w.device)
        fine = torch.arange(w.shape[1], device=w.device) >= self.config.mixed_from
        return chosen, torch.where(chosen[:, None, None] & fine[:, None], drawn[:, None].to(w), w)

    def learn_codes(self, codes: torch.Tensor, steps: int = 1000, rate: float = 1e-3) -> float:
        """Moves M towards known codes of the pictures I, before it draws any (our choice).

        Such a step costs milliseconds. Mirrored entries are left out.

        Args:
            codes: (N, num_ws, w_dim), of every sample of the dataset

        Returns:
            Share of the codes' variance that M leaves open on held-out people.

        Raises:
            ValueError: codes of another shape.
        """
        M, G = self.networks["mapping_network"], self.generator
        wanted = (len(self.dataset), G.num_ws, len(G.mean_latent))
        if tuple(codes.shape) != wanted:
            raise ValueError(
                f"codes came as {tuple(codes.shape)}; expected {wanted}, one of each sample of"
                f" {self.dataset.folder} for this generator."
            )

        def known(entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            plain = entries[self.cache.views[entries] % 2 == 0].repeat(len(self.slots))
            slots = self.slots.repeat_interleave(len(plain) // len(self.slots))
            pairs = zip(plain.split(64), slots.split(64), strict=True)
            parts = [self.cache.batch(*pair) for pair in pairs]
            sample = torch.cat([part.sample for part in parts])
            return torch.cat([part.h for part in parts]), codes[sample]

        h, w = known(self.train_entries)
        optimizer = torch.optim.Adam(M.parameters(), rate, (0.9, 0.99))
        bar = tqdm(range(steps), desc="codes", disable=None)
        for step in bar:
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            rows = batch_indices(len(h), 64, step, 0)
            found = M(moved(h[rows], self.device))
            loss = (found - moved(w[rows], self.device)).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        h, w = known(self.test_entries)
        with torch.no_grad():
            found = M(moved(h, self.device)).cpu()
        return float((found - w).square().sum() / (w - w.mean(0)).square().sum())

    def made_from(self, loop: LoopConfig) -> dict[str, Any]:
        """All that decides what is learnt; a checkpoint of anything else is refused."""
        frozen = {k: net for k, net in self.networks.items() if k not in self.trained}
        frozen |= {"generator": self.generator, "loss_net": self.loss_net}
        choices = {
            name: {k: v for k, v in net.config.items() if not k.startswith("_")}
            for name, net in self.trained.items()
        }
        rates = ("learning_rate", "warmup_steps", "cooldown", "ema_half_life_steps")
        return {
            "config": self.config.facts(),
            "networks": choices,
            "frozen": {name: state_hash(network) for name, network in frozen.items()},
            "features": self.cache.manifest | {"entries": len(self.cache)},
            "optimisation": {name: getattr(loop, name) for name in rates},
        }

    def fit(self, loop: LoopConfig) -> LoopResult:
        """Trains through the common loop; the result's `ema` holds the averaged networks.

        Each of several processes takes its share of every batch, and gradients are averaged, so
        their number changes nothing but the time.

        Raises:
            ValueError: the batch cannot be shared evenly; run_dir holds a checkpoint of another
                stage, config, cache, or of other frozen networks.
        """
        accelerator = self.accelerator
        processes = accelerator.num_processes
        own = slice(accelerator.process_index, None, processes)
        if loop.batch_size % processes:
            raise ValueError(
                f"batch_size came as {loop.batch_size} for {processes} processes; expected a"
                " multiple of their number."
            )
        rate, fused = loop.learning_rate, self.device.type == "cuda"
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(net.parameters(), rate, (0.9, 0.99), fused=fused)
            for name, net in self.trained.items()
        }
        shared = {name: accelerator.prepare_model(net) for name, net in self.trained.items()}
        critics = critics_for(self.config.weights, self.generator, self.loss_net, loop.seed)
        teachers: dict[str, torch.optim.Optimizer] = {  # as for StyleGAN2's discriminator
            name: torch.optim.Adam(critic.parameters(), critic.learning_rate, (0.0, 0.99))
            for name, critic in critics.items()
        }

        def step_fn(step: int, rng: torch.Generator, used: float) -> Logged:
            picked = batch_indices(len(self.train_entries), loop.batch_size, step, loop.seed)
            drawn = torch.multinomial(self.chances, loop.batch_size, True, generator=rng)
            picked, drawn = picked[own], drawn[own]
            batch = self._batch(self.train_entries[picked], self.slots[drawn])
            w = self.codes(batch, self.networks | shared)
            mixed, shown = self._mixed(w, loop.batch_size, own, rng)
            image = self.draw(shown, batch)
            terms = self.terms(batch, w, image, critics)
            if self.config.mixing:
                terms = {k: v if k in LAYOUT else v * ~mixed for k, v in terms.items()}
            loss = self.terms.total(terms)
            for optimizer in optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            for network in self.trained.values():
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for optimizer in optimizers.values():
                optimizer.step()
            log = {"loss": loss.detach()} | {k: v.detach().mean() for k, v in terms.items()}
            for name, critic in critics.items() if step % CRITICS_EVERY == 0 else ():
                examples: tuple[torch.Tensor, ...]
                if isinstance(critic, CodeCritic):
                    examples = critic.examples(w, rng)
                else:
                    photographs = self.terms.photographs(batch, w.device)
                    examples = photographs, image.detach(), self.terms.layouts(batch, w.device)
                precision = self.config.autocast(w.device)
                said = teach(critic, teachers[name], examples, step, accelerator, precision)
                log |= {f"{name} critic {what}": value for what, value in said.items()}
            return log

        return run(
            loop,
            self.trained | critics,
            optimizers | teachers,
            step_fn,
            ema=tuple(self.trained),
            sample_fn=self.sample_grid,
            accelerator=accelerator,
            made_from=self.made_from(loop),
        )

    @torch.no_grad()
    def measure(self, networks: dict[str, nn.Module], batch_size: int = 16) -> dict[str, float]:
        """Mean loss terms of held-out identities for each step, as "term @ step"."""
        networks = self.networks | networks
        result: dict[str, float] = {}
        for slot in self.slots:
            found: list[dict[str, torch.Tensor]] = []
            for entries in self.test_entries.split(batch_size):
                batch = self._batch(entries, slot.expand_as(entries))
                w = self.codes(batch, networks)
                found.append(self.terms(batch, w, self.draw(w, batch)))
            for name in found[0]:
                mean = torch.cat([terms[name] for terms in found]).mean().item()
                result[f"{name} @ {self.cache.steps[slot]}"] = mean
        return result

    @torch.no_grad()
    def sample_grid(self, step: int, networks: dict[str, nn.Module]) -> np.ndarray:
        """Held-out samples: x, I, I_0^d if there is one, I'_t at the first and at the last step."""
        entries = self.test_entries[:8]
        columns: list[torch.Tensor] = []
        for slot in (self.slots[0], self.slots[-1]):
            batch = self._batch(entries, slot.expand_as(entries))
            image = self.draw(self.codes(batch, self.networks | networks), batch)
            image = to_uint8(image).cpu()
            if not columns:
                kind = self.cache.config.condition
                x = mirrored(getattr(self.dataset, f"{kind}s"), batch, MIRRORS[kind])
                columns += [as_uint8(kind, x), mirrored(self.dataset.images, batch)]
                if batch.diffusion_images is not None:
                    columns.append(batch.diffusion_images.cpu())
            columns.append(image)
        grid = torch.cat([torch.cat(list(column), dim=2) for column in columns], dim=1)
        return grid.permute(1, 2, 0).contiguous().numpy()

    def _batch(self, entries: torch.Tensor, slots: torch.Tensor) -> CachedBatch:
        """With the maps that T reads."""
        t = self.networks.get("style_modulation")
        return self.cache.batch(entries, slots, POOLS[0] if t is None else t.config.pool)


def _slots(cache: Features, steps: tuple[int, ...]) -> torch.Tensor:
    """Positions of `steps` in the cache; all of them if empty."""
    missing = set(steps) - set(cache.steps)
    if missing:
        raise ValueError(
            f"steps {sorted(missing)} are not in the cache {cache.folder}, which holds"
            f" {cache.steps}."
        )
    return torch.tensor([k for k, s in enumerate(cache.steps) if not steps or s in steps])


def _split(
    cache: Features, dataset: FaceDataset, held_out: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cache entries for training, and the unmirrored ones of the last cached identities."""
    identity = dataset.identities[cache.samples]
    unseen = torch.isin(identity, identity.unique()[-held_out:])
    train, test = (torch.nonzero(x)[:, 0] for x in (~unseen, unseen & (cache.views == 0)))
    if len(train) == 0:
        raise ValueError(
            f"holding out {held_out} identities leaves none of {len(cache)} cache entries for"
            " training; hold out fewer or cache more samples."
        )
    return train, test
