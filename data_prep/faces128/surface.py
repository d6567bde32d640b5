"""The body's mesh refined for skin: twice in the face, once elsewhere, and curved between corners.

MakeHuman's triangles are about 5 mm wide in the face, two pixels of a picture; folds, freckles and
the borders of lips need finer ones.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from data_prep.faces128 import strands as st
from data_prep.faces128.head import head_model, vertex_normals

CURVATURE = 0.6  # share of the way from the flat midpoint to the curved one


@dataclass(frozen=True)
class Split:
    """One refinement: `ends` (E, 2), edges that get a new vertex, in order; `faces` after it."""

    ends: np.ndarray
    faces: np.ndarray


def split(faces: np.ndarray, count: int, wanted: np.ndarray) -> Split:
    """Splits the `wanted` (F,) triangles in four, and their neighbours so that no gap opens.

    Args:
        faces: (F, 3) vertex indices below `count`.
    """
    corners = np.stack([faces, np.roll(faces, -1, 1)], -1)  # (F, 3, 2): edges 01, 12, 20
    edges, of_face = np.unique(np.sort(corners.reshape(-1, 2), 1), axis=0, return_inverse=True)
    of_face = of_face.reshape(-1, 3)
    cut = np.zeros(len(edges), bool)
    cut[of_face[wanted]] = True
    new = np.where(cut, count + np.cumsum(cut) - 1, -1)[of_face]  # (F, 3)
    out = [faces[(new < 0).all(1)]]
    number = (new >= 0).sum(1)
    for amount in (1, 2, 3):
        chosen = number == amount
        f, m = faces[chosen], new[chosen]
        # turn every triangle so that its cut edges come first
        first = np.argmax(m >= 0, 1) if amount == 1 else (np.argmin(m >= 0, 1) + 1) % 3
        turn = (first[:, None] + np.arange(3)) % 3
        (a, b, c), (ab, bc, ca) = (np.take_along_axis(x, turn, 1).T for x in (f, m))
        triangles = {
            1: [(a, ab, c), (ab, b, c)],
            2: [(a, ab, c), (ab, bc, c), (ab, b, bc)],
            3: [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)],
        }[amount]
        out += [np.stack(triangle, 1) for triangle in triangles]
    return Split(edges[cut], np.concatenate(out))


def average_neighbours(faces: np.ndarray, count: int) -> csr_matrix:
    """(count, count) averages each vertex with those it shares an edge of faces (F, 3) with."""
    rows = np.r_[faces.ravel(), np.arange(count)]
    columns = np.r_[np.roll(faces, -1, 1).ravel(), np.arange(count)]
    total = csr_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    return csr_matrix(total.multiply(1 / total.sum(1)))


@dataclass(frozen=True)
class Surface:
    """The refined body.

    Attributes:
        splits: refinements in order; vertex indices go on after the head model's.
        average: (V', 3) refined average head, on which regions and relief are drawn.
        regions: name → (V',) weights in [0, 1], the head model's, between vertices too.
    """

    splits: tuple[Split, ...]
    average: np.ndarray
    average_normals: np.ndarray
    regions: dict[str, np.ndarray]

    @property
    def faces(self) -> np.ndarray:
        """(F', 3) vertex indices."""
        return self.splits[-1].faces

    @functools.cached_property
    def incidence(self) -> csr_matrix:
        """(V', F') which triangles touch a vertex."""
        f = self.faces
        columns = np.repeat(np.arange(len(f)), 3)
        shape = (len(self.average), len(f))
        return csr_matrix((np.ones(f.size), (f.ravel(), columns)), shape)

    @functools.cached_property
    def neighbours(self) -> csr_matrix:
        """(V', V') averages a vertex's neighbours (and itself); alone, a vertex keeps its value."""
        return average_neighbours(self.faces, len(self.average))

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """(V', 3) unit normals."""
        corners = vertices[self.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return st.unit(self.incidence @ flat)

    def between(self, values: np.ndarray) -> np.ndarray:
        """(V',) values at the head model's vertices (V,), interpolated at the new ones."""
        for step in self.splits:
            values = np.concatenate([values, values[step.ends].mean(1)])
        return values

    def refined(self, vertices: np.ndarray) -> np.ndarray:
        """(V', 3) the surface through the head model's (V, 3) vertices, metres."""
        return _refined(vertices, self.splits)


def _refined(vertices: np.ndarray, splits: tuple[Split, ...]) -> np.ndarray:
    faces = head_model().faces["body"]
    for step in splits:
        normals = vertex_normals(vertices, faces)
        a, b = (vertices[step.ends[:, k]] for k in (0, 1))
        middle = (a + b) / 2
        bend = np.zeros_like(middle)
        for end, column in ((a, 0), (b, 1)):
            normal = normals[step.ends[:, column]]
            bend -= 0.5 * np.einsum("ed,ed->e", middle - end, normal)[:, None] * normal
        vertices = np.concatenate([vertices, middle + CURVATURE * bend])
        faces = step.faces
    return vertices


@functools.lru_cache(maxsize=1)
def surface() -> Surface:
    """The refinement of the head model's body, made once."""
    model = head_model()
    average, _ = st.average_head()
    faces = model.faces["body"]
    centre = average[faces].mean(1)
    hidden = (model.regions["inside-mouth"][faces].min(1) > 0.9) | (centre[:, 2] < -0.2)
    first = split(faces, len(average), ~hidden)
    points = _refined(average, (first,))
    centre = points[first.faces].mean(1)
    front = (centre[:, 2] > -0.035) & (centre[:, 1] > -0.115) & (centre[:, 1] < 0.085)
    inner = np.concatenate([model.regions["inside-mouth"], np.zeros(len(points) - len(average))])
    second = split(first.faces, len(points), front & (inner[first.faces].max(1) < 0.5))
    points = _refined(average, (first, second))
    made = Surface((first, second), points, vertex_normals(points, second.faces), {})
    made.regions.update({name: made.between(weight) for name, weight in model.regions.items()})
    return made
