"""Draws the README's pictures with the shipped model: `make figures`.

gallery.png: sentences, masks, scribbles and results. styles.jpg: some of these faces in all styles.
method.png: the pipeline of Fig. 2, drawn for this kit, with what really flows through it.
heads.webp: heads that turn. studio.webp: the studio as a browser shows it.
"""

from __future__ import annotations

import io
import sys
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image, ImageDraw

from dmgi_lib import DMGIPipeline
from dmgi_lib.dataset import FaceDataset, shipped_root
from dmgi_lib.display import as_array
from dmgi_lib.generators.eg3d.views import write_animation
from dmgi_lib.masks import PALETTE

HERE = Path(__file__).parent
GALLERY = (  # number of a shipped test sample, sentence
    (195, "a young woman with blond hair"),
    (165, "an old man with gray hair"),
    (44, "a woman with dark skin and black hair"),
    (44, "a woman with pale skin and red hair"),
    (116, "a man with brown hair"),
    (596, "a man with black hair wearing a hat"),
    (66, "an old woman with gray hair and spectacles"),
    (107, "a man with a beard and black hair"),
)
STYLED = (0, 2, 7)  # of the gallery
TURNED = (0, 1, 2, 3, 5, 7)  # of the gallery
SIDE = 144  # pixels of a head that turns
IN_STUDIO = (  # sentences, the last of which is shown large
    "a marble statue of a young woman",
    "an old woman with gray hair",
    "a cartoon of a woman with red hair",
    "a woman with dark skin and black hair",
    "a pencil sketch of a young woman",
    "a smiling young woman with long blond hair",
)
FROZEN, TRAINED, DATA = "#dbe4ee", "#ffd9a8", "#ffffff"


def colors(mask: torch.Tensor) -> np.ndarray:
    """(H, W) class ids → (H, W, 3) palette colours."""
    return PALETTE[mask.numpy()].astype(np.uint8)


def noise(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0) for _ in range(count)]


def save(figure: Any, name: str) -> None:
    path = HERE / name
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def gallery(pipe: DMGIPipeline, faces: FaceDataset) -> None:
    """Sentences; masks above results, scribbles above results."""
    texts = [text for _, text in GALLERY]
    masks = [faces.masks[i] for i, _ in GALLERY]
    scribbles = [faces.scribbles[i] for i, _ in GALLERY]
    pairs = (
        (map(colors, masks), pipe(texts, mask=masks, generator=noise(len(texts)))),
        (scribbles, pipe(texts, scribble=scribbles, generator=noise(len(texts)))),
    )
    rows: list[list[Any]] = []
    for given, drawn in pairs:
        rows += [list(given), drawn.images]
    figure, axes = plt.subplots(len(rows), len(texts), figsize=(1.5 * len(texts), 6.4))
    for row, pictures in enumerate(rows):
        for axis, picture in zip(axes[row], pictures, strict=True):
            axis.imshow(picture, interpolation="nearest" if row == 0 else None, cmap="gray")
    titled(axes, ["\n".join(textwrap.wrap(text, 19)) for text in texts])
    figure.subplots_adjust(wspace=0.03, hspace=0.03)
    save(figure, "gallery.png")


def styles(pipe: DMGIPipeline, faces: FaceDataset) -> None:
    """One code a row, in every style."""
    samples, texts = zip(*[GALLERY[k] for k in STYLED], strict=True)
    masks = [faces.masks[i] for i in samples]
    codes = pipe(list(texts), mask=masks, generator=noise(len(texts))).latents
    kinds = {"photograph": {}, **{name: {name: 1.0} for name in pipe.style_offsets.names}}
    columns = [pipe.edit(codes, style=style).images for style in kinds.values()]
    figure, axes = plt.subplots(len(texts), len(kinds), figsize=(1.33 * len(kinds), 4.0))
    for column, pictures in zip(axes.T, columns, strict=True):
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture)
    titled(axes, list(kinds))
    figure.subplots_adjust(wspace=0.03, hspace=0.03)
    save(figure, "styles.jpg")


def heads(faces: FaceDataset) -> None:
    """Sentences and masks, and below them heads that turn."""
    pipe = DMGIPipeline.from_pretrained("mini-3d")
    samples, texts = zip(*[GALLERY[k] for k in TURNED], strict=True)
    masks = [faces.masks[i] for i in samples]
    codes = pipe(list(texts), mask=masks, generator=noise(len(texts))).latents
    turning = [pipe.turntable(code, frames=48) for code in codes]
    top, size = 40, (SIDE, SIDE)
    page = Image.new("RGB", (len(texts) * SIDE, top + 2 * SIDE), "white")
    pen = ImageDraw.Draw(page)
    for k, (text, mask) in enumerate(zip(texts, masks, strict=True)):
        lines = "\n".join(textwrap.wrap(text, 21))
        pen.multiline_text(((k + 0.5) * SIDE, 2), lines, "black", anchor="ma", align="center")
        page.paste(
            Image.fromarray(colors(mask)).resize(size, Image.Resampling.NEAREST), (k * SIDE, top)
        )
    frames = []
    for views in zip(*turning, strict=True):
        frame = page.copy()
        for k, view in enumerate(views):
            frame.paste(view.resize(size, Image.Resampling.LANCZOS), (k * SIDE, top + SIDE))
        frames.append(frame)
    path = HERE / "heads.webp"
    write_animation(frames, path, 18.0)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def studio(pipe: DMGIPipeline, faces: FaceDataset) -> None:
    """The studio in a real browser, after some drawings; needs Playwright and Chromium."""
    sys.path.append(str(HERE.parent / "tests/browser"))
    try:
        import comm
        from browsers import QUIET, chromium
        from playwright.sync_api import sync_playwright
        from widget_page import PageComm, WidgetPage

        from dmgi_lib.studio import Studio
        from dmgi_lib.studio.people import shipped_masks
    except ModuleNotFoundError as error:
        print(f"studio.webp is left as it is: no {error.name} here")
        return
    if chromium() is None:
        print("studio.webp is left as it is: no Chromium here")
        return
    comm.create_comm = PageComm
    pipe.set_progress_bar_config(disable=True)
    path, margin = HERE / "studio.webp", 12
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=[*QUIET, "--no-sandbox"])
        size = {"width": 1080, "height": 1000}
        page = browser.new_context(viewport=size, device_scale_factor=1.5).new_page()
        page.set_default_timeout(120_000)
        mask = faces.masks[GALLERY[0][0]]
        WidgetPage(page, *Studio(pipe, mask, IN_STUDIO[0], examples=shipped_masks()).children)
        for text in IN_STUDIO:
            page.get_by_label("Describe the face").fill(text)
            page.get_by_role("button", name="Draw", exact=True).click()
            page.locator("figcaption", has_text=f"Drawn: “{text}”").wait_for()
        page.get_by_text("hair", exact=True).click()
        page.locator(".dmgi-board").hover(position={"x": 112, "y": 190})  # about to paint
        box = page.locator("#studio").bounding_box()
        clip = {"x": box["x"] - margin, "y": box["y"] - margin}
        clip |= {side: box[side] + 2 * margin for side in ("width", "height")}
        content = page.screenshot(full_page=True, clip=clip, animations="disabled")
        browser.close()
    Image.open(io.BytesIO(content)).convert("RGB").save(path, quality=88, method=6)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def titled(axes: Any, titles: list[str]) -> None:
    """Titles above the columns, and no frames."""
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)


def method(pipe: DMGIPipeline, faces: FaceDataset) -> None:
    """(c, x) → E → h, f, a → M, T → w_t → G → I'."""
    number, text = GALLERY[0]
    mask = faces.masks[number]
    out = pipe(text, mask=mask, generator=noise(1), return_attention=True)
    maps = out.attention[0]

    figure, axis = plt.subplots(figsize=(14.5, 4.8))
    axis.set_xlim(0, 12.1)
    axis.set_ylim(0, 3.7)
    axis.set_axis_off()

    def picture(image: Any, x: float, y: float, size: float, title: str, **kwargs: Any) -> None:
        axis.imshow(image, extent=(x, x + size, y, y + size), zorder=3, **kwargs)
        axis.text(x + size / 2, y - 0.08, title, ha="center", va="top", fontsize=9)

    def box(x: float, y: float, w: float, h: float, text: str, color: str) -> None:
        axis.add_patch(
            FancyBboxPatch(
                (x, y), w, h, boxstyle="round,pad=0.04,rounding_size=0.12",
                facecolor=color, edgecolor="#44546a", linewidth=1.2, zorder=2,
            )
        )  # fmt: skip
        axis.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9.5, zorder=4)

    def arrow(start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
        axis.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=13, color="#44546a", lw=1.3
            )
        )
        if text:
            middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.2)
            axis.text(*middle, text, ha="center", fontsize=9.5, color="#22303f")

    picture(colors(mask), 0.1, 0.75, 1.15, "mask x", interpolation="nearest")
    box(0.1, 2.75, 1.3, 0.75, "\n".join(textwrap.wrap(f"“{text}”", 16)), DATA)
    axis.text(0.75, 2.62, "text c", ha="center", va="top", fontsize=9)
    box(2.1, 1.2, 1.75, 1.7, "E\n\ndenoising U-Net\n+ ControlNet\n\nany step t", FROZEN)
    arrow((1.45, 3.1), (2.05, 2.6))
    arrow((1.3, 1.35), (2.05, 1.6))
    box(5.75, 2.75, 1.55, 0.75, "M\nmapping network", TRAINED)
    box(5.75, 0.65, 1.55, 0.9, "T\nstyle modulation\nnetwork", TRAINED)
    arrow((3.9, 2.6), (5.7, 3.15), "$h_t$")
    arrow((3.9, 1.5), (4.35, 1.2))
    for k, word in enumerate(list(maps)[-2:]):
        weight = maps[word].float().numpy()
        title = f"$a_t$ “{word}”"
        picture(weight, 4.4 + 0.06 * k, 1.45 - 1.1 * k, 0.75, title, cmap="magma")
    axis.text(4.8, 2.32, "$f_t$, $a_t$", ha="center", fontsize=9.5)
    arrow((5.25, 1.2), (5.7, 1.1))
    box(8.1, 1.75, 1.25, 0.7, "$w_t = w_t^m \\odot \\gamma + \\beta$", DATA)
    arrow((7.35, 3.1), (8.1, 2.45), "$w_t^m$")
    arrow((7.35, 1.1), (8.1, 1.75), "$\\gamma, \\beta$")
    box(9.85, 1.6, 0.75, 1.0, "G\n\nStyle-\nGAN2", FROZEN)
    arrow((9.4, 2.1), (9.8, 2.1))
    picture(as_array(out.images[0]), 10.85, 1.55, 1.15, "result I′")
    arrow((10.65, 2.1), (10.83, 2.1))
    axis.text(10.2, 0.25, "blue: frozen   orange: trained", fontsize=9, ha="center")
    save(figure, "method.png")


def main() -> None:
    pipe = DMGIPipeline.from_pretrained("mini")
    faces = FaceDataset(shipped_root(), "test")
    gallery(pipe, faces)
    styles(pipe, faces)
    method(pipe, faces)
    heads(faces)
    studio(pipe, faces)


if __name__ == "__main__":
    main()
