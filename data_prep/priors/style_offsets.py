"""Styles of G, taught by truth: the same people rendered as photographs and as statues, elves, ...

    python -m data_prep.faces128.build --styles 150
    python -m data_prep.priors.trainer style_offsets --minutes 20

Each photograph is inverted into W+ once; then G in a style has to draw, from that code, the render
of that style. G itself stays frozen, so that codes of M and T keep their meaning. The last
identities are held out. All of it is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from data_prep.priors.recipe import Recipe, Settings, Ship, frozen, picture_grid
from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import resident, taken
from dmgi_lib.evaluation.inversion import InversionConfig, invert, pyramid_distance
from dmgi_lib.files import state_hash, write_whole
from dmgi_lib.generators import StyleGAN2Generator
from dmgi_lib.generators.styles import StyleOffsets, changed_shapes
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopResult, batch_indices
from dmgi_lib.training.losses import PerceptualLoss
from dmgi_lib.training.run_files import Logged


@dataclass(frozen=True)
class StyleOffsetsSettings(Settings):
    """Training of the styles; they are learnt in turns, a batch of one style each.

    Args:
        rank: of the change of a convolution
        inversion_steps: of Adam, for the code of each photograph
        perceptual: weight of the loss net's distance beside L1 over scales
        held_out: identities that are never trained on
    """

    minutes: float = 20.0
    batch_size: int = 4
    learning_rate: float = 1e-2
    ema_half_life_steps: float = 200.0
    rank: int = 4
    inversion_steps: int = 100
    perceptual: float = 0.5
    held_out: int = 16


class Styles(Recipe[StyleOffsetsSettings]):
    """Small changes of G's weights for each style of the face world.

    Raises:
        FileNotFoundError: no renders in styles
        ValueError: no identity is left for training
    """

    name = "style_offsets"
    averaged = ("style_offsets",)

    def build(self) -> None:
        settings, folder = self.settings, self.folders.weights
        self.G = frozen(StyleGAN2Generator, folder / "generator", "stylegan2", self.device)
        loss_net = frozen(Recognizer, folder / "loss_net", "loss_net", self.device)
        self.perceptual = PerceptualLoss(loss_net)
        self.styled = FaceDataset(self.folders.data, "styles")
        self.renders = resident(self.styled.images, self.device)
        styles = [record["style"] for record in self.styled.records]
        self.names = tuple(dict.fromkeys(styles))
        style = torch.tensor([self.names.index(name) for name in styles])
        who = self.styled.identities.tolist()
        people = [k for k, renders in sorted(Counter(who).items()) if renders == len(self.names)]
        self.person = torch.tensor([people.index(k) if k in people else -1 for k in who])
        first = {int(k): row for row, k in reversed([*enumerate(self.train_set.identities)])}
        self.photographs = self.train_set.images[[first[k] for k in people]]
        unseen = self.person >= max(len(people) - settings.held_out, 0)
        known = (self.person >= 0) & ~unseen
        every = range(len(self.names))
        self.rows_of = [torch.nonzero((style == k) & known)[:, 0] for k in every]
        self.unseen_of = [torch.nonzero((style == k) & unseen)[:, 0] for k in every]
        self.training_images = int(known.sum())
        if not all(map(len, self.rows_of)):
            raise ValueError(
                f"holding out {settings.held_out} of {len(people)} identities that are there in all"
                " styles leaves none; render more: python -m data_prep.faces128.build --styles 150"
            )
        with self.seeded():
            made_for = state_hash(self.G)
            styles = StyleOffsets(self.names, changed_shapes(self.G), settings.rank, made_for)
        self.styles = styles.to(self.device)
        optimizer = torch.optim.Adam(styles.parameters(), settings.learning_rate, (0.9, 0.99))
        self.modules, self.optimizers = {self.name: styles}, {self.name: optimizer}
        self.made_from = {
            "frozen": [made_for, state_hash(loss_net)],
            "datasets": [self.train_set.digest, self.styled.digest],
            "inversion steps": settings.inversion_steps,
            "perceptual": settings.perceptual,
        }
        self.codes = self._inverted()

    def _inverted(self) -> Tensor:
        """W+ codes of the photographs, (N, num_ws, w_dim); found once and kept beside the run."""
        path = self.folders.run_of(self.name) / "codes.safetensors"
        facts = str(self.made_from)
        if path.is_file():
            kept = load_file(path)
            if bytes(kept["made_from"].tolist()).decode() == facts:
                return kept["codes"].to(self.device)
        config = InversionConfig("W+", self.settings.inversion_steps)
        parts = []
        for part in tqdm(self.photographs.split(16), desc="inverted", disable=None):
            parts.append(invert(self.G, to_float(part), config, perceptual=self.perceptual).latents)
        codes = torch.cat(parts)
        if self.accelerator.is_main_process:
            told = torch.tensor([*facts.encode()], dtype=torch.uint8)
            kept = {"codes": codes.cpu(), "made_from": told}
            write_whole(path, lambda new: save_file(kept, new))
        return codes

    def drawn(self, styles: Any, k: int, rows: Tensor) -> Tensor:
        """The people of some renders as G draws them in style k, (B, 3, H, W)."""
        with styles.applied(self.G, {self.names[k]: 1.0}):
            return self.G.synthesis(self.codes[self.person[rows]], noise_mode="const").float()

    def distances(self, image: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """L1 over scales and the loss net's distance to some renders, each (B,)."""
        target = to_float(taken(self.renders, rows, self.device))
        return pyramid_distance(image, target, 4), self.perceptual(image, target).float()

    def step(self, step: int, rng: torch.Generator) -> Logged:
        k, turn = step % len(self.names), step // len(self.names)
        count, settings = len(self.rows_of[k]), self.settings
        picked = batch_indices(count, settings.batch_size, turn, settings.seed)
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        rows = self.rows_of[k][picked[own]]
        with self.autocast():
            l1, perceptual = self.distances(self.drawn(self.styles, k, rows), rows)
        loss = l1.mean() + settings.perceptual * perceptual.mean()
        self.update(loss, clip=1.0)
        return {"loss": loss.detach(), "L1": l1.detach().mean()}

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        """Held-out people: the photograph and G's copy, then each style's render and picture."""
        who = self.person[self.unseen_of[0][:8]]
        copies = to_uint8(self.G.synthesis(self.codes[who], noise_mode="const"))
        grid = [self.photographs[who], copies]
        for k, rows in enumerate(self.unseen_of):
            images = to_uint8(self.drawn(averaged[self.name], k, rows[: len(who)]))
            grid += [self.styled.images[rows[: len(who)]], images]
        return picture_grid(grid)

    @torch.no_grad()
    def measure(self, styles: Any) -> dict[str, float]:
        """L1 over scales to the renders of held-out people, beside what the photograph has."""
        found = {}
        for k, rows in enumerate(self.unseen_of):
            plain = self.G.synthesis(self.codes[self.person[rows]], noise_mode="const").float()
            for image, name in ((self.drawn(styles, k, rows), ""), (plain, ", photograph")):
                l1 = self.distances(image, rows)[0].mean().item()
                found[f"L1 to renders of {self.names[k]}, held-out people{name}"] = l1
        return found

    def export(self, result: LoopResult, ship: Ship) -> None:
        styles = result.ema[self.name].half().float()  # what is shipped is what is measured
        measured: Mapping[str, float] = self.measure(styles)
        ship(
            self.home(self.name),
            styles,
            "Styles of the mini world's generator",
            f"`StyleOffsets` for the generator beside it: {', '.join(self.names)}. Rank"
            f" {self.settings.rank}; photographs inverted in {self.settings.inversion_steps}"
            " steps.",
            measured,
        )
