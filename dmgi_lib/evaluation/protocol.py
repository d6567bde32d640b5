"""One row of Table 1: draw a face for every test sample and let the judges read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPModel

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.baselines import text_similarity
from dmgi_lib.evaluation.reading import Reading, summary
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.recognizers import Judges
from dmgi_lib.weight_folder import quiet_loading

JUDGED_SIZE = 128  # pixels at which the judges read; larger outputs are reduced to it
READ_AT_ONCE = 50


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
        drawn = dataset.has("scribbles")
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
    num_inference_steps: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Draw one face per prompt and mask or scribble.

    Args:
        inputs:     (B, 128, 128) class ids, or strokes.
        exit_step:  0…S-1, or -1 for the last.
        seed:       image i starts from noise of seed + i, whatever the batch size.
        batch_size: images drawn at once.
        condition:  "mask" or "scribble", what the inputs are.
        num_inference_steps: S; None: the model's own.

    Returns:
        I' (B, 3, 128, 128) in [-1, 1], and I_0^d likewise if the process ran to its end.
    """
    steps = num_inference_steps or pipe.config.num_inference_steps
    results: list[tuple[Tensor, Tensor | None]] = []
    starts = range(0, len(prompts), batch_size)
    hidden = None if len(starts) > 1 else True
    for start in tqdm(starts, desc=f"exit_step {exit_step % steps}", disable=hidden, leave=False):
        part = slice(start, start + batch_size)
        seeds = range(seed + start, seed + start + len(prompts[part]))
        visual: dict[str, Any] = {condition: list(inputs[part])}
        output = pipe(
            prompts[part],
            **visual,
            exit_step=exit_step % steps,
            num_inference_steps=steps,
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


def load_clip(folder: Path) -> CLIPModel:
    """The text-image encoder of a weights folder, in fp32, without the library's progress bar."""
    with quiet_loading():
        return CLIPModel.from_pretrained(folder / "image_encoder", dtype=torch.float32).eval()


@torch.no_grad()
def read(
    images: Tensor,
    truth: GroundTruth,
    judges: Judges,
    seed: int,
    clip: CLIPModel | None = None,
    tokenizer: Any = None,
) -> Reading:
    """Lets the judges read one row: images (N, 3, 128, 128), the i-th drawn for `truth`'s i-th.

    Args:
        seed: of the shuffle that gives every picture the mask of another sample.
        clip, tokenizer: of the CLIP score; without them there is none.

    Raises:
        ValueError: pictures and samples differ in number.
    """
    n = len(images)
    if n != len(truth.images):
        raise ValueError(
            f"{n} pictures came for {len(truth.images)} samples; expected one each. Take the"
            " samples that were drawn: truth.taken(rows)."
        )
    order = np.random.default_rng(seed).permutation(n)
    other = torch.empty(n, dtype=torch.int64)
    other[order] = torch.from_numpy(np.roll(order, 1))  # nobody keeps the own mask
    parts: list[dict[str, Tensor]] = []
    starts = range(0, n, READ_AT_ONCE)
    for start in tqdm(starts, desc="judges", disable=None, leave=False):
        part = slice(start, start + READ_AT_ONCE)
        drawn, real = images[part], truth.images[part]
        parser, identity = judges.parser, judges.identity.identity
        parsed = parser.parse(drawn)
        seen, wanted = parser.features(drawn), parser.features(real)
        found = {
            "own": metrics.confusion(parsed, truth.masks[part]),
            "shuffled": metrics.confusion(parsed, truth.masks[other[part]]),
            "embedding": parser.embedding(drawn),
            "reference": parser.embedding(real),
            "perceptual": metrics.perceptual_distance(seen, wanted),
            "ssim": metrics.ssim(drawn, real),
            "identity": metrics.identity_cosine(identity(drawn), identity(real)),
            "attributes": judges.attributes.read(drawn)[0],
            "clip": torch.empty(0),
        }
        if clip is not None:
            found["clip"] = text_similarity(clip, tokenizer, truth.prompts[part])(drawn)
        parts.append(found)
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Reading(**tensors, known=truth.attributes, claims=claimed(truth.prompts))


def score(
    images: Tensor,
    truth: GroundTruth,
    judges: Judges,
    seed: int,
    clip: CLIPModel | None = None,
    tokenizer: Any = None,
    resamples: int = 200,
) -> dict[str, Any]:
    """One row of the table as numbers with 95 % bootstrap intervals: `read`, then `summary`.

    "mIoU shuffled" scores the same images against masks of other samples: what any face gets.
    "caption attributes" is the share of what the caption names that the judge reads. "<name> low"
    and "<name> high" bound the interval over samples.

    Args:
        resamples: of the bootstrap; 0 leaves the intervals out, which saves most of the time.
    """
    return summary(read(images, truth, judges, seed, clip, tokenizer), seed, resamples)


@torch.no_grad()
def random_faces(pipe: DMGIPipeline, n: int, seed: int, part: slice = slice(None)) -> Tensor:
    """Floor: n faces of G that know neither mask nor text, (n, 3, 128, 128), or a part of them."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, pipe.generator.config.z_dim, generator=rng)[part]
    faces = [
        pipe.generator.synthesis(pipe.generator.mapping(part, None), noise_mode="const")
        for part in z.split(25)
    ]
    return torch.cat([judged_size(part) for part in faces])
