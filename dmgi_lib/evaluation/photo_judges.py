"""Table 1's columns for photographs, read by the outside networks that papers use.

    python -m dmgi_lib.evaluation.photo_judges --pictures runs/paper --parser face-parsing

FOLDER holds pictures named by sample id, 000002.png. SSIM needs no network; ACC and mIoU come with
--parser, ID with --arcface, LPIPS with --lpips and FID with --inception; a column that is not asked
for is left out. All weights are local files that the reader has fetched: nothing is downloaded.
Every loader raises FileNotFoundError without its weights and ModuleNotFoundError without its
library, and says how to get them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, resized, to_float, to_uint8
from dmgi_lib.devices import machine, pick_device
from dmgi_lib.evaluation import metrics
from dmgi_lib.files import write_text
from dmgi_lib.masks import CLASSES

COLUMNS = ("FID", "LPIPS", "SSIM", "ID", "ACC", "mIoU")  # in the paper's order
PARSER_SIZE = 512  # pixels that the published SegFormer parsers read
# Where a network trained on ArcFace's tight crops looks in an FFHQ-aligned picture of 256 px: the
# crop of pSp (Richardson et al., CVPR 2021), which is aligned as CelebA-HQ is.
ARCFACE_CROP = (35, 223, 32, 220)
VGG = "vgg16-397923af.pth"  # torchvision's weights, on which LPIPS-VGG builds


def face_parser(folder: Path) -> torch.nn.Module:
    """A SegFormer with the 19 classes of CelebAMask-HQ, in the order of `masks.CLASSES`.

    Raises:
        ValueError: other classes, or another order.
    """
    from transformers import SegformerForSemanticSegmentation

    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json with model.safetensors; expected the folder of a"
            " SegFormer for face parsing. Fetch one: hf download MODEL --local-dir FOLDER"
        )
    parser: Any = SegformerForSemanticSegmentation.from_pretrained(folder, local_files_only=True)
    labels = [parser.config.id2label.get(i) for i in range(parser.config.num_labels)]
    if labels != list(CLASSES):
        raise ValueError(
            f"{folder} parses into {labels}; expected {list(CLASSES)}, in that order (id2label of"
            " config.json). A parser of other classes cannot be compared with the masks."
        )
    return parser.eval()


@torch.no_grad()
def parse(parser: torch.nn.Module, images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] → (B, size, size) class ids, of the enlarged logits."""
    mean, std = (torch.tensor(x).to(images) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (resized(images, PARSER_SIZE) + 1) / 2
    logits = parser((x - mean[:, None, None]) / std[:, None, None]).logits
    return F.interpolate(logits, (size, size), mode="bilinear", align_corners=False).argmax(1)


def arcface(file: Path) -> Callable[[Tensor], Tensor]:
    """An ArcFace network in ONNX: (B, 3, H, W) in [-1, 1] → (B, D) unit vectors."""
    runtime = _library("onnxruntime", "ID")
    _there(file, "an ArcFace network that reads (B, 3, 112, 112), such as insightface's w600k_r50")
    session = runtime.InferenceSession(str(file), providers=runtime.get_available_providers())
    name = session.get_inputs()[0].name
    top, bottom, left, right = ARCFACE_CROP

    def embed(images: Tensor) -> Tensor:
        faces = resized(resized(images, 256)[..., top:bottom, left:right], 112)
        codes = session.run(None, {name: faces.float().cpu().numpy()})[0]
        return F.normalize(torch.from_numpy(codes).double(), dim=1)

    return embed


def lpips_vgg() -> Any:
    """LPIPS-VGG of torchmetrics; VGG-16's weights lie where torchvision looks for them."""
    _library("torchvision", "LPIPS")
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    home = Path(torch.hub.get_dir()) / "checkpoints" / VGG
    _there(home, f"VGG-16 of torchvision (https://download.pytorch.org/models/{VGG})")
    return LearnedPerceptualImagePatchSimilarity(net_type="vgg")


def inception_fid(file: Path) -> Any:
    """FID of torchmetrics with the Inception network that torch-fidelity publishes."""
    _library("torch_fidelity", "FID")
    from torchmetrics.image.fid import FrechetInceptionDistance

    _there(file, "torch-fidelity's weights-inception-2015-12-05-6726825d.pth")
    return FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(file))


def _library(name: str, column: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the column {column} needs {name}, which is not installed: pip install"
            f" {name.replace('_', '-')} (or: pip install -e .[paper]). Without its option the"
            " column is left out."
        ) from error


def _there(file: Path, what: str) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; expected {what}. Fetch it and put it there.")


@torch.no_grad()
def measure(
    pictures: Path,
    dataset: FaceDataset,
    *,
    parser: torch.nn.Module | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    lpips: Any = None,
    fid: Any = None,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
) -> dict[str, float]:
    """The columns of COLUMNS that the given networks can read, ACC and mIoU in per cent, and N.

    Args:
        pictures: folder of {id}.png; reduced or enlarged to the size of the dataset's pictures.
        dataset: I and x of every sample.
        parser, embed, lpips, fid: as `face_parser`, `arcface`, `lpips_vgg`, `inception_fid` give.

    Raises:
        FileNotFoundError: the folder holds no picture of a sample.
    """
    paths = [pictures / f"{record['id']}.png" for record in dataset.records]
    there = [i for i, path in enumerate(paths) if path.is_file()]
    if not there:
        raise FileNotFoundError(
            f"{pictures} holds no picture named by a sample id of {dataset.folder}, such as"
            f" {paths[0].name}; draw the samples first."
        )
    for network in (parser, lpips, fid):
        if network is not None:
            network.to(device)
    found: dict[str, list[Tensor]] = {"SSIM": [], "ID": [], "confusion": []}
    for rows in tqdm(torch.tensor(there).split(batch_size), desc="pictures read", disable=None):
        real, masks = to_float(dataset.images[rows]).to(device), dataset.masks[rows]
        size = real.shape[-1]
        arrays = [np.array(Image.open(paths[i]).convert("RGB")) for i in rows.tolist()]
        floats = [to_float(torch.from_numpy(x).permute(2, 0, 1)[None]) for x in arrays]
        made = torch.cat([resized(x, size) for x in floats]).to(device)
        found["SSIM"].append(metrics.ssim(made, real).cpu())
        if parser is not None:
            ids = parse(parser, made, size).cpu()
            found["confusion"].append(metrics.confusion(ids, masks))
        if embed is not None:
            found["ID"].append(metrics.identity_cosine(embed(made), embed(real)))
        if lpips is not None:
            lpips.update(made.clamp(-1, 1), real)
        if fid is not None:
            fid.update(to_uint8(real), real=True)
            fid.update(to_uint8(made), real=False)
    whole = {name: torch.cat(parts) for name, parts in found.items() if parts}
    numbers = {name: x.mean().item() for name, x in whole.items() if name != "confusion"}
    if parser is not None:
        numbers["ACC"] = 100 * metrics.pixel_accuracy(whole["confusion"])
        numbers["mIoU"] = 100 * metrics.mean_iou(whole["confusion"])
    for name, metric in (("LPIPS", lpips), ("FID", fid)):
        if metric is not None:
            numbers[name] = metric.compute().item()
    return {name: numbers[name] for name in COLUMNS if name in numbers} | {"N": len(there)}


def main(
    pictures: Path,
    data: Path | None = None,
    split: str = "test",
    parser: Path | None = None,
    arcface_onnx: Path | None = None,
    lpips: bool = False,
    inception: Path | None = None,
    batch_size: int = 8,
    device: str = "auto",
    out: Path | None = None,
) -> None:
    """Measure a folder of drawn pictures.

    Args:
        pictures: folder of {id}.png
        data: face dataset; None: the full one if it is built, else what ships
        split: of the dataset
        parser: folder of a SegFormer with the 19 classes: ACC, mIoU
        arcface_onnx: ONNX file of an ArcFace network: ID
        lpips: LPIPS-VGG, if torchvision and its VGG-16 are there
        inception: torch-fidelity's Inception weights: FID
        batch_size: pictures read at once
        device: auto, cpu, cuda or mps
        out: JSON file; None: columns.json among the pictures
    """
    where = pick_device(device)
    numbers = measure(
        pictures,
        FaceDataset(data, split),
        parser=face_parser(parser) if parser else None,
        embed=arcface(arcface_onnx) if arcface_onnx else None,
        lpips=lpips_vgg() if lpips else None,
        fid=inception_fid(inception) if inception else None,
        device=where,
        batch_size=batch_size,
    )
    print(f"| {' | '.join(numbers)} |\n|{'---|' * len(numbers)}")
    print(f"| {' | '.join(f'{v:.3f}' if k != 'N' else str(v) for k, v in numbers.items())} |")
    content = {"columns": numbers, "pictures": pictures.name, "machine": machine(where)}
    write_text(out or pictures / "columns.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.FlagCreatePairsOff,))
