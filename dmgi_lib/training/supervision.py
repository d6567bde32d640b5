"""How a stage is supervised: what I'_t is compared with, and how much each comparison counts.

That there are stages, that T is taught by I_0^d and that supervision moves across t is the paper's;
the split into terms, and their weights, are our choice (not specified in the paper's available
sources).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.captions import claimed
from dmgi_lib.checks import number, one_of
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import autocast, moved, resident, taken
from dmgi_lib.masks import CLASSES, flip_mask
from dmgi_lib.training import losses
from dmgi_lib.training.critics import Critic, judged
from dmgi_lib.training.features import CachedBatch, Steps

STAGES: dict[int, tuple[str, ...]] = {1: ("mapping_network",), 2: ("style_modulation",)}
STAGES[3] = STAGES[1] + STAGES[2]
TARGETS = ("both", "diffusion", "image", "composite")
PRECISIONS = ("auto", "fp32")
OPEN = tuple(map(CLASSES.index, ("background", "hat", "neck_l", "cloth")))
PIXELS = ("l2", "perceptual")
LAYOUT = ("parsing", "code_prior", "adversarial", "code_critic")  # terms of mixed samples


@dataclass(frozen=True)
class StageConfig:
    """What is trained and how it is supervised.

    Args:
        stage: 1 (M), 2 (T) or 3 (both)
        weights: of the loss terms
        steps: steps of the reverse process drawn from; none: all that the features hold
        schedule: of stage 3, linear or uniform, see `losses.supervision_shares`
        sampling: of steps: uniform, early or late, see `losses.step_probabilities`
        targets: of T (stages 2 and 3): both, I_0^d alone (diffusion), I alone (image), or one
            picture (composite) of I_0^d where x and c leave it open, see `open_share`, and I
            elsewhere; where one picture teaches, it has the whole share at all steps
        mixing: probability that G's own draw replaces the finest rows of w_t in training, as pSp
            mixes styles (arXiv 2008.00951); such samples are judged by `LAYOUT` alone
        mixed_from: first row that is replaced; as in pSp, 8 and later style 64 pixels and finer
        held_out: last identities of the dataset that are measured and never trained on
        precision: of G and the losses: auto, bf16 where that is fast, or fp32
    """

    stage: int
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    steps: Steps = ()
    schedule: str = "linear"
    sampling: str = "uniform"
    targets: str = "both"
    mixing: float = 0.0
    mixed_from: int = 8
    held_out: int = 64
    precision: str = "auto"

    def __post_init__(self) -> None:
        one_of("stage", self.stage, sorted(STAGES))
        one_of("schedule", self.schedule, losses.SCHEDULES)
        one_of("sampling", self.sampling, losses.SAMPLINGS)
        one_of("targets", self.targets, TARGETS)
        one_of("precision", self.precision, PRECISIONS)
        number("mixing", self.mixing, 0, 1)

    def facts(self) -> dict[str, Any]:
        """All of it. Recipes that are off are left out: checkpoints from before them are valid."""
        facts = asdict(self)
        for name in ("adversarial", "code_critic"):
            if not facts["weights"][name]:
                del facts["weights"][name]
        if not self.mixing:
            del facts["mixing"], facts["mixed_from"]
        return facts

    def autocast(self, device: torch.device) -> torch.autocast:
        return autocast(device, enabled=self.precision == "auto")


class StageTerms:
    """Compares I'_t with I, I_0^d, x and c.

    Args:
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
        self.comparisons: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "l2": losses.l2_loss,
            "perceptual": losses.PerceptualLoss(loss_net),
            "identity": losses.IdentityLoss(loss_net),
        }
        self.parsing = losses.ParsingLoss(loss_net)
        self.attributes = losses.AttributeLoss(loss_net)
        self.code_prior = None
        if config.weights.code_prior > 0:
            self.code_prior = losses.CodePrior.of(generator, config.weights.row_growth)

    def __call__(
        self,
        batch: CachedBatch,
        w: Tensor,
        image: Tensor,
        critics: Mapping[str, Critic] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Unweighted terms, each (B,), of w_t (B, num_ws, w_dim) and I'_t = G(w_t) (B, 3, H, W)."""
        weights, device = self.config.weights, image.device
        found: dict[str, Tensor] = {}
        with losses.SharedFeatures(self.loss_net), self.config.autocast(device):
            mask = self.layouts(batch, device)
            pictures = self._compared(batch, mask)
            for name, target, share, terms in pictures:
                for term in terms:
                    found[f"{term} ({name})"] = share * self.comparisons[term](image, target)
            if self.code_prior is not None:
                found["code_prior"] = self.code_prior(w)
            if weights.parsing > 0:
                found["parsing"] = self.parsing(image, mask)
            if weights.parts > 0:
                found["parts"] = losses.parts_loss(image, pictures[-1][1], mask)
            if weights.attributes > 0:
                pairs = zip(batch.sample.tolist(), batch.caption.tolist(), strict=True)
                captions = self.dataset.captions
                claims = torch.stack([self.claims(captions[i][k]) for i, k in pairs])
                found["attributes"] = self.attributes(image, moved(claims, device))
            found |= judged(critics, w, image, mask)
        return {name: value.float() for name, value in found.items()}

    def photographs(self, batch: CachedBatch, device: torch.device) -> Tensor:
        """I (B, 3, H, W) in [-1, 1]."""
        return to_float(mirrored(self.images, batch, device=device))

    def layouts(self, batch: CachedBatch, device: torch.device) -> Tensor:
        """Masks (B, H, W) of I."""
        return mirrored(self.masks, batch, flip_mask, device)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum, mean over the batch."""
        weights = asdict(self.config.weights)
        return torch.stack([weights[k.split(" ")[0]] * v.mean() for k, v in terms.items()]).sum()

    def _compared(
        self, batch: CachedBatch, mask: Tensor
    ) -> list[tuple[str, Tensor, Tensor, tuple[str, ...]]]:
        """What I'_t is compared with: name, picture, share (B,) of it, and by which terms.

        The last picture is the one whose face is right, which `parts` compares with, too.
        """
        stage, targets = self.config.stage, self.config.targets
        photograph = self.photographs(batch, mask.device)
        whole = torch.ones(len(photograph), device=mask.device)
        by_i = ("perceptual", "identity") if stage == 2 else (*PIXELS, "identity")
        if stage == 1 or targets == "image":
            return [("I", photograph, whole, by_i)]
        if batch.diffusion_images is None:
            raise ValueError("features without I_0^d came; expected those of all S steps.")
        diffusion = to_float(moved(batch.diffusion_images, mask.device))
        if targets == "diffusion":
            return [("I_0^d", diffusion, whole, PIXELS)]
        if targets == "composite":
            picture = photograph.lerp(diffusion, open_share(mask))
            return [("composite", picture, whole, (*PIXELS, "identity"))]
        text, structure = whole, whole
        if stage == 3:
            steps = moved(batch.step, mask.device)
            schedule = self.config.schedule
            text, structure = losses.supervision_shares(steps, self.num_inference_steps, schedule)
        return [("I_0^d", diffusion, text, PIXELS), ("I", photograph, structure, by_i)]


def open_share(mask: Tensor) -> Tensor:
    """How much of each pixel neither x nor c decides: (B, H, W) class ids → (B, 1, H, W), 0..1.

    They are walls, hats, necklaces and clothes, whose colours and patterns follow the starting
    noise; a face's, hair's and neck's are asked for, or go with the face. Outlines are softened by
    a box of a 26th of the picture. Our choice (not specified in the paper's available sources).
    """
    table = torch.tensor([float(k in OPEN) for k in range(len(CLASSES))], device=mask.device)
    edge = 2 * (mask.shape[-1] // 64) + 1
    return F.avg_pool2d(table[mask.long()][:, None], edge, 1, edge // 2, count_include_pad=False)


def mirrored(
    source: Any, batch: CachedBatch, flip: Any = None, device: str | torch.device = "cpu"
) -> Tensor:
    """Rows of a dataset's pictures (N, …, W) for a batch; those of mirrored entries are flipped.

    Args:
        flip: what mirrors them; None flips the last axis.
        device: of the result.
    """
    rows = taken(source, batch.sample, device)
    flipped = rows.flip(-1) if flip is None else flip(rows)
    turned = moved(batch.mirrored.view(-1, *[1] * (rows.ndim - 1)), device)
    return torch.where(turned, flipped, rows)
