"""Styles of G (marble, elf, watercolour …) as small changes of its weights, not copies of it.

    pipe("an old man", mask=mask, style="marble")
    pipe.edit(out.latents, style={"marble": 0.6})     # a share of it; several are added up

The paper's stylised faces come out of domain-adapted copies of G while w_t stays. Here a style adds
a matrix of low rank to each convolution, and numbers of its own to biases, colours and the
constant. Mapping and affine layers stay, so that codes keep their meaning. All of this is our
choice (not specified in the paper's available sources); that few numbers suffice is Alanov et
al.'s finding (StyleDomain, arXiv 2212.10229).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.checks import number, one_of

MOST_STRENGTH = 1.5  # far beyond it G draws no faces


class StyleOffsets(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Changes of G's weights for each of some styles. They fit the G that they were trained on.

    Args:
        names: of the styles.
        shapes: of the weights that styles change, by their names in G; see `changed_shapes`.
        rank: of the change of a convolution.
        generator: `dmgi_lib.files.state_hash` of that G; empty if it is not known.
    """

    @register_to_config
    def __init__(
        self,
        names: tuple[str, ...] = (),
        shapes: Mapping[str, Sequence[int]] | None = None,
        rank: int = 4,
        generator: str = "",
    ) -> None:
        super().__init__()
        for name, (out, *rest) in _sized(shapes):
            fan_in = int(torch.Size(rest).numel())
            if rank * (out + fan_in) < out * fan_in:
                left = torch.randn(len(names), out, rank) / rank**0.5
                self.register_parameter(_key(name, "left"), nn.Parameter(left))
                right = torch.zeros(len(names), rank, fan_in)
                self.register_parameter(_key(name, "right"), nn.Parameter(right))
            else:
                whole = torch.zeros(len(names), out, fan_in)
                self.register_parameter(_key(name, "whole"), nn.Parameter(whole))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the styles, in order."""
        return tuple(self.config.names)

    def strengths(self, style: str | Mapping[str, float] | None) -> dict[str, float]:
        """A style's name, or shares by name, as shares by name; those of 0 are left out.

        Raises:
            ValueError: an unknown name, a share out of range.
        """
        given = {style: 1.0} if isinstance(style, str) else dict(style or {})
        for name in given:
            one_of("style", name, self.names)
        shares = {k: number(f"style {k}", v, 0.0, MOST_STRENGTH) for k, v in given.items()}
        return {name: share for name, share in shares.items() if share}

    def changes(self, shares: Mapping[str, float]) -> dict[str, Tensor]:
        """What is added to the weights of G, by their names there."""
        rows = [self.names.index(style) for style in shares]
        found = {}
        for name, shape in self.config.shapes.items():
            if hasattr(self, _key(name, "whole")):
                change = getattr(self, _key(name, "whole"))[rows]
            else:
                left, right = (getattr(self, _key(name, part))[rows] for part in ("left", "right"))
                change = left @ right
            share = torch.tensor(list(shares.values()))[:, None, None].to(change)
            found[name] = (share * change).sum(0).reshape(shape)
        return found

    @contextmanager
    def applied(self, G: nn.Module, shares: Mapping[str, float]) -> Iterator[None]:
        """Inside, G draws in a mixture of styles: `with styles.applied(G, {"elf": 1.0}): ...`.

        Gradients reach the styles. No other thread may draw with G meanwhile.

        Args:
            shares: from `strengths`; none leaves G as it is.

        Raises:
            ValueError: G is another one than that of the styles.
        """
        weights = dict(G.named_parameters())
        for name, shape in self.config.shapes.items():
            if name not in weights or list(weights[name].shape) != list(shape):
                raise ValueError(
                    f"these styles are of another generator: this one has no {name} of shape"
                    f" {list(shape)}."
                )
        changed = self.changes(shares) if shares else {}
        homes = {name: G.get_submodule(name.rpartition(".")[0])._parameters for name in changed}
        try:
            for name, home in homes.items():
                added = changed[name].to(weights[name])
                home[name.rpartition(".")[2]] = weights[name] + added  # type: ignore[assignment]
            yield
        finally:
            for name, home in homes.items():
                home[name.rpartition(".")[2]] = weights[name]


def changed_shapes(G: nn.Module) -> dict[str, list[int]]:
    """Names and shapes of G's weights that styles change: all but mapping and affine layers."""
    return {
        name: list(weight.shape)
        for name, weight in G.named_parameters()
        if not {"mapping", "affine"} & set(name.split("."))
    }


def _sized(shapes: Mapping[str, Sequence[int]] | None) -> list[tuple[str, tuple[int, ...]]]:
    """Shapes with at least one dimension: numbers alone are of length 1."""
    return [(name, tuple(shape) or (1,)) for name, shape in (shapes or {}).items()]


def _key(name: str, part: str) -> str:
    """A parameter's name here, where dots would mean modules."""
    return f"{name.replace('.', '/')}/{part}"
