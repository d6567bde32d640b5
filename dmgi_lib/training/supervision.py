"""How a stage is supervised: what I'_t is compared with, and how much each comparison counts.

That there are stages, that T is taught by I_0^d and that supervision moves across t is the paper's;
the split into terms, and their weights, are our choice (not specified in the paper's available
sources).
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from dmgi_lib.captions import claimed
from dmgi_lib.checks import one_of
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import autocast, moved, resident, taken
from dmgi_lib.masks import flip_mask
from dmgi_lib.training import losses
from dmgi_lib.training.features import CachedBatch, Steps

STAGES: dict[int, tuple[str, ...]] = {1: ("mapping_network",), 2: ("style_modulation",)}
STAGES[3] = STAGES[1] + STAGES[2]
TARGETS = ("both", "diffusion", "image")
PRECISIONS = ("auto", "fp32")


@dataclass(frozen=True)
class StageConfig:
    """What is trained and how it is supervised.

    Args:
        stage: 1 (M), 2 (T) or 3 (both)
        weights: of the loss terms
        steps: steps of the reverse process drawn from; none: all that the features hold
        schedule: of stage 3, linear or uniform, see `losses.supervision_shares`
        sampling: of steps: uniform, early or late, see `losses.step_probabilities`
        targets: of T (stages 2 and 3): both, I_0^d alone (diffusion), or I alone (image)
        held_out: last identities of the dataset that are measured and never trained on
        precision: of G and the losses: auto, bf16 where that is fast, or fp32
    """

    stage: int
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    steps: Steps = ()
    schedule: str = "linear"
    sampling: str = "uniform"
    targets: str = "both"
    held_out: int = 64
    precision: str = "auto"

    def __post_init__(self) -> None:
        one_of("stage", self.stage, sorted(STAGES))
        one_of("schedule", self.schedule, losses.SCHEDULES)
        one_of("sampling", self.sampling, losses.SAMPLINGS)
        one_of("targets", self.targets, TARGETS)
        one_of("precision", self.precision, PRECISIONS)

    def autocast(self, device: torch.device) -> torch.autocast:
        return autocast(device, enabled=self.precision == "auto")


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
        device = generator.mean_latent.device
        self.images, self.masks = resident(dataset.images, device), resident(dataset.masks, device)
        self.claims = functools.cache(lambda caption: claimed([caption])[0])
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
        target = to_float(mirrored(self.images, batch, device=device))
        found: dict[str, torch.Tensor] = {}
        with losses.SharedFeatures(self.loss_net), self.config.autocast(device):
            text, structure = self._shares(batch, device)
            if stage > 1 and self.config.targets != "image":
                if batch.diffusion_images is None:
                    raise ValueError("features without I_0^d came; expected those of all S steps.")
                diffusion = to_float(moved(batch.diffusion_images, device))
                found["l2 (I_0^d)"] = text * losses.l2_loss(image, diffusion)
                found["perceptual (I_0^d)"] = text * self.perceptual(image, diffusion)
            if stage == 1 or self.config.targets != "diffusion":
                if stage != 2:
                    found["l2 (I)"] = structure * losses.l2_loss(image, target)
                found["perceptual (I)"] = structure * self.perceptual(image, target)
                found["identity (I)"] = structure * self.identity(image, target)
            if self.code_prior is not None:
                found["code_prior"] = self.code_prior(w)
            mask = mirrored(self.masks, batch, flip_mask, device)
            if weights.parsing > 0:
                found["parsing"] = self.parsing(image, mask)
            if weights.parts > 0:
                found["parts"] = losses.parts_loss(image, target, mask)
            if weights.attributes > 0:
                pairs = zip(batch.sample.tolist(), batch.caption.tolist(), strict=True)
                captions = self.dataset.captions
                claims = torch.stack([self.claims(captions[i][k]) for i, k in pairs])
                found["attributes"] = self.attributes(image, moved(claims, device))
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
            steps = moved(batch.step, device)
            return losses.supervision_shares(steps, self.num_inference_steps, self.config.schedule)
        whole = torch.ones(len(batch.step), device=device)
        return whole, whole


def mirrored(
    source: Any, batch: CachedBatch, flip: Any = None, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Rows of a dataset's pictures for a batch; those of mirrored entries are flipped.

    Args:
        source: (N, …, W) images or masks, on any device.
        flip: what mirrors them; None flips the last axis.
        device: of the result.
    """
    rows = taken(source, batch.sample, device)
    flipped = rows.flip(-1) if flip is None else flip(rows)
    turned = moved(batch.mirrored.view(-1, *[1] * (rows.ndim - 1)), device)
    return torch.where(turned, flipped, rows)
