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
from transformers import CLIPModel

from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.baselines import text_similarity
from dmgi_lib.evaluation.caption_attributes import claimed
from dmgi_lib.evaluation.judges import Judges
from dmgi_lib.pipeline import DMGIPipeline

JUDGED_SIZE = 128  # pixels at which the judges read; larger outputs are reduced to it


@dataclass(frozen=True)
class GroundTruth:
    """The first view of N test identities.

    Attributes:
        images:     (N, 3, 128, 128) in [-1, 1].
        masks:      (N, 128, 128) uint8.
        attributes: (N, A) int8: 1 true, 0 false, -1 unknown.
        records:    of the data set.
        prompts:    c of each sample.
        scribbles:  (N, 128, 128); None if the data set has none.
    """

    images: Tensor
    masks: Tensor
    attributes: Tensor
    records: list[dict[str, Any]]
    prompts: list[str]
    scribbles: Any = None

    @classmethod
    def read(cls, dataset: FaceDataset, n: int) -> GroundTruth:
        """The first n identities in file order, or all if there are fewer; their first captions."""
        rows = dataset.first_views()[:n]
        records = [dataset.records[i] for i in rows.tolist()]
        drawn = (dataset.folder / "scribbles").is_dir()
        return cls(
            to_float(dataset.images[rows]),
            dataset.masks[rows],
            dataset.attributes[rows],
            records,
            [record["captions"][0] for record in records],
            dataset.scribbles[rows] if drawn else None,
        )

    def taken(self, rows: np.ndarray) -> GroundTruth:
        """The samples `rows`, in that order."""
        index = torch.from_numpy(np.ascontiguousarray(rows))
        return GroundTruth(
            self.images[index],
            self.masks[index],
            self.attributes[index],
            [self.records[i] for i in rows],
            [self.prompts[i] for i in rows],
            None if self.scribbles is None else self.scribbles[index],
        )


def draw(
    pipe: DMGIPipeline,
    prompts: list[str],
    inputs: Tensor,
    exit_step: int,
    seed: int = 0,
    batch_size: int = 25,
    condition: str = "mask",
) -> tuple[Tensor, Tensor | None]:
    """Draw one face per prompt and mask or scribble.

    Args:
        inputs:     (B, 128, 128) class ids, or strokes.
        exit_step:  0…S-1, or -1 for the last.
        seed:       image i starts from noise of seed + i, whatever the batch size.
        batch_size: images drawn at once.
        condition:  "mask" or "scribble", what the inputs are.

    Returns:
        I' (B, 3, 128, 128) in [-1, 1], and I_0^d likewise if the process ran to its end.
    """
    steps = pipe.config.num_inference_steps
    results: list[tuple[Tensor, Tensor | None]] = []
    starts = range(0, len(prompts), batch_size)
    for start in tqdm(starts, desc=f"exit_step {exit_step % steps}", disable=None, leave=False):
        part = slice(start, start + batch_size)
        seeds = range(seed + start, seed + start + len(prompts[part]))
        visual: dict[str, Any] = {condition: list(inputs[part])}
        output = pipe(
            prompts[part],
            **visual,
            exit_step=exit_step % steps,
            generator=[torch.Generator().manual_seed(s) for s in seeds],
            output_type="pt",
        )
        denoised = output.diffusion_images
        results.append(
            (judged_size(output.images), None if denoised is None else judged_size(denoised))
        )
    complete = [last for _, last in results if last is not None]
    return torch.cat([first for first, _ in results]), torch.cat(complete) if complete else None


def judged_size(images: Tensor) -> Tensor:
    """Pictures at the size that the judges read, in [-1, 1]."""
    if images.shape[-1] != JUDGED_SIZE:
        size = (JUDGED_SIZE, JUDGED_SIZE)
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(-1, 1).float()


@torch.no_grad()
def score(
    images: Tensor,
    truth: GroundTruth,
    judges: Judges,
    seed: int,
    clip: CLIPModel | None = None,
    tokenizer: Any = None,
    resamples: int = 200,
) -> dict[str, Any]:
    """One row of the table: images (N, 3, 128, 128), the i-th drawn for the i-th mask and caption.

    "mIoU shuffled" scores the same images against masks of other samples: what any face gets.
    "caption attributes" is the share of what the caption names that the judge reads. "<name> low"
    and "<name> high" bound the 95 % bootstrap interval over samples.

    Args:
        clip, tokenizer: of the CLIP score; without them there is none.
        resamples: of the bootstrap; 0 leaves the intervals out, which saves most of the time.
    """
    rng = np.random.default_rng(seed)
    n, parts = len(images), list(zip(images.split(50), truth.images.split(50), strict=True))
    parsed = torch.cat([judges.parser.parse(a) for a, _ in parts])
    order = rng.permutation(n)
    other = torch.empty(n, dtype=torch.int64)
    other[order] = torch.from_numpy(np.roll(order, 1))  # nobody keeps the own mask
    table = metrics.confusion(parsed, truth.masks)
    shuffled = metrics.confusion(parsed, truth.masks[other])
    embedding = [(judges.parser.embedding(a), judges.parser.embedding(b)) for a, b in parts]
    generated, real = (torch.cat(side) for side in zip(*embedding, strict=True))
    read = torch.cat([judges.attributes.read(a)[0] for a, _ in parts])
    claims = claimed(truth.prompts)

    def of_tables(statistic: Any) -> Any:
        return lambda rows: statistic(table[rows])

    def mean_of(values: Tensor) -> Any:
        return lambda rows: values[rows].mean().item()

    def gap(rows: Any) -> float:
        return metrics.mean_iou(table[rows]) - metrics.mean_iou(shuffled[rows])

    distance = [
        metrics.perceptual_distance(judges.parser.features(a), judges.parser.features(b))
        for a, b in parts
    ]
    cosine = [
        metrics.identity_cosine(judges.identity.identity(a), judges.identity.identity(b))
        for a, b in parts
    ]
    statistics = {
        "mIoU": of_tables(metrics.mean_iou),
        "mIoU gap": gap,
        "ACC": of_tables(metrics.pixel_accuracy),
        "perceptual distance (parser features)": mean_of(torch.cat(distance)),
        "SSIM": mean_of(torch.cat([metrics.ssim(a, b) for a, b in parts])),
        "identity cosine (shape judge)": mean_of(torch.cat(cosine)),
        "attribute accuracy": lambda rows: metrics.attribute_accuracy(
            read[rows], truth.attributes[rows]
        ),
        "caption attributes": lambda rows: metrics.attribute_accuracy(read[rows], claims[rows]),
    }
    if clip is not None:
        likes = [
            text_similarity(clip, tokenizer, truth.prompts[k : k + 50])(images[k : k + 50])
            for k in range(0, n, 50)
        ]
        statistics["CLIP score (own encoder)"] = mean_of(torch.cat(likes))
    result: dict[str, Any] = {"N": n, "mIoU shuffled": metrics.mean_iou(shuffled)}
    result["FID (parser features)"] = metrics.frechet_distance(real, generated)
    for name, statistic in statistics.items():
        result[name] = statistic(slice(None))
        if resamples:
            low, high = metrics.bootstrap_interval(statistic, n, rng, resamples=resamples)
            result |= {f"{name} low": low, f"{name} high": high}
    return result


@torch.no_grad()
def random_faces(pipe: DMGIPipeline, n: int, seed: int) -> Tensor:
    """Floor: n faces of G that know neither mask nor text, (n, 3, 128, 128)."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, pipe.generator.config.z_dim, generator=rng)
    faces = [
        pipe.generator.synthesis(pipe.generator.mapping(part, None), noise_mode="const")
        for part in z.split(25)
    ]
    return torch.cat([judged_size(part) for part in faces])
