"""A world's card.md, a row a part, from what the runs logged; and a picture of its faces."""

from __future__ import annotations

import datetime
import re
import shlex
from pathlib import Path

import torch
from PIL import Image

from data_prep.priors.sampling import picture_grid
from data_prep.priors.world_parts import PARTS, Part
from dmgi_lib.dataset import FaceDataset, to_uint8
from dmgi_lib.devices import machine
from dmgi_lib.masks import mask_to_rgb
from dmgi_lib.pipeline import DMGIPipeline

HEAD = "| part | minutes | images seen | images per second | measured |\n|---|---|---|---|---|"


def world_card(out: Path, runs: Path, device: torch.device, arguments: list[str]) -> str:
    """Markdown: command, device, and one row a part.

    Args:
        out, runs: folders of the weights and of the runs
        arguments: of the command
    """
    command = " ".join(["python -m data_prep.priors.world", *map(shlex.quote, arguments)])
    rows = [_row(part, out, runs / part.name) for part in PARTS]
    return "\n".join(
        [
            "# A world of faces",
            "",
            "Every network that the kit ships, trained by one command:",
            "",
            f"```\n{command}\n```",
            "",
            f"On {machine(device)}, {datetime.date.today().isoformat()}. Minutes are those of"
            " training, over all resumes; a part without them was trained elsewhere. Each folder's"
            " card.md has the part's own command and all that was measured.",
            "",
            HEAD,
            *rows,
            "",
        ]
    )


def _row(part: Part, out: Path, run_dir: Path) -> str:
    spent = ["", "", ""]
    if (path := run_dir / "checkpoint.pt").is_file():
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        seen, seconds = state["step"] * state["batch_size"], state["seconds"]
        spent = [f"{seconds / 60:.1f}", f"{seen:,}", f"{seen / max(seconds, 1e-9):.1f}"]
    found = {name: value for card in _cards(part, out) for name, value in _numbers(card).items()}
    measured = "; ".join(f"{name} {found[name]}" for name in part.measured if name in found)
    return f"| {' | '.join([part.name, *spent, measured])} |"


def _cards(part: Part, out: Path) -> list[str]:
    paths = [out / name / "card.md" for name in part.makes]
    return [path.read_text(encoding="utf-8") for path in paths if path.is_file()]


def _numbers(card: str) -> dict[str, str]:
    """Rows of two cells whose second is a number."""
    return dict(re.findall(r"^\| ([^|]+) \| (-?[\d.]+(?:e[+-]?\d+)?) \|$", card, re.MULTILINE))


def draw_faces(out: Path, data: Path, path: Path, device: torch.device, count: int = 8) -> Path:
    """Draws test people by a world's pipeline: their masks, faces drawn, and they themselves.

    Args:
        path: of the picture
    """
    people = FaceDataset(data, "test")
    rows = people.first_views()[:count]
    pipe = DMGIPipeline.from_pretrained(out).to(device)
    prompts = [people.captions[row][0] for row in rows.tolist()]
    masks = people.masks[rows]
    drawn = pipe(prompts, mask=list(masks), output_type="pt").images
    shown = (mask_to_rgb(masks) * 255).to(torch.uint8), to_uint8(drawn).cpu(), people.images[rows]
    Image.fromarray(picture_grid(shown)).save(path)
    return path
