"""The loss terms of a stage: what I'_t is compared with, and with which share of its supervision.

That T is taught by I_0^d and that supervision moves across t is the paper's; the split into terms
and weights is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import autocast
from dmgi_lib.masks import flip_mask
from dmgi_lib.training import losses
from dmgi_lib.training.features import CachedBatch
from dmgi_lib.training.stage_config import StageConfig


class StageTerms:
    """Compares I'_t with I, I_0^d, x and c.

    Args:
        config: the stage, its weights, targets and schedule.
        dataset: I, x and c of the samples.
        generator, loss_net: G, whose own codes make the code prior, and the recogniser; frozen.
        num_inference_steps: S of the features.
    """

    def __init__(
        self,
        config: StageConfig,
        dataset: FaceDataset,
        generator: Any,
        loss_net: Any,
        num_inference_steps: int,
    ) -> None:
        self.config, self.dataset, self.loss_net = config, dataset, loss_net
        self.num_inference_steps = num_inference_steps
        self.perceptual = losses.PerceptualLoss(loss_net)
        self.identity = losses.IdentityLoss(loss_net)
        self.parsing = losses.ParsingLoss(loss_net)
        self.attributes = losses.AttributeLoss(loss_net)
        self.code_prior = None
        if config.weights.code_prior > 0:
            self.code_prior = losses.CodePrior.of(generator, config.weights.row_growth)

    def __call__(
        self, batch: CachedBatch, w: torch.Tensor, image: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Unweighted terms, each (B,).

        Args:
            w: w_t (B, num_ws, w_dim).
            image: I'_t = G(w_t) (B, 3, H, W).
        """
        weights, stage, device = self.config.weights, self.config.stage, image.device
        target = to_float(mirrored(self.dataset.images, batch)).to(device)
        found: dict[str, torch.Tensor] = {}
        with losses.SharedFeatures(self.loss_net), autocast(device.type):
            text, structure = self._shares(batch, device)
            if stage > 1 and self.config.targets != "image":
                if batch.diffusion_images is None:
                    raise ValueError("features without I_0^d came; expected those of all S steps.")
                diffusion = to_float(batch.diffusion_images.to(device))
                found["l2 (I_0^d)"] = text * losses.l2_loss(image, diffusion)
                found["perceptual (I_0^d)"] = text * self.perceptual(image, diffusion)
            if stage == 1 or self.config.targets != "diffusion":
                if stage != 2:
                    found["l2 (I)"] = structure * losses.l2_loss(image, target)
                found["perceptual (I)"] = structure * self.perceptual(image, target)
                found["identity (I)"] = structure * self.identity(image, target)
            if self.code_prior is not None:
                found["code_prior"] = self.code_prior(w)
            mask = mirrored(self.dataset.masks, batch, flip_mask).to(device)
            if weights.parsing > 0:
                found["parsing"] = self.parsing(image, mask)
            if weights.parts > 0:
                found["parts"] = losses.parts_loss(image, target, mask)
            if weights.attributes > 0:
                pairs = zip(batch.sample.tolist(), batch.caption.tolist(), strict=True)
                claims = claimed([self.dataset.captions[i][k] for i, k in pairs])
                found["attributes"] = self.attributes(image, claims.to(device))
        return {name: value.float() for name, value in found.items()}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Weighted sum, mean over the batch."""
        weights = asdict(self.config.weights)
        return torch.stack([weights[k.split(" ")[0]] * v.mean() for k, v in terms.items()]).sum()

    def _shares(
        self, batch: CachedBatch, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of I_0^d and of I, each (B,); both whole but in stage 3."""
        if self.config.stage == 3:
            shares = losses.supervision_shares(
                batch.step, self.num_inference_steps, self.config.schedule
            )
            return shares[0].to(device), shares[1].to(device)
        whole = torch.ones(len(batch.step), device=device)
        return whole, whole


def mirrored(source: torch.Tensor, batch: CachedBatch, flip: Any = None) -> torch.Tensor:
    """Rows of a dataset tensor for a batch; those of mirrored entries are flipped.

    Args:
        source: (N, …, W) images or masks.
        flip: what mirrors them; None flips the last axis.
    """
    rows = source[batch.sample]
    flipped = rows.flip(-1) if flip is None else flip(rows)
    return torch.where(batch.mirrored.view(-1, *[1] * (rows.ndim - 1)), flipped, rows)
