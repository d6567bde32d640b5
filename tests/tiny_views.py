"""Heads whose every view is known by hand: balls with eyes, before a wall that does not turn.

And drawn people in other colours, as styles.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data_prep.shard_writer import read_shard, write_split
from dmgi_lib.generators.eg3d.cameras import camera_rays, look_at
from dmgi_lib.masks import mask_to_image
from dmgi_lib.shards import shard_paths

RADIUS = 0.22
EYES = torch.tensor([[0.4, 0.2, 0.9], [-0.4, 0.2, 0.9]])


def ball_view(person: int, c: torch.Tensor, size: int = 128) -> tuple[torch.Tensor, ...]:
    """Image (3, H, W) in [0, 1], class ids (H, W) and depth (H, W) of a person's ball from c."""
    rng = torch.Generator().manual_seed(person)
    skin, wall = torch.rand(2, 3, generator=rng)
    origins, directions = camera_rays(c[None], size)
    along = -(origins * directions).sum(-1)
    inside = RADIUS**2 - origins.square().sum(-1) + along.square()
    hit = inside[0] > 0
    depth = torch.where(hit, along[0] - inside[0].clamp_min(0).sqrt(), 0)
    normal = (origins[0] + depth[:, None] * directions[0]) / RADIUS
    light = 0.6 + 0.4 * normal[:, 1:2]
    colour = (0.25 + 0.75 * skin) * light * (1 + 0.3 * normal[:, :1])
    is_eye = (normal @ torch.nn.functional.normalize(EYES, dim=1).T > 0.97).any(1)
    colour = torch.where(is_eye[:, None], colour.new_tensor([0.05, 0.05, 0.2]), colour)
    image = torch.where(hit[:, None], colour, wall).clamp(0, 1)
    mask = hit.to(torch.uint8) + 3 * (hit & is_eye).to(torch.uint8)
    return image.T.unflatten(1, (size, size)), *(x.view(size, size) for x in (mask, depth))


def _png(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def write_views(folder: Path, people: int, cameras: int = 4, size: int = 128) -> Path:
    """A split of balls, each seen by several cameras within ±45 degrees."""
    samples = []
    for person in range(people):
        for k in range(cameras):
            rng = np.random.default_rng([person, k])
            yaw = -45 + 90 * (k + float(rng.random())) / cameras
            c = look_at(yaw, float(rng.uniform(-15, 15)))
            image, mask, depth = ball_view(person, c, size)
            pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            steps = (depth * 10_000).round().numpy().astype(np.uint16)
            record = {"id": f"{10 * person + k:06d}", "identity": person, "camera": c.tolist()}
            record |= {"captions": ["a person"], "attributes": {"Young": True}}
            samples.append(
                record
                | {
                    "image": _png(Image.fromarray(pixels), "WEBP", lossless=True),
                    "mask": _png(mask_to_image(mask)),
                    "depth": _png(Image.fromarray(steps)),
                }
            )
    write_split(folder, samples)
    return folder


STYLES = {"marble": (0, 0, 0), "elf": (2, 0, 1)}  # channels that a picture's come from


def write_styles(faces: Path, folder: Path, people: int = 6) -> None:
    """The first people of a training split, in each style."""
    samples = read_shard(shard_paths(faces / "train")[0])[:people]
    styled = []
    for k, (style, channels) in enumerate(STYLES.items()):
        for sample in samples:
            image = Image.open(io.BytesIO(sample["image"]))
            image = Image.merge("RGB", [image.split()[channel] for channel in channels])
            name = f"{10_000 * k + int(sample['id']):06d}"
            styled.append(sample | {"id": name, "style": style, "image": _png(image)})
    write_split(folder, styled)


def with_views(faces: Path, folder: Path, people: int = 3) -> Path:
    """The dataset `faces`, and beside its splits people seen by several cameras, and styles."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        (folder / split).symlink_to(faces / split)
    write_views(folder / "train_views", people)
    write_styles(faces, folder / "styles")
    return folder
