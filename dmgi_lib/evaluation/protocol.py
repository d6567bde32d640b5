"""One row of Table 1: draw a face for every test sample and let the judges read it.

Every distance is named after the network it rests on; none is the paper's FID, LPIPS or ID, so
compare rows with rows, never with the paper's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.judges import Judges
from dmgi_lib.pipeline import DMGIPipeline

JUDGED_SIZE = 128  # pixels at which the judges read; larger outputs are reduced to it


@dataclass(frozen=True)
class GroundTruth:
    """The first view of N test identities. images: (N, 3, 128, 128) in [-1, 1]."""

    images: Tensor
    masks: Tensor  # (N, 128, 128) uint8
    attributes: Tensor  # (N, 40) int8
    records: list[dict[str, Any]]

    @classmethod
    def read(cls, dataset: FaceDataset, n: int) -> GroundTruth:
        """The first n identities in file order, or all if there are fewer."""
        rows = dataset.first_views()[:n]
        return cls(
            to_float(dataset.images[rows]),
            dataset.masks[rows],
            dataset.attributes[rows],
            [dataset.records[i] for i in rows.tolist()],
        )


def draw(
    pipe: DMGIPipeline,
    prompts: list[str],
    masks: Tensor,
    exit_step: int,
    seed: int = 0,
    batch_size: int = 25,
) -> tuple[Tensor, Tensor | None]:
    """Draw one face per prompt and mask.

    Args:
        masks:      (B, 128, 128) class ids.
        exit_step:  0…S-1, or -1 for the last.
        seed:       image i starts from noise of seed + i, whatever the batch size.
        batch_size: images drawn at once.

    Returns:
        I' (B, 3, 128, 128) in [-1, 1], and I_0^d likewise if the process ran to its end.
    """
    steps = pipe.config.num_inference_steps
    results: list[tuple[Tensor, Tensor | None]] = []
    starts = range(0, len(prompts), batch_size)
    for start in tqdm(starts, desc=f"exit_step {exit_step % steps}", disable=None, leave=False):
        part = slice(start, start + batch_size)
        seeds = range(seed + start, seed + start + len(prompts[part]))
        output = pipe(
            prompts[part],
            mask=list(masks[part]),
            exit_step=exit_step % steps,
            generator=[torch.Generator().manual_seed(s) for s in seeds],
            output_type="pt",
        )
        denoised = output.diffusion_images
        results.append((_judged(output.images), None if denoised is None else _judged(denoised)))
    complete = [last for _, last in results if last is not None]
    return torch.cat([first for first, _ in results]), torch.cat(complete) if complete else None


def _judged(images: Tensor) -> Tensor:
    if images.shape[-1] != JUDGED_SIZE:
        size = (JUDGED_SIZE, JUDGED_SIZE)
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(-1, 1).float()


@torch.no_grad()
def score(images: Tensor, truth: GroundTruth, judges: Judges, seed: int) -> dict[str, Any]:
    """One row of the table: images (N, 3, 128, 128), the i-th drawn for the i-th mask and caption.

    "mIoU shuffled" scores the same images against masks of other samples: what any face gets.
    """
    rng = np.random.default_rng(seed)
    parts = list(zip(images.split(50), truth.images.split(50), strict=True))
    parsed = torch.cat([judges.parser.parse(a) for a, _ in parts])
    order = rng.permutation(len(images))
    other = torch.empty(len(images), dtype=torch.int64)
    other[order] = torch.from_numpy(np.roll(order, 1))  # nobody keeps the own mask
    table = metrics.confusion(parsed, truth.masks)
    shuffled = metrics.confusion(parsed, truth.masks[other])

    def gap(rows: Any) -> float:
        return metrics.mean_iou(table[rows]) - metrics.mean_iou(shuffled[rows])

    n = len(images)
    read = torch.cat([judges.attributes.read(a)[0] for a, _ in parts])
    distance = [
        metrics.perceptual_distance(judges.parser.features(a), judges.parser.features(b))
        for a, b in parts
    ]
    cosine = [
        metrics.identity_cosine(judges.identity.identity(a), judges.identity.identity(b))
        for a, b in parts
    ]
    embedding = [(judges.parser.embedding(a), judges.parser.embedding(b)) for a, b in parts]
    generated, real = (torch.cat(side) for side in zip(*embedding, strict=True))
    return {
        "mIoU": metrics.mean_iou(table),
        "mIoU interval": metrics.bootstrap_interval(
            lambda i: metrics.mean_iou(table[i]), n, rng, resamples=200
        ),
        "mIoU shuffled": metrics.mean_iou(shuffled),
        "mIoU gap": gap(slice(None)),
        "mIoU gap interval": metrics.bootstrap_interval(gap, n, rng, resamples=200),
        "ACC": metrics.pixel_accuracy(table),
        "FID (parser features)": metrics.frechet_distance(real, generated),
        "perceptual distance (parser features)": torch.cat(distance).mean().item(),
        "SSIM": torch.cat([metrics.ssim(a, b) for a, b in parts]).mean().item(),
        "identity cosine (shape judge)": torch.cat(cosine).mean().item(),
        "attribute accuracy": metrics.attribute_accuracy(read, truth.attributes),
    }


@torch.no_grad()
def random_faces(pipe: DMGIPipeline, n: int, seed: int) -> Tensor:
    """Floor: n faces of G that know neither mask nor text, (n, 3, 128, 128)."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, pipe.generator.config.z_dim, generator=rng)
    faces = [
        pipe.generator.synthesis(pipe.generator.mapping(part, None), noise_mode="const")
        for part in z.split(25)
    ]
    return torch.cat([_judged(part) for part in faces])
