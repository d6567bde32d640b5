"""Second act of the evaluation: the judges read pictures into a table with a row a sample.

    reading = read(pictures, truth, judges)
    reading.samples            # pandas: distances, attributes seen, true and claimed, features
    reading.value("mIoU")      # a column of Table 1

Kept sample by sample, so that intervals, and differences between two rows on the same samples, can
be had without drawing or reading again. No column rests on Inception, LPIPS-VGG or ArcFace, so none
bears the bare name FID, LPIPS or ID; compare rows with rows, never with the paper's numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPModel

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import ATTRIBUTES, to_uint8
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.baselines import text_similarity
from dmgi_lib.evaluation.draw import Row, draw_to_disk
from dmgi_lib.evaluation.samples import GroundTruth
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
MEMBERS: dict[str, Sequence[Any]] = {  # of what has several numbers a sample; else 0, 1, ...
    **dict.fromkeys(("sees", "is", "says"), ATTRIBUTES),
    "background": ("red", "green", "blue"),
}


@dataclass(frozen=True, eq=False)
class Reading:
    """N pictures, the i-th drawn for the i-th mask (or scribble) and caption.

    `reading["ssim"]` is a column as a tensor (N,), `reading["sees"]` all columns that begin with
    the word, (N, A):

    * "sample", its id; "ssim", "perceptual" and "identity", to its own I; "clip", to its caption
      (absent if no text-image encoder was at hand); "edges" (`metrics.edge_energy`)
    * "sees A" (bool, by the judge), "is A" and "says A" (int8, true of the sample and named by its
      caption: 1 true, 0 false, -1 unknown, not named, or not read by the judge), A of ATTRIBUTES
    * "background red" …, mean of what the parser takes for background, NaN if there is none
    * "own 0" … "own 360", pixel counts, wanted class x parsed class (`metrics.confusion`)
    * "embedding 0" …, the parser's embedding of the picture; "reference 0" …, of the sample's own I
    """

    samples: pd.DataFrame
    _tensors: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, ids: Sequence[str], found: Mapping[str, Tensor]) -> Reading:
        """Of what was found of N samples: name → (N,), or (N, ...) with a column for each."""
        columns: dict[str, Any] = {"sample": ids}
        for name, values in found.items():
            if values.ndim == 1:
                columns[name] = values.numpy()
                continue
            flat = values.flatten(1).T.numpy()
            members = MEMBERS.get(name, range(len(flat)))
            columns |= {f"{name} {m}": one for m, one in zip(members, flat, strict=True)}
        return cls(pd.DataFrame(columns))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            whole = name in self.samples
            table = self.samples[name] if whole else self.samples.filter(regex=f"^{name} ")
            self._tensors[name] = torch.tensor(table.to_numpy())
        return self._tensors[name]

    def value(self, name: str, rows: Any = slice(None)) -> float:
        """A statistic of STATISTICS over the samples `rows`, all of them by default."""
        return STATISTICS[name](self, rows)

    def first(self, n: int) -> Reading:
        """The first n samples, to compare with a row that has no more."""
        return Reading(self.samples[:n])


def _mean(name: str) -> Callable[[Reading, Any], float]:
    return lambda r, i: r[name][i].mean().item()


def _counts(r: Reading, i: Any) -> Tensor:
    return r["own"][i].unflatten(1, (len(CLASSES), len(CLASSES)))


STATISTICS: dict[str, Callable[[Reading, Any], float]] = {
    FID: lambda r, i: metrics.frechet_distance(r["reference"][i], r["embedding"][i]),
    PERCEPTUAL: _mean("perceptual"),
    SSIM: _mean("ssim"),
    IDENTITY: _mean("identity"),
    ACC: lambda r, i: metrics.pixel_accuracy(_counts(r, i)),
    MIOU: lambda r, i: metrics.mean_iou(_counts(r, i)),
    CAPTION: lambda r, i: metrics.attribute_accuracy(r["sees"][i], r["says"][i]),
    CLIP: _mean("clip"),
    KID: lambda r, i: metrics.kernel_distance(r["reference"][i], r["embedding"][i]),
    BACKGROUND: lambda r, i: metrics.deviation(r["background"][i]),
    EDGES: _mean("edges"),
    GLASSES: lambda r, i: (r["sees Eyeglasses"] | r["sees Sunglasses"])[i].double().mean().item(),
}


def load_clip(folder: Path) -> CLIPModel:
    """The text-image encoder of a weights folder, in fp32, without the library's progress bar."""
    with quiet_loading():
        return CLIPModel.from_pretrained(folder / "image_encoder", dtype=torch.float32).eval()


@torch.no_grad()
def seen(drawn: Tensor, real: Tensor, masks: Tensor, judges: Judges) -> dict[str, Tensor]:
    """What the judges see of pictures and of the samples' own, on the CPU.

    Pictures (B, 3, 128, 128) in [-1, 1]; masks (B, 128, 128) of the samples.
    """
    device, parser = judges.identity.device, judges.parser
    drawn, real, masks = (x.to(device) for x in (drawn, real, masks))
    identity, parsed = judges.identity.identity, parser.parse(drawn)
    found = {
        "ssim": metrics.ssim(drawn, real),
        "perceptual": metrics.perceptual_distance(parser.features(drawn), parser.features(real)),
        "identity": metrics.identity_cosine(identity(drawn), identity(real)),
        "edges": metrics.edge_energy(drawn),
        "sees": judges.attributes(drawn)[0] > 0,
        "background": metrics.mean_colour(drawn, parsed == CLASSES.index("background")),
        "own": metrics.confusion(parsed, masks),
        "embedding": parser.embedding(drawn),
        "reference": parser.embedding(real),
    }
    return {name: value.cpu() for name, value in found.items()}


@torch.no_grad()
def read(
    images: Tensor,
    truth: GroundTruth,
    judges: Judges,
    clip: CLIPModel | None = None,
    tokenizer: Any = None,
) -> Reading:
    """Lets the judges read one row: images (N, 3, 128, 128), the i-th drawn for `truth`'s i-th.

    Args:
        judges: on any device, all on one; the reading comes back to the CPU.
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
    parts: list[dict[str, Tensor]] = []
    for rows in tqdm(torch.arange(n).split(READ_AT_ONCE), desc="judges", disable=None, leave=False):
        parts.append(seen(images[rows], truth.images[rows], truth.masks[rows], judges))
        if clip is not None:
            likes = text_similarity(clip, tokenizer, [truth.prompts[i] for i in rows.tolist()])
            parts[-1]["clip"] = likes(images[rows].to(clip.device)).cpu()
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for verb, table in (("is", truth.attributes), ("says", claimed(truth.prompts))):
        found[verb] = torch.where(judges.attributes.reads, table, -1)  # not read, so not asked
    return Reading.of([r.get("id", str(i)) for i, r in enumerate(truth.records)], found)


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
        path:    without a suffix. The folder of that name holds the pictures, .samples.parquet
            what was read of them. A failure leaves none.
        judged:  reads pictures against samples.
        at_once: pictures drawn, see `draw_to_disk`.
    """
    sweep(path.parent, f"{path.name}*")
    pictures, minutes = draw_to_disk(row, path, at_once)
    table = path.with_suffix(".samples.parquet")
    if not table.exists():
        begin = time.perf_counter()
        samples = judged(pictures, row.against).samples
        samples.attrs["minutes"] = (time.perf_counter() - begin) / 60
        write_whole(table, samples.to_parquet)
    samples = pd.read_parquet(table)
    minutes += samples.attrs["minutes"]
    return FinishedRow(row.name, Reading(samples), to_uint8(pictures[:SHOWN]), minutes)
