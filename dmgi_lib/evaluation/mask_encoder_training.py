"""Trains the mask encoder, a baseline without diffusion, with the losses of stage 1.

python -m dmgi_lib.evaluation.mask_encoder_training --minutes 45
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmgi_lib.dataset import FaceDataset, default_root, to_float, to_uint8
from dmgi_lib.devices import autocast
from dmgi_lib.evaluation.baselines import MaskEncoder
from dmgi_lib.files import state_hash
from dmgi_lib.masks import PALETTE, flip_mask
from dmgi_lib.presets import MINI
from dmgi_lib.training import losses
from dmgi_lib.training.loop import LoopConfig, batch_indices, run
from dmgi_lib.weight_folder import save_component


class BaselineTrainer:
    """Trains a MaskEncoder on masks and images with the losses of stage 1.

    Args:
        encoder: untrained; starts at G's w_avg.
        G, loss_net: frozen.
        dataset: its last `held_out` identities are never trained on.
    """

    def __init__(
        self,
        encoder: MaskEncoder,
        G: Any,
        loss_net: Any,
        dataset: FaceDataset,
        weights: losses.LossWeights | None = None,
        held_out: int = 64,
    ) -> None:
        self.encoder, self.G, self.dataset = encoder, G.eval().requires_grad_(False), dataset
        self.loss_net = loss_net.eval().requires_grad_(False)
        self.weights = weights or losses.LossWeights()
        self.perceptual = losses.PerceptualLoss(self.loss_net)
        self.identity = losses.IdentityLoss(self.loss_net)
        self.parsing = losses.ParsingLoss(self.loss_net)
        self.code_prior = None
        if self.weights.code_prior:
            self.code_prior = losses.CodePrior.of(self.G, self.weights.row_growth)
        encoder.mapping.w_avg.copy_(G.mean_latent)
        known = dataset.identities.unique()
        unseen = torch.isin(dataset.identities, known[len(known) - held_out :])
        self.train_rows, self.test_rows = (~unseen).nonzero()[:, 0], unseen.nonzero()[:, 0]
        if len(self.train_rows) == 0:
            raise ValueError(
                f"holding out {held_out} of {len(known)} identities leaves none for training;"
                " use a larger data set (--data)."
            )

    def terms(self, rows: Tensor, mirrored: Tensor, encoder: nn.Module) -> dict[str, Tensor]:
        """Unweighted loss terms, each (B,)."""
        mask, target = self.dataset.masks[rows], to_float(self.dataset.images[rows])
        mask = torch.where(mirrored[:, None, None], flip_mask(mask), mask)
        target = torch.where(mirrored[:, None, None, None], target.flip(3), target)
        w = encoder(mask)
        with autocast(w.device.type), losses.SharedFeatures(self.loss_net):
            image = self.G.synthesis(w, noise_mode="const").float()
            found = {
                "l2": losses.l2_loss(image, target),
                "perceptual": self.perceptual(image, target),
                "identity": self.identity(image, target),
            }
            if self.code_prior is not None:
                found["code_prior"] = self.code_prior(w)
            if self.weights.parsing:
                found["parsing"] = self.parsing(image, mask)
            if self.weights.parts:
                found["parts"] = losses.parts_loss(image, target, mask)
        return {name: value.float() for name, value in found.items()}

    def fit(self, loop: LoopConfig) -> Any:
        """Trains through the common loop; returns its result.

        Raises:
            ValueError: run_dir holds a checkpoint of another G, loss net, data set or recipe.
        """
        rate = loop.learning_rate
        optimizer = torch.optim.Adam(self.encoder.parameters(), lr=rate, betas=(0.9, 0.99))

        def step_fn(step: int, rng: torch.Generator) -> dict[str, float]:
            picked = batch_indices(len(self.train_rows), loop.batch_size, step, loop.seed)
            mirrored = torch.rand(len(picked), generator=rng) < 0.5
            terms = self.terms(self.train_rows[picked], mirrored, self.encoder)
            weighted = [getattr(self.weights, k) * v.mean() for k, v in terms.items()]
            loss = torch.stack(weighted).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
            optimizer.step()
            return {"loss": loss.item()} | {k: v.mean().item() for k, v in terms.items()}

        modules: dict[str, nn.Module] = {"mask_encoder": self.encoder}
        optimizers: dict[str, torch.optim.Optimizer] = {"mask_encoder": optimizer}
        made_from = {
            "losses": asdict(self.weights),
            "frozen": [state_hash(network) for network in (self.G, self.loss_net)],
            "dataset": self.dataset.digest,
            "training samples": len(self.train_rows),
            "learning_rate": rate,
        }
        return run(
            loop,
            modules,
            optimizers,
            step_fn,
            ema=("mask_encoder",),
            sample_fn=self.sample_grid,
            made_from=made_from,
        )

    @torch.no_grad()
    def measure(self, encoder: nn.Module) -> dict[str, float]:
        """Mean loss terms on the held-out identities."""
        sums: dict[str, list[Tensor]] = {}
        for rows in self.test_rows.split(16):
            unchanged = torch.zeros(len(rows), dtype=torch.bool)
            for name, value in self.terms(rows, unchanged, encoder).items():
                sums.setdefault(name, []).append(value)
        return {name: torch.cat(values).mean().item() for name, values in sums.items()}

    @torch.no_grad()
    def sample_grid(self, step: int, networks: dict[str, nn.Module]) -> np.ndarray:
        """Held-out samples: x, I, I'."""
        rows = self.test_rows[:8]
        masks = self.dataset.masks[rows]
        image = self.G.synthesis(networks["mask_encoder"](masks), noise_mode="const")
        colors = torch.from_numpy(PALETTE)[masks.long()].permute(0, 3, 1, 2)
        shown = (colors.to(torch.uint8), self.dataset.images[rows], to_uint8(image))
        grid = torch.cat([torch.cat(list(column), dim=2) for column in shown], dim=1)
        return grid.permute(1, 2, 0).contiguous().numpy()


def main() -> None:
    from dmgi_lib.weight_folder import required_part

    parser = argparse.ArgumentParser(
        description="Train the mask encoder, a baseline without diffusion.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=float, default=45.0, help="budget: that of the three stages together"
    )
    parser.add_argument("--weights", type=Path, default=MINI.folder, help="pipeline folder")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    run_dir = Path("~/.cache/dmgi/runs/mask_encoder")
    parser.add_argument("--run-dir", type=Path, default=run_dir, help="checkpoint and log")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    terms = {name: d for name, d in asdict(losses.LossWeights()).items() if name != "attributes"}
    for name, default in terms.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=default, help="see losses.LossWeights")
    args = parser.parse_args()
    G = required_part(args.weights, "generator", "data_prep.priors.train_stylegan2")
    loss_net = required_part(args.weights, "loss_net", "data_prep.priors.train_recognizers")
    torch.manual_seed(args.seed)
    encoder = MaskEncoder(G.config.img_resolution, G.num_ws, len(G.mean_latent))
    terms = {name: getattr(args, name) for name in terms}
    weights = losses.LossWeights(attributes=0.0, **terms)  # nobody tells the encoder any words
    trainer = BaselineTrainer(encoder, G, loss_net, FaceDataset(args.data), weights)
    loop = LoopConfig(
        run_dir=args.run_dir.expanduser(),
        minutes=args.minutes,
        batch_size=args.batch_size,
        seed=args.seed,
        learning_rate=args.learning_rate,
        warmup_steps=50,
        cooldown=0.3,
    )
    result = trainer.fit(loop)
    numbers = trainer.measure(result.ema["mask_encoder"])
    lines = [
        "# Mask encoder, a baseline without diffusion and without text",
        "",
        "- command: `python -m dmgi_lib.evaluation.mask_encoder_training"
        f" {shlex.join(sys.argv[1:])}`",
        f"- date: {date.today().isoformat()}, seed {args.seed}, batch size {args.batch_size}",
        f"- {result.step} steps, {result.seconds / 60:.1f} minutes; losses {terms}",
        "",
        "| held-out training identities | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in numbers.items()),
    ]
    out = args.weights / "mask_encoder"
    save_component(result.ema["mask_encoder"], out, "\n".join(lines) + "\n")
    print(*lines[3:], f"wrote {out}", sep="\n")


if __name__ == "__main__":
    main()
