"""One sample of a built face world: its files, and the person and picture they were made from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.faces128.build import sample_person
from data_prep.faces128.head import head_model
from data_prep.faces128.person import Identity, View
from dmgi_lib.dataset import FaceDataset


@dataclass(frozen=True)
class Sample:
    """One sample as it lies on disk: image (H, W, 3), mask (H, W), depth (H, W) world units."""

    record: dict
    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    identity: Identity
    view: View


def read(root: Path, split: str, count: int | None = None) -> list[Sample]:
    """The first `count` samples of a split, in file order.

    Raises:
        FileNotFoundError: no built set is there, or only a sample without depth maps.
    """
    data = FaceDataset(root, split, memory=0)
    if not data.has("depth"):
        raise FileNotFoundError(
            f"{data.folder} lacks depth maps, which the sample in the clone has not; name a built"
            " face world with --root, or build it with `make faces`."
        )
    rows = slice(count)
    images = data.images[rows].permute(0, 2, 3, 1).numpy()
    pictures = zip(images, data.masks[rows].numpy(), data.depth[rows].numpy(), strict=True)
    samples = []
    for record, (image, mask, depth) in zip(data.records[rows], pictures, strict=True):
        _, identity, view, _ = sample_person(split, int(record["id"]))
        samples.append(Sample(record, image, mask, depth, identity, view))
    return samples


def project(point: np.ndarray, camera: np.ndarray, size: int) -> tuple[float, float]:
    """Pixel coordinates (x, y), pixel centres at .5, of a world point under an EG3D camera."""
    seen = np.linalg.inv(camera[:16].reshape(4, 4)) @ np.r_[point, 1.0]
    x, y, z = camera[16:].reshape(3, 3) @ seen[:3]
    return float(x / z * size), float(y / z * size)


@dataclass(frozen=True)
class Eyeball:
    """An eye of the mesh: centre (3,) and radius in world units, x and y in pixels."""

    centre: np.ndarray
    radius: float
    x: float
    y: float


def eyeballs(sample: Sample) -> dict[str, Eyeball]:
    """Both eyes, by their mask class, where the sample's camera sees them."""
    from data_prep.faces128.render import METRES_PER_UNIT, PIVOT
    from data_prep.faces128.scene import eye_centres

    identity, model = sample.identity, head_model()
    shape = {**identity.shape(), **sample.view.expression}
    body = model.vertices(identity.phenotype, shape)
    camera = np.array(sample.record["camera"])
    found = {}
    for name, centre in zip(("l_eye", "r_eye"), eye_centres(body), strict=True):
        ball = body[np.unique(model.faces[name])]
        radius = 0.97 * float(np.ptp(ball, axis=0)[:2].mean() / 2) / METRES_PER_UNIT
        point = (centre - PIVOT) / METRES_PER_UNIT
        found[name] = Eyeball(point, radius, *project(point, camera, len(sample.mask)))
    return found
