"""Pictures with what is known of them in three dimensions: mask, depth along rays, and camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_prep.priors.recipe import turned_rows
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import moved, resident
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

    def rendered(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """What rendered pictures should show: opacity, depth, 1 where it is known; (B, 1, n, n)."""
        depth, size = self.depth[:, None], self.mask.shape[-1] // side
        opacity, known = (F.avg_pool2d((x > 0).float(), size) for x in (self.mask[:, None], depth))
        return opacity, F.avg_pool2d(depth, size), (known == 1).float()


def joined(*parts: Seen) -> Seen:
    """Batches as one."""
    return Seen(*(torch.cat(x) for x in zip(*(vars(p).values() for p in parts), strict=True)))


def seen_in(*parts: tuple[CameraFaces, Tensor, Tensor]) -> Seen:
    """Rows (B,) of each split, of which some (B,) bool are shown mirrored, as one batch."""
    return joined(*(faces.batch(rows, turned) for faces, rows, turned in parts if len(rows)))


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
        image = to_float(turned_rows(self.images, rows, mirrored, self.device))
        mask = turned_rows(self.masks, rows, mirrored, self.device, flip_mask)
        depth = torch.zeros(mask.shape, device=self.device)
        if self.depth is not None:
            depth = turned_rows(self.depth, rows, mirrored, self.device)
        cpu = torch.device("cpu")
        camera = turned_rows(self.cameras, rows, mirrored, cpu, mirrored_camera)
        return Seen(image, mask, depth, moved(camera, self.device))


def rows_of_people(dataset: FaceDataset) -> list[Tensor]:
    """Of each identity its rows, in the order of the identities' numbers."""
    people = dataset.identities
    return [(people == person).nonzero()[:, 0] for person in people.unique()]
