"""A pipeline that is fast and needs no weights: what it paints tells what it was asked."""

from __future__ import annotations

import threading
import warnings
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from tiny_models import tiny_eg3d

from dmgi_lib.editing import EditDirections
from dmgi_lib.generators.eg3d.cameras import camera_angles, look_at
from dmgi_lib.generators.eg3d.views import as_cameras

WORDS = {"<unk>": 0, "blond": 1, "black": 2, "hair": 3, "young": 4, "woman": 5, "a": 6, "hat": 7}


class Tokenizer:
    unk_token_id = 0

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [WORDS.get(word, 0) for word in text.split()]}


def directions() -> EditDirections:
    """Strength 1 adds 10 to all numbers of a code, or 20."""
    found = EditDirections(("age", "hair_length"), 12, 16)
    found.directions.data[0], found.directions.data[1] = 10.0, 20.0
    return found


class StandIn:
    """`go` is an event to wait for before each drawing; `calls` what was drawn."""

    image_size = 64
    tokenizer = Tokenizer()
    generator: Any = None
    camera: torch.Tensor | None = None  # of its heads
    style_offsets: Any = None

    def __init__(self, scribbles: bool = True) -> None:
        self.config = SimpleNamespace(num_inference_steps=10)
        self.mapping_network_scribble = object() if scribbles else None
        self.edit_directions: EditDirections | None = directions()
        self.calls: list[dict[str, Any]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, prompt: str, *, generator: list[torch.Generator], **asked: Any) -> Any:
        assert self.go.wait(20)
        seeds = [one.initial_seed() for one in generator]
        self.calls.append(asked | {"prompt": prompt, "seeds": seeds})
        if not prompt.strip():
            raise ValueError("prompt is empty; expected a description.")
        if "crash" in prompt:
            raise RuntimeError("out of memory")
        if "zebra" in prompt:
            warnings.warn("unknown to this text encoder: zebra", stacklevel=2)
        shade = 250 if asked["exit_step"] == 0 else 90
        images = [Image.new("RGB", (64, 64), (shade, seed % 256, 40)) for seed in seeds]
        latents = torch.tensor(seeds).view(-1, 1, 1).expand(-1, 12, 16).float()
        styles = [{"marble": 1.0} if "marble" in prompt else {}] * len(seeds)
        return SimpleNamespace(images=images, latents=latents, camera=self.camera, styles=styles)

    def edit(self, latents: torch.Tensor, style: Any) -> Any:
        """Green tells the mean of a code, red the share of marble, in hundredths."""
        assert self.go.wait(20)
        red = round(100 * style.get("marble", 0))
        images = [Image.new("RGB", (64, 64), (red, int(code.mean()) % 256, 9)) for code in latents]
        return SimpleNamespace(images=images, latents=latents)


class StandInStyles(StandIn):
    """Draws in marble, too."""

    style_offsets = SimpleNamespace(names=("marble", "elf"))


class StandIn3D(StandIn):
    """Draws heads from 12 degrees; blue tells the yaw, and red the pitch above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = tiny_eg3d(pose_range={"yaw": (-30, 30)})

    def __call__(self, prompt: str, **asked: Any) -> Any:
        self.camera = look_at(torch.full((len(asked["generator"]),), 12.0), 0.0)
        return super().__call__(prompt, **asked)

    def render(self, latents: torch.Tensor, camera: Any, style: Any) -> list[Image.Image]:
        assert self.go.wait(20)
        (angles,) = camera_angles(as_cameras(camera, self.generator)).round().int().tolist()
        return [Image.new("RGB", (64, 64), (100 + angles[1], int(latents.mean()), angles[0]))]

    def mesh(self, latents: torch.Tensor, style: Any) -> Any:
        assert self.go.wait(20)
        return SimpleNamespace(
            export=lambda file_type: f"{file_type} {latents.mean():.0f}".encode()
        )


class StandInEverything(StandIn3D, StandInStyles):
    """Heads in styles: all that the page can hold."""
