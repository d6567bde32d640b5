"""Section 3, AbSMNet T: decoder features f_t and attention maps a_t → w_t^γ, w_t^β.

    w_t = w_t^m ⊙ w_t^γ ⊕ w_t^β                                                    (`modulate`)

Stated by the paper (Fig. 2): a_t is max-pooled; f_t and the pooled maps go, once as they are and
once averaged, to one resolution; features and maps are multiplied, F̂ = F ⊙ A and F̄̂ = F̄ ⊙ Ā; a
style modulation network reads both products. The axes of pooling and averaging, and that network's
inside, are our choice (not specified in the paper's available sources), as options of
`ModulationConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from dmgi_lib.checks import one_of

POOLS = ("tokens", "heads_and_tokens")
AVERAGES = ("blocks", "space")
PATHS = ("both", "local", "averaged")
POOLED = (1, 2, 4)


@dataclass(frozen=True)
class ModulationConfig:
    """Sizes and choices of T.

    in_channels: C_n of each decoder block's f_t^n, deepest first
    resolution: edge of the largest f_t^n, where features and maps meet
    num_ws, w_dim: rows and width of G's W+ code
    reduced_channels: each f_t^n is brought to this width by a 1x1 convolution
    width: channels of the convolution stacks
    pool: max over the prompt's words of the head-averaged maps ("tokens"), or over heads and words
    average: averaged path uses the mean over blocks ("blocks") or over positions ("space")
    paths: which products reach the style modulation network
    pooled: edge that each path's 4x4 features are averaged to before the FC layer: 4 keeps the
        layout as it is, 1 leaves none
    """

    in_channels: tuple[int, ...] = (128, 96)
    resolution: int = 16
    num_ws: int = 12
    w_dim: int = 128
    reduced_channels: int = 48
    width: int = 96
    pool: str = "tokens"
    average: str = "blocks"
    paths: str = "both"
    pooled: int = 2

    def __post_init__(self) -> None:
        one_of("pool", self.pool, POOLS)
        one_of("average", self.average, AVERAGES)
        one_of("paths", self.paths, PATHS)
        one_of("pooled", self.pooled, POOLED)
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise ValueError(
                f"resolution came as {self.resolution}; expected a power of two of at least 4."
            )


def pool_attention(
    a: Sequence[torch.Tensor], word_mask: torch.Tensor, pool: str = "tokens"
) -> tuple[torch.Tensor, ...]:
    """Max-pools each block's cross-attention over the words of the prompt.

    Args:
        a: N x (B, heads, Q_n, L) probabilities.
        word_mask: (B, L) bool, True at word tokens; begin, end and padding tokens are False,
            because the first token draws most of the attention whatever the prompt says.
        pool: see ModulationConfig.

    Returns:
        N x (B, 1, H_n, W_n) in [0, 1]; zeros where a prompt has no words.
    """
    pooled = []
    for maps in a:
        maps = maps * word_mask[:, None, None, :]  # probabilities, so 0 is neutral under max
        over_heads = maps.amax(1) if pool == "heads_and_tokens" else maps.mean(1)
        edge = int(maps.shape[2] ** 0.5)
        pooled.append(over_heads.amax(-1).view(-1, 1, edge, edge))
    return tuple(pooled)


def modulate(w_m: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """w_t = w_t^m ⊙ w_t^γ ⊕ w_t^β, all (B, num_ws, w_dim)."""
    return w_m * gamma + beta


def truncate_detail(w: torch.Tensor, w_avg: torch.Tensor, psi: float) -> torch.Tensor:
    """Draws the last row of w (B, num_ws, w_dim) towards w_avg, as StyleGAN truncates codes.

    The last row styles only G's last toRGB, which adds the detail of the full resolution. Networks
    trained to come near a picture learn to fade it, presumably since a wrong detail costs more than
    a missing one; codes of G's own faces lie about w_avg there too. Our choice (not in the paper).

    Args:
        psi: 1 leaves w as it is, 0 puts w_avg (w_dim,) into its last row.
    """
    if psi == 1.0:
        return w
    return torch.cat([w[:, :-1], w_avg.lerp(w[:, -1:], psi)], dim=1)


class StyleModulationNetwork(ModelMixin, ConfigMixin):
    """T. Arguments: see ModulationConfig; `**asdict(config)` passes one whole.

    The last layers start at zero, so γ = 1 and β = 0: T starts as the identity. Buffers `f_mean`,
    `f_std` (sum of C_n,) and `a_scale` (N,) standardise the inputs; `calibrate` sets them before
    training.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: tuple[int, ...] = (128, 96),
        resolution: int = 16,
        num_ws: int = 12,
        w_dim: int = 128,
        reduced_channels: int = 48,
        width: int = 96,
        pool: str = "tokens",
        average: str = "blocks",
        paths: str = "both",
        pooled: int = 2,
    ) -> None:
        super().__init__()
        in_channels = tuple(in_channels)
        ModulationConfig(
            *(in_channels, resolution, num_ws, w_dim, reduced_channels, width),
            *(pool, average, paths, pooled),
        )
        self.resolution, self.num_ws, self.w_dim = resolution, num_ws, w_dim
        self.splits = list(in_channels)
        blocks = len(in_channels)
        self.reduce = nn.ModuleList(nn.Conv2d(c, reduced_channels, 1) for c in in_channels)
        averaged_channels = reduced_channels * (1 if average == "blocks" else blocks)
        sources = {"local": reduced_channels * blocks, "averaged": averaged_channels}
        used = ("local", "averaged") if paths == "both" else (paths,)
        self.stacks = nn.ModuleDict(
            {
                name: _code_stack(sources[name], width, resolution, pooled, 2 * num_ws * w_dim)
                for name in used
            }
        )
        if paths == "both":
            self.mix = nn.Parameter(torch.zeros(num_ws, 1))  # sigmoid → share of the local path
        self.register_buffer("f_mean", torch.zeros(sum(in_channels)))
        self.register_buffer("f_std", torch.ones(sum(in_channels)))
        self.register_buffer("a_scale", torch.ones(blocks))

    @torch.no_grad()
    def with_layout(self, pooled: int) -> StyleModulationNetwork:
        """A copy that sees more of the layout and gives the same codes; training goes on from it.

        Args:
            pooled: see ModulationConfig. A weight is shared out among the cells whose mean it met.

        Raises:
            ValueError: coarser than this network's.
        """
        edge = self.config.pooled
        if pooled < edge:
            raise ValueError(f"pooled came as {pooled} for a T of {edge}; expected {edge} or more.")
        options = {name: v for name, v in self.config.items() if not name.startswith("_")}
        finer: StyleModulationNetwork = type(self)(**(options | {"pooled": pooled}))
        state, parts = self.state_dict(), pooled // edge
        for name, stack in self.stacks.items():
            key = f"stacks.{name}.{len(list(stack.children())) - 1}.weight"  # of the FC layer
            cells = state[key].unflatten(1, (-1, edge, edge)) / parts**2
            for axis in (2, 3):
                cells = cells.repeat_interleave(parts, axis)
            state[key] = cells.flatten(1)
        finer.load_state_dict(state)
        return finer

    @torch.no_grad()
    def calibrate(self, f: Sequence[torch.Tensor], maps: Sequence[torch.Tensor]) -> None:
        """Sets the input statistics from training samples: f and maps as in `forward`."""
        self.f_mean.copy_(torch.cat([x.float().mean(dim=(0, 2, 3)) for x in f]))
        self.f_std.copy_(torch.cat([x.float().std(dim=(0, 2, 3)) for x in f]).clamp_min(1e-4))
        self.a_scale.copy_(torch.stack([1.0 / m.float().mean().clamp_min(1e-4) for m in maps]))

    def forward(
        self, f: Sequence[torch.Tensor], maps: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes of one step.

        Args:
            f: N x (B, C_n, H_n, W_n) decoder features f_t^n.
            maps: N x (B, 1, H'_n, W'_n) from `pool_attention`.

        Returns:
            w_t^γ and w_t^β, each (B, num_ws, w_dim).
        """
        means, stds = self.f_mean.split(self.splits), self.f_std.split(self.splits)
        features, weights = [], []  # F_t and A_t
        for n, (x, m) in enumerate(zip(f, maps, strict=True)):
            x = (x - means[n][:, None, None]) / stds[n][:, None, None]
            features.append(self._upsample(self.reduce[n](x)))  # 1x1 and bilinear commute
            weights.append(self._upsample(m * self.a_scale[n]))
        codes = {}
        if "local" in self.stacks:
            local = [x * m for x, m in zip(features, weights, strict=True)]  # F̂ = F ⊙ A
            codes["local"] = self.stacks["local"](torch.cat(local, dim=1))
        if "averaged" in self.stacks:
            codes["averaged"] = self.stacks["averaged"](self._averaged(features, weights))
        shape = (2, self.num_ws, self.w_dim)
        if len(codes) == 2:
            local_code, averaged_code = (c.unflatten(1, shape) for c in codes.values())
            code = torch.lerp(averaged_code, local_code, self.mix.sigmoid().to(local_code.dtype))
        else:
            code = next(iter(codes.values())).unflatten(1, shape)
        gamma, beta = code.unbind(1)
        return 1.0 + gamma, beta

    def _averaged(self, features: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
        """F̄ ⊙ Ā."""
        if self.config.average == "blocks":
            return torch.stack(features).mean(0) * torch.stack(weights).mean(0)
        means = [
            x.mean((2, 3), keepdim=True) * m.mean((2, 3), keepdim=True)
            for x, m in zip(features, weights, strict=True)
        ]
        return torch.cat(means, dim=1).expand(-1, -1, self.resolution, self.resolution)

    def _upsample(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] == self.resolution:
            return x
        return F.interpolate(x, size=(self.resolution,) * 2, mode="bilinear", align_corners=False)


def _code_stack(
    channels: int, width: int, resolution: int, pooled: int, code: int
) -> nn.Sequential:
    """Stride-2 3x3 convolutions to 4x4, pooled, then an FC layer that starts at zero."""
    layers: list[nn.Module] = []
    while resolution > 4:
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU()]
        channels, resolution = width, resolution // 2
    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    fc = nn.Linear(width * pooled**2, code)
    nn.init.zeros_(fc.weight)
    nn.init.zeros_(fc.bias)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), fc)
