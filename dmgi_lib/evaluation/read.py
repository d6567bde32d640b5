"""Second act of the evaluation: the judges read pictures into a table with a row a sample.

    reading = read(pictures, truth, judges, seed=0)
    reading.samples            # pandas: distances, attributes seen, true and claimed
    reading.value("mIoU")      # a column of Table 1

Kept sample by sample, so that intervals, and differences between two rows on the same samples, can
be had without drawing or reading again. No column rests on Inception, LPIPS-VGG or ArcFace, so none
bears the bare name FID, LPIPS or ID; compare rows with rows, never with the paper's numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPModel

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import ATTRIBUTES, to_uint8
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.baselines import text_similarity
from dmgi_lib.evaluation.draw import Row, draw_to_disk
from dmgi_lib.evaluation.samples import GroundTruth, others
from dmgi_lib.files import sweep, write_whole
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import Judges
from dmgi_lib.weight_folder import quiet_loading

READ_AT_ONCE = 50
SHOWN = 8  # pictures of a row in the figure
FID = "FID (parser features)"
PERCEPTUAL = "perceptual distance (parser features)"
SSIM = "SSIM"
IDENTITY = "identity cosine (shape judge)"
ACC = "ACC"
MIOU = "mIoU"
CAPTION = "caption attributes"
CLIP = "CLIP score (own encoder)"
KID = "KID (parser features)"
BACKGROUND = "deviation of background colour"
EDGES = "edge energy"
GLASSES = "share with glasses"
COLUMNS = (FID, KID, PERCEPTUAL, SSIM, IDENTITY, ACC, MIOU, CAPTION, CLIP, BACKGROUND, EDGES)
LOWER_IS_BETTER = (FID, KID, PERCEPTUAL)
CENTRED = (FID, KID)  # what repetition in a set raises, see `report.interval`
NUMBERS = ("ssim", "perceptual", "identity", "clip", "edges")
RGB = ("background red", "background green", "background blue")
ARRAYS = ("own", "shuffled", "embedding", "reference")


@dataclass(frozen=True)
class Reading:
    """N pictures, the i-th drawn for the i-th mask (or scribble) and caption.

    The arrays are those that a table of numbers cannot hold: counts and features of each sample,
    which mIoU and Fréchet distances of resampled sets are made of.

    Attributes:
        samples:   a row a sample: "sample" (its id), "ssim", "perceptual" and "identity" (to its
            own I), "clip" (to its caption; absent if no text-image encoder was at hand), "edges"
            (`metrics.edge_energy`); RGB, the mean colour of what the parser takes for background
            (NaN if there is none); and for each attribute A "sees A" (bool, the judge), "is A" and
            "says A" (int8, true of the sample and named by its caption: 1 true, 0 false, -1 unknown
            or not named, or not read by the judge).
        own:       (N, 19, 19) pixel counts, wanted class x parsed class (`metrics.confusion`).
        shuffled:  the same against the masks of other samples: what any face gets.
        embedding: (N, D) parser's embedding of the pictures; `reference`: of the samples' own I.
    """

    samples: pd.DataFrame
    own: Tensor
    shuffled: Tensor
    embedding: Tensor
    reference: Tensor

    def __len__(self) -> int:
        return len(self.own)

    @cached_property
    def attributes(self) -> Tensor:
        """(N, A) bool, what the judge sees."""
        return self._tensor([f"sees {name}" for name in ATTRIBUTES])

    @cached_property
    def glasses(self) -> Tensor:
        """(N,) bool, whether the judge sees spectacles or sunglasses."""
        seen = [f"sees {name}" for name in ("Eyeglasses", "Sunglasses")]
        return self._tensor(seen).any(dim=1)

    @cached_property
    def known(self) -> Tensor:
        """(N, A) int8, what is true of the samples."""
        return self._tensor([f"is {name}" for name in ATTRIBUTES])

    @cached_property
    def claims(self) -> Tensor:
        """(N, A) int8, what the captions name."""
        return self._tensor([f"says {name}" for name in ATTRIBUTES])

    @cached_property
    def background(self) -> Tensor:
        """(N, 3) mean colours of the background, in [-1, 1]; NaN where a picture has none."""
        return self._tensor(list(RGB))

    @cached_property
    def numbers(self) -> dict[str, Tensor]:
        """Column → (N,), of those that are means over samples."""
        return {name: self._tensor(name) for name in NUMBERS if name in self.samples}

    def value(self, name: str, rows: Any = slice(None)) -> float:
        """A statistic of STATISTICS over the samples `rows`, all of them by default."""
        return STATISTICS[name](self, rows)

    def first(self, n: int) -> Reading:
        """The first n samples, to compare with a row that has no more."""
        return Reading(self.samples[:n], **{name: getattr(self, name)[:n] for name in ARRAYS})

    def _tensor(self, columns: Any) -> Tensor:
        return torch.tensor(self.samples[columns].to_numpy())


Statistic = Callable[[Reading, Any], float]

STATISTICS: dict[str, Statistic] = {
    FID: lambda r, i: metrics.frechet_distance(r.reference[i], r.embedding[i]),
    PERCEPTUAL: lambda r, i: r.numbers["perceptual"][i].mean().item(),
    SSIM: lambda r, i: r.numbers["ssim"][i].mean().item(),
    IDENTITY: lambda r, i: r.numbers["identity"][i].mean().item(),
    ACC: lambda r, i: metrics.pixel_accuracy(r.own[i]),
    MIOU: lambda r, i: metrics.mean_iou(r.own[i]),
    CAPTION: lambda r, i: metrics.attribute_accuracy(r.attributes[i], r.claims[i]),
    CLIP: lambda r, i: r.numbers["clip"][i].mean().item(),
    KID: lambda r, i: metrics.kernel_distance(r.reference[i], r.embedding[i]),
    BACKGROUND: lambda r, i: metrics.deviation(r.background[i]),
    EDGES: lambda r, i: r.numbers["edges"][i].mean().item(),
    GLASSES: lambda r, i: r.glasses[i].double().mean().item(),
    "mIoU shuffled": lambda r, i: metrics.mean_iou(r.shuffled[i]),
    "mIoU gap": lambda r, i: metrics.mean_iou(r.own[i]) - metrics.mean_iou(r.shuffled[i]),
    "attribute accuracy": lambda r, i: metrics.attribute_accuracy(r.attributes[i], r.known[i]),
}


def load_clip(folder: Path) -> CLIPModel:
    """The text-image encoder of a weights folder, in fp32, without the library's progress bar."""
    with quiet_loading():
        return CLIPModel.from_pretrained(folder / "image_encoder", dtype=torch.float32).eval()


def on_device(judges: Judges, device: torch.device) -> Judges:
    """The judges there; they read in fp32, whatever the pipeline draws in."""
    parts = (judges.parser, judges.attributes, judges.identity)
    return Judges(*(part.to(device) for part in parts))


@torch.no_grad()
def seen(
    drawn: Tensor, real: Tensor, masks: Tensor, shuffled: Tensor, judges: Judges
) -> dict[str, Tensor]:
    """What the judges see of pictures and of the samples' own, on the CPU.

    Pictures (B, 3, 128, 128) in [-1, 1]; masks (B, 128, 128) of the samples, and of others.
    """
    device, parser = judges.identity.device, judges.parser
    drawn, real, masks, shuffled = (x.to(device) for x in (drawn, real, masks, shuffled))
    identity, parsed = judges.identity.identity, parser.parse(drawn)
    found = {
        "own": metrics.confusion(parsed, masks),
        "shuffled": metrics.confusion(parsed, shuffled),
        "embedding": parser.embedding(drawn),
        "reference": parser.embedding(real),
        "perceptual": metrics.perceptual_distance(parser.features(drawn), parser.features(real)),
        "ssim": metrics.ssim(drawn, real),
        "identity": metrics.identity_cosine(identity(drawn), identity(real)),
        "attributes": judges.attributes(drawn)[0] > 0,
        "edges": metrics.edge_energy(drawn),
        "background": metrics.mean_colour(drawn, parsed == CLASSES.index("background")),
    }
    return {name: value.cpu() for name, value in found.items()}


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
        judges: on any device, all on one; the reading comes back to the CPU.
        seed:   of the shuffle that gives every picture the mask of another sample.
        clip, tokenizer: of the CLIP score; without them there is none.

    Raises:
        ValueError: pictures and samples differ in number.
    """
    n = len(images)
    if n != len(truth):
        raise ValueError(
            f"{n} pictures came for {len(truth)} samples; expected one each. Take the"
            " samples that were drawn: truth.taken(rows)."
        )
    other = torch.from_numpy(others(n, seed))
    parts: list[dict[str, Tensor]] = []
    for rows in tqdm(torch.arange(n).split(READ_AT_ONCE), desc="judges", disable=None, leave=False):
        part = (images[rows], truth.images[rows], truth.masks[rows], truth.masks[other[rows]])
        parts.append(seen(*part, judges))
        if clip is not None:
            prompts = [truth.prompts[i] for i in rows.tolist()]
            likes = text_similarity(clip, tokenizer, prompts)
            parts[-1]["clip"] = likes(images[rows].to(clip.device)).cpu()
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    ids = [record.get("id", str(i)) for i, record in enumerate(truth.records)]
    true, said = (
        torch.where(judges.attributes.reads, table, -1)  # what it does not read is not asked
        for table in (truth.attributes, claimed(truth.prompts))
    )
    verbs = {"sees": whole["attributes"], "is": true, "says": said}
    columns: dict[str, Any] = {"sample": ids}
    columns |= {name: whole[name].numpy() for name in NUMBERS if name in whole}
    columns |= dict(zip(RGB, whole["background"].T.numpy(), strict=True))
    for verb, table in verbs.items():
        columns |= {f"{verb} {a}": table[:, k].numpy() for k, a in enumerate(ATTRIBUTES)}
    return Reading(pd.DataFrame(columns), **{name: whole[name] for name in ARRAYS})


@dataclass(frozen=True)
class FinishedRow:
    """A row of a table."""

    name: str  # as printed
    reading: Reading  # of all its N pictures
    pictures: Tensor  # (K, 3, 128, 128) uint8, the first K <= SHOWN of them
    minutes: float  # that drawing and reading took


def finish(
    row: Row, path: Path, judged: Callable[[Tensor, GroundTruth], Reading], at_once: int = 25
) -> FinishedRow:
    """The row, drawn and read, or as its files hold it.

    Args:
        path:    without a suffix. The folder of that name holds the pictures, .parquet what was
            read of each sample, .safetensors the arrays of the reading. A failure leaves neither.
        judged:  reads pictures against samples.
        at_once: pictures drawn, see `draw_to_disk`.
    """
    sweep(path.parent, f"{path.name}*")
    pictures, minutes = draw_to_disk(row, path, at_once)
    table, arrays = path.with_suffix(".parquet"), path.with_suffix(".safetensors")
    if not arrays.exists():
        begin = time.perf_counter()
        reading = judged(pictures, row.against)
        kept = {name: getattr(reading, name).contiguous() for name in ARRAYS}
        note = {"minutes": f"{(time.perf_counter() - begin) / 60:.3f}"}
        write_whole(table, lambda target: reading.samples.to_parquet(target, index=False))
        write_whole(arrays, lambda target: save_file(kept, target, note))  # last: both are there
    with safe_open(arrays, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in ARRAYS}
        minutes += float(file.metadata()["minutes"])
    reading = Reading(pd.read_parquet(table), **tensors)
    return FinishedRow(row.name, reading, to_uint8(pictures[:SHOWN]), minutes)
