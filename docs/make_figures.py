"""Draws the README's pictures with the shipped model: `python docs/make_figures.py`.

gallery.png   masks of test identities, and faces from them and a sentence each
pipeline.png  the method, with what really flows through it for one input
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dmgi_lib import DMGIPipeline
from dmgi_lib.dataset import FaceDataset, sample_root
from dmgi_lib.display import as_array
from dmgi_lib.masks import mask_to_rgb
from dmgi_lib.prompts import encode_empty, encode_text, tokenize

HERE = Path(__file__).parent
GALLERY = {  # test sample → prompt
    52: "a smiling young woman with red hair",
    11: "a man with black hair and a beard",
    37: "a young woman with blond hair",
    31: "a smiling man with brown hair",
    13: "a woman with long red hair",
    5: "a bald man wearing eyeglasses",
    26: "an elderly man with gray hair",
    55: "a man with blond hair",
}
FROZEN, TRAINED, INK = "#e4ecf5", "#fbe3cf", "#22303c"


def gallery(pipe: DMGIPipeline, faces: FaceDataset, path: Path) -> None:
    """Masks above, results below, sentences under them."""
    rows = list(GALLERY)
    masks = [faces.masks[i] for i in rows]
    out = pipe(list(GALLERY.values()), mask=masks, generator=seeds(len(rows)))
    figure, axes = plt.subplots(
        2, len(rows), figsize=(1.5 * len(rows), 3.5), layout="constrained", squeeze=False
    )
    pairs = zip(masks, out.images, GALLERY.values(), strict=True)
    for column, (mask, image, prompt) in enumerate(pairs):
        axes[0, column].imshow(as_array(mask_to_rgb(mask[None])[0] * 2 - 1))
        axes[1, column].imshow(image)
        words = prompt.split()
        lines = [" ".join(words[k : k + 3]) for k in range(0, len(words), 3)]
        axes[1, column].set_xlabel("\n".join(lines), fontsize=7.5, color=INK)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def features_as_colors(features: torch.Tensor) -> np.ndarray:
    """(C, h, w) → (h, w, 3) in [0, 1]: the three main directions of the features."""
    flat = features.flatten(1).T
    flat = flat - flat.mean(0)
    _, _, v = torch.linalg.svd(flat, full_matrices=False)
    colors = flat @ v[:3].T
    low, high = colors.quantile(0.02, 0), colors.quantile(0.98, 0)
    return ((colors - low) / (high - low)).clamp(0, 1).unflatten(0, features.shape[1:]).numpy()


@torch.no_grad()
def pipeline_figure(pipe: DMGIPipeline, faces: FaceDataset, path: Path) -> None:
    """The method from left to right; every picture in it comes from one run."""
    row, prompt, words = 52, GALLERY[52], ("smiling", "hair")
    mask = faces.masks[row]
    out = pipe(prompt, mask=mask, generator=seeds(1), return_attention=True)
    assert out.attention is not None
    tokens = tokenize(pipe.tokenizer, [prompt])
    condition = mask_to_rgb(mask[None])
    for state in pipe.encoder().reverse_process(
        encode_text(pipe.text_encoder, tokens.ids),
        encode_empty(pipe.tokenizer, pipe.text_encoder),
        condition,
        generator=seeds(1)[0],
        num_inference_steps=pipe.config.num_inference_steps,
        guidance_scale=pipe.config.guidance_scale,
    ):
        features = state.features
    assert features is not None
    code = out.latents[0] - pipe.generator.mean_latent

    figure = plt.figure(figsize=(12.5, 3.9))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 12.5), ylim=(0, 3.9))
    canvas.set_axis_off()

    def picture(x: float, y: float, size: float, array: object, caption: str, **style: object):
        axis = figure.add_axes((x / 12.5, y / 3.9, size / 12.5, size / 3.9))
        axis.imshow(array, **style)
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_color("#9aa7b2")
        canvas.text(x + size / 2, y - 0.06, caption, ha="center", va="top", fontsize=8, color=INK)

    def box(x: float, y: float, width: float, height: float, text: str, color: str) -> None:
        shape = "round,pad=0,rounding_size=0.08"
        style = {"facecolor": color, "edgecolor": "#7b8a96", "linewidth": 1}
        canvas.add_patch(FancyBboxPatch((x, y), width, height, shape, **style))
        canvas.text(
            x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9, color=INK
        )

    def arrow(start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> None:
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": "#5a6873"}
        style |= {"linestyle": (0, (3, 2)) if dashed else "-"}
        canvas.add_patch(FancyArrowPatch(start, end, **style))

    middle = len(words) // 2
    caption = prompt.split()
    quote = " ".join(caption[: len(caption) // 2]) + "\n" + " ".join(caption[len(caption) // 2 :])
    canvas.text(0.95, 3.3, f"“{quote}”", ha="center", va="center", fontsize=8.5, color=INK)
    canvas.text(0.95, 2.85, "text c", ha="center", fontsize=8, color=INK)
    picture(0.35, 1.15, 1.2, as_array(condition[0] * 2 - 1), "mask x")
    box(2.15, 0.75, 1.35, 2.5, "E\n\ndenoising U-Net\nwith ControlNet\n\nsteps T … 0", FROZEN)
    arrow((1.75, 3.1), (2.12, 2.75))
    arrow((1.62, 1.75), (2.12, 1.95))
    picture(4.1, 2.75, 0.8, features_as_colors(features.h[0].float()), "middle features h")
    picture(4.1, 1.45, 0.8, features_as_colors(features.f[-1][0].float()), "decoder features f")
    for k, word in enumerate(words):
        style = {"cmap": "magma", "interpolation": "bicubic"}
        place = 4.1 + 0.95 * (k - middle + 0.55) - 0.05
        picture(place, 0.2, 0.75, out.attention[0][word].float().numpy(), f"“{word}”", **style)
    canvas.text(5.52, 0.55, "attention a", fontsize=8, color=INK, va="center")
    for y in (3.15, 1.85, 0.6):
        arrow((3.52, 2.0), (3.8 if y < 1 else 4.06, y))
    box(6.2, 2.7, 1.15, 0.9, "M\nmapping\nnetwork", TRAINED)
    box(6.2, 1.0, 1.15, 1.1, "T\nattention-based\nstyle modulation", TRAINED)
    arrow((4.95, 3.15), (6.16, 3.15))
    arrow((4.95, 1.85), (6.16, 1.7))
    arrow((5.5, 0.75), (6.16, 1.2))
    style = {"cmap": "RdBu_r", "aspect": "auto", "interpolation": "nearest"}
    limit = code.abs().quantile(0.98).item()
    picture(
        8.15, 1.7, 1.1, code.numpy(), "code w = w$^m$ · γ + β", vmin=-limit, vmax=limit, **style
    )
    arrow((7.38, 3.1), (8.1, 2.6))
    arrow((7.38, 1.55), (8.1, 2.0))
    canvas.text(7.8, 3.02, "w$^m$", fontsize=9, color=INK)
    canvas.text(7.7, 1.52, "γ, β", fontsize=9, color=INK)
    box(9.65, 1.7, 0.95, 1.1, "G\nStyleGAN2", FROZEN)
    arrow((9.28, 2.25), (9.62, 2.25))
    picture(11.0, 1.6, 1.3, out.images[0], "result I′")
    arrow((10.62, 2.25), (10.96, 2.25))
    canvas.text(11.65, 0.62, "frozen", fontsize=8, color=INK, va="center")
    canvas.text(11.65, 0.3, "trained", fontsize=8, color=INK, va="center")
    box(11.3, 0.53, 0.25, 0.18, "", FROZEN)
    box(11.3, 0.21, 0.25, 0.18, "", TRAINED)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="mini", help="preset or folder (default: mini)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder (default: docs)")
    given = parser.parse_args()
    pipe = DMGIPipeline.from_pretrained(given.weights)
    faces = FaceDataset(sample_root(), "test")
    gallery(pipe, faces, given.out / "gallery.png")
    pipeline_figure(pipe, faces, given.out / "pipeline.png")
    print(f"{given.out}/gallery.png, {given.out}/pipeline.png")


if __name__ == "__main__":
    main()
