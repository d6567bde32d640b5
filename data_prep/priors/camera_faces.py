"""Pictures with what is known of them in three dimensions: mask, depth along rays, and camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import moved, resident, taken
from dmgi_lib.generators.eg3d.cameras import mirrored_camera
from dmgi_lib.masks import flip_mask


@dataclass(frozen=True)
class Seen:
    """A batch.

    image: (B, 3, H, W) in [-1, 1]   mask: (B, H, W) class ids   camera: (B, 25)
    depth: (B, H, W) distance along the ray in world units; 0 where nobody is, or it is unknown
    """

    image: Tensor
    mask: Tensor
    depth: Tensor
    camera: Tensor

    def __getitem__(self, rows: slice) -> Seen:
        return Seen(self.image[rows], self.mask[rows], self.depth[rows], self.camera[rows])


def joined(parts: list[Seen]) -> Seen:
    """Batches as one."""
    return Seen(*(torch.cat(x) for x in zip(*(vars(p).values() for p in parts), strict=True)))


class CameraFaces:
    """A split of a face dataset as batches of `Seen`, where its pictures are read fastest.

    Raises:
        ValueError: samples without a camera (photographs)
    """

    def __init__(self, dataset: FaceDataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self.cameras = dataset.cameras
        self.images, self.masks = resident(dataset.images, device), resident(dataset.masks, device)
        self.depth = resident(dataset.depth, device) if dataset.has("depth") else None

    def batch(self, rows: Tensor, mirrored: Tensor) -> Seen:
        """Rows (B,), of which some (B,) bool are shown mirrored, by a mirrored camera."""
        image, mask = (taken(x, rows, self.device) for x in (self.images, self.masks))
        depth = torch.zeros(mask.shape, device=self.device)
        if self.depth is not None:
            depth = taken(self.depth, rows, self.device)
        camera = self.cameras[rows]
        camera = torch.where(mirrored[:, None], mirrored_camera(camera), camera)
        turned = moved(mirrored, self.device)[:, None, None]
        return Seen(
            to_float(torch.where(turned[:, None], image.flip(3), image)),
            torch.where(turned, flip_mask(mask), mask),
            torch.where(turned, depth.flip(2), depth),
            moved(camera, self.device),
        )


def rows_of_people(dataset: FaceDataset) -> list[Tensor]:
    """Of each identity its rows, in the order of the identities' numbers."""
    people = dataset.identities
    return [(people == person).nonzero()[:, 0] for person in people.unique()]
