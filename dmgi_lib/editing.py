"""Editing in W+: directions that each change one thing of a face, and style mixing of two faces.

    out = pipe("a young woman with black hair", mask=mask)
    pipe.edit(out.latents, smile=1, age=-0.5).images[0]
    pipe.mix(out.latents, other.latents, "coarse").images[0]

A direction is a step in W+, as in Shen et al. 2020 (arXiv 1907.10786) but with a row of its own for
each style layer, found by `dmgi_lib.training.edit_directions`. The paper edits nothing; this is the
kit's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.checks import number, whole_number

MOST_STRENGTH = 5.0  # far beyond it G draws no faces
# Style mixing's words (StyleGAN, Karras et al. 2019, Sec. 3.1): rows of 4²–8², 16²–32², the rest.
ROWS: dict[str, slice] = {"coarse": slice(0, 4), "middle": slice(4, 8), "fine": slice(8, None)}


@dataclass(frozen=True)
class Edit:
    """What one direction changes.

    more, less: attribute and value that +1 and -1 ask for; none for the yaw, which is a number
    kin: other attributes that tell of the same thing, so that they may change with it
    """

    more: tuple[str, bool] | None
    less: tuple[str, bool] | None
    kin: tuple[str, ...] = ()


_HAIR_COLORS = ("Brown_Hair", "Red_Hair", "Gray_Hair", "White_Hair")
_BEARDS = ("Goatee", "Mustache", "5_o_Clock_Shadow", "Sideburns")
# Hair from black to blond as one line is our choice; red and gray are asked of the prompt.
EDITS: dict[str, Edit] = {
    "age": Edit(("Young", False), ("Young", True)),
    "smile": Edit(("Smiling", True), ("Smiling", False)),
    "eyeglasses": Edit(("Eyeglasses", True), ("Eyeglasses", False), ("Sunglasses",)),
    "hair_lightness": Edit(("Blond_Hair", True), ("Black_Hair", True), _HAIR_COLORS),
    "hair_length": Edit(("Long_Hair", True), ("Long_Hair", False)),
    "beard": Edit(("Full_Beard", True), ("No_Beard", True), _BEARDS),
    "yaw": Edit(None, None),  # +1: the camera towards the person's left
}


class EditDirections(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One step in W+ for each of some names. It fits the G that it was found for, and no other.

    Args:
        names: of the directions, such as those of EDITS.
        num_ws, w_dim: rows and width of G's W+ code.
        generator: `dmgi_lib.files.state_hash` of that G; empty if it is not known.
    """

    @register_to_config
    def __init__(
        self,
        names: tuple[str, ...] = tuple(EDITS),
        num_ws: int = 12,
        w_dim: int = 128,
        generator: str = "",
    ) -> None:
        super().__init__()
        # [K, num_ws, w_dim]; a step of strength 1
        self.directions = nn.Parameter(torch.zeros(len(names), num_ws, w_dim), requires_grad=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the directions, in order."""
        return tuple(self.config.names)

    def forward(self, latents: Tensor, strengths: Mapping[str, float]) -> Tensor:
        """Codes moved along directions.

        Args:
            latents: (B, num_ws, w_dim); left unchanged.
            strengths: name → -5 … 5; 1 is a step that clearly changes most faces, and names that
                are not given stay as they are.

        Returns:
            (B, num_ws, w_dim), of the type and on the device of `latents`

        Raises:
            ValueError: an unknown name, a strength out of range, codes of another shape.
        """
        if unknown := sorted(set(strengths) - set(self.names)):
            raise ValueError(
                f"unknown edits {unknown} came; expected some of {list(self.names)}, such as"
                f" {self.names[0]}=1."
            )
        check_codes("latents", latents, tuple(self.directions.shape[1:]))
        moved = latents
        for name, value in strengths.items():
            strength = number(name, value, -MOST_STRENGTH, MOST_STRENGTH)
            moved = moved + strength * self.directions[self.names.index(name)].to(latents)
        return moved


def mixed(latents_a: Tensor, latents_b: Tensor, rows: str | Sequence[int] = "coarse") -> Tensor:
    """Style mixing: the codes of a, with some rows from b.

    Args:
        latents_a: (B, num_ws, w_dim).
        latents_b: the same, or one code for all.
        rows: "coarse" (pose, shape of head and hair), "middle" (features, colours of hair and skin
            in the mini world), "fine" (texture), or numbers of rows, 0 … num_ws - 1.

    Raises:
        ValueError: codes of other shapes, an unknown word, a number that is no row.
    """
    check_codes("latents_a", latents_a)
    check_codes("latents_b", latents_b, tuple(latents_a.shape[1:]))
    if len(latents_b) not in (1, len(latents_a)):
        raise ValueError(
            f"latents_b came with {len(latents_b)} codes for {len(latents_a)} of latents_a;"
            " expected as many, or one."
        )
    mix = latents_a.clone()
    chosen: slice | list[int]
    if isinstance(rows, str):
        if rows not in ROWS:
            raise ValueError(
                f"rows came as {rows!r}; expected one of {list(ROWS)}, or numbers of rows."
            )
        chosen = ROWS[rows]
    else:
        chosen = [whole_number("a row", row, 0, latents_a.shape[1] - 1) for row in rows]
    mix[:, chosen] = latents_b[:, chosen].to(latents_a)
    return mix


def check_codes(name: str, latents: Tensor, expected: tuple[int, ...] | None = None) -> None:
    """Raises ValueError unless `latents` are (B, num_ws, w_dim), of the expected sizes if given."""
    sizes = ", ".join(map(str, expected)) if expected else "num_ws, w_dim"
    if not isinstance(latents, Tensor):
        raise ValueError(
            f"{name} came as a {type(latents).__name__}; expected a tensor (B, {sizes}), such as"
            " the `latents` of a pipeline's output."
        )
    fits = latents.ndim == 3 and (expected is None or tuple(latents.shape[1:]) == expected)
    if not fits or not latents.is_floating_point() or not bool(latents.isfinite().all()):
        broken = " with NaN or infinite numbers" if fits and latents.is_floating_point() else ""
        raise ValueError(
            f"{name} came as {tuple(latents.shape)}, {latents.dtype}{broken}; expected finite"
            f" floats (B, {sizes}). Add the batch dimension with latents[None]; codes of another"
            ' generator, such as the 2D one of "mini" for heads, mean nothing to this one.'
        )
