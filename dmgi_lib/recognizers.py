"""Judges of the evaluation protocol (Table 1), and the recognition network of the training losses.

`Recognizer` is the one network that losses may see: a plain VGG-style stack trained on parsing,
attributes and head shape at once, whose features make the perceptual loss and whose predicted head
shape makes the identity loss. The three judges are other networks, of other architectures (a small
U-Net; pre-activation residual networks), from other seeds; no optimiser of M or T ever sees them.

The paper measures with networks for photographs (a BiSeNet-style parser, ArcFace, LPIPS-VGG). Those
read real faces; these read the mini world. All sizes are our choice (not specified in the paper's
available sources).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dmgi_lib.dataset import ATTRIBUTES, FACE_ATTRIBUTES, resized
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognition_layers import (
    PlacedHead,
    ResidualBody,
    conv_norm_relu,
    pooled_head,
)

HAIR_COLORS: tuple[str, ...] = ("black", "brown", "blond", "red", "gray", "none")
IMAGE_SIZE = 128  # every network here reads 128 x 128; other sizes are resampled
SHAPE_CODE_SIZE = 48
CODE_SIZE = SHAPE_CODE_SIZE + 1  # head shape, then skin tone
SKIN_TONE_MEAN, SKIN_TONE_STD = 0.5, 0.29  # a uniform draw from 0..1, standardised like the shape


def hair_color_name(known: str | None) -> str | None:
    """A record's hair colour out of HAIR_COLORS: "white" counts as "gray", as in CelebA.

    None where the record does not know it, as of photographs with several or no colours named.
    """
    name = "gray" if known == "white" else known
    return name if name in HAIR_COLORS else None


def identity_code(shape_codes: Tensor, skin_tones: Tensor) -> Tensor:
    """Regression target of the identity networks.

    Args:
        shape_codes: (B, 48), standardised head-shape parameters.
        skin_tones:  (B,), 0 (very light) .. 1 (very dark).

    Returns:
        (B, 49), each column with mean 0 and standard deviation 1 over the world.
    """
    tone = (skin_tones - SKIN_TONE_MEAN) / SKIN_TONE_STD
    return torch.cat([shape_codes, tone[:, None].to(shape_codes)], dim=1)


def _prepared(image: Tensor) -> Tensor:
    """Checks an image batch and brings it to 128 x 128; on CPUs channels last, which is faster."""
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
        raise ValueError(
            f"a recognition network got an image tensor of shape {tuple(image.shape)}; expected "
            "(B, 3, H, W) with H = W. Add the batch dimension, or crop to a square."
        )
    if not image.is_floating_point():
        raise ValueError(
            f"a recognition network got an image tensor of type {image.dtype}; expected floats in "
            "[-1, 1]. Convert with dmgi_lib.dataset.to_float."
        )
    image = resized(image, IMAGE_SIZE)
    if image.device.type != "cpu":
        return image
    return image.contiguous(memory_format=torch.channels_last)


def _known(attributes: tuple[str, ...]) -> tuple[str, ...]:
    """Checks the names of what a network reads."""
    unknown = [name for name in attributes if name not in ATTRIBUTES]
    if unknown or len(set(attributes)) < len(attributes):
        raise ValueError(
            f"a recognition network came with the attributes {list(attributes)}; expected each once"
            f" and out of dmgi_lib.dataset.ATTRIBUTES, {unknown} are not. The weights are of"
            " another version of the kit, or their config.json was changed."
        )
    return tuple(attributes)


class _AttributeReader(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What the networks share that read some of ATTRIBUTES, and the hair colour."""

    @property
    def reads(self) -> Tensor:
        """(A,) bool on the CPU, order of ATTRIBUTES: which the network reads; others come as 0."""
        return torch.tensor([name in self.config.attributes for name in ATTRIBUTES])

    def _placed(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the attributes read and of the hair colour → (B, A) and (B, 6)."""
        read, hair_color = labels.split([len(self.config.attributes), len(HAIR_COLORS)], dim=1)
        columns = dict(zip(self.config.attributes, read.unbind(1), strict=True))
        unread = read.new_zeros(len(read))
        return torch.stack([columns.get(name, unread) for name in ATTRIBUTES], 1), hair_color


class RecognizerOutput(NamedTuple):
    """What the loss network reads from an image."""

    parsing: Tensor  # (B, 19, 64, 64) logits
    attributes: Tensor  # (B, A) logits, order of ATTRIBUTES; 0 where the network does not read
    hair_color: Tensor  # (B, 6) logits, order of HAIR_COLORS
    code: Tensor  # (B, 49) predicted identity_code


class Recognizer(_AttributeReader):
    """The loss network: conv-norm-ReLU pairs with average pooling, read at five scales.

    Average pooling instead of VGG's max pooling, because its gradient reaches every pixel.

    Args:
        channels: width of the stages at 128, 64, 32, 16 and 8 pixels.
        attributes: which of ATTRIBUTES it reads, in the order of its logits.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 96, 128),
        attributes: tuple[str, ...] = FACE_ATTRIBUTES,
    ) -> None:
        super().__init__()
        inputs = (3, *channels[:-1])
        depths = (1, 2, 2, 2, 2)  # one layer at full resolution keeps the network fast
        self.stages = nn.ModuleList(
            nn.Sequential(*(conv_norm_relu(i if n == 0 else o, o) for n in range(depth)))
            for i, o, depth in zip(inputs, channels, depths, strict=True)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(c, 48, 1) for c in channels[1:])
        self.to_parsing = nn.Sequential(conv_norm_relu(48, 48), nn.Conv2d(48, len(CLASSES), 1))
        self.to_labels = pooled_head(channels[-1], len(_known(attributes)) + len(HAIR_COLORS))
        self.to_code = PlacedHead(channels[-1], 8, CODE_SIZE)

    def features(self, image: Tensor) -> list[Tensor]:
        """Features for the perceptual loss.

        Args:
            image: (B, 3, H, W) in [-1, 1].

        Returns:
            five tensors (B, C, S, S), S = 128, 64, 32, 16, 8, not normalised.
        """
        x = _prepared(image)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.avg_pool2d(x, 2) if features else x)
            features.append(x)
        return features

    def parsing(self, features: Sequence[Tensor]) -> Tensor:
        """`features` → (B, 19, 64, 64) logits."""
        pyramid = self.laterals[-1](features[-1])
        for lateral, feature in zip(self.laterals[-2::-1], features[-2:0:-1], strict=True):
            pyramid = F.interpolate(pyramid, scale_factor=2.0) + lateral(feature)
        return self.to_parsing(pyramid)

    def identity(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, 49) unit vectors, the direction of the predicted code."""
        return F.normalize(self.to_code(self.features(image)[-1]), dim=1)

    def attributes(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, A) logits, order of ATTRIBUTES; spares the parsing."""
        return self._placed(self.to_labels(self.features(image)[-1]))[0]

    def attributes_and_code(self, deepest: Tensor) -> tuple[Tensor, Tensor]:
        """The last of `features` → logits (B, A), order of ATTRIBUTES, and code (B, 49)."""
        return self._placed(self.to_labels(deepest))[0], self.to_code(deepest)

    def forward(self, image: Tensor) -> RecognizerOutput:
        """(B, 3, H, W) in [-1, 1] → everything the network was trained to read."""
        features = self.features(image)
        attributes, hair_color = self._placed(self.to_labels(features[-1]))
        code = self.to_code(features[-1])
        return RecognizerOutput(self.parsing(features), attributes, hair_color, code)


class ParserJudge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Face parser: a U-Net from a strided stem to a depth-to-space head.

    Args:
        channels: width at 64, 32, 16 and 8 pixels.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(conv_norm_relu(i, o), *([conv_norm_relu(o, o)] if o != i else []))
            for i, o in zip((channels[0], *channels[:-1]), channels, strict=True)
        )
        self.up = nn.ModuleList(
            conv_norm_relu(deep + skip, skip)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], len(CLASSES) * 4, 3, padding=1)

    def features(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] → four tensors (B, C, S, S), S = 64, 32, 16, 8."""
        x = self.stem(_prepared(image))
        features: list[Tensor] = []
        for stage in self.down:
            x = stage(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features

    def embedding(self, image: Tensor) -> Tensor:
        """Features for Fréchet distances: the deepest ones, averaged over places, (B, 128)."""
        return self.features(image)[-1].mean(dim=(2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, 19, 128, 128) logits."""
        *skips, x = self.features(image)
        for stage, skip in zip(self.up, reversed(skips), strict=True):
            x = stage(torch.cat([F.interpolate(x, scale_factor=2.0), skip], dim=1))
        return F.pixel_shuffle(self.head(x), 2)

    @torch.no_grad()
    def parse(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], on any device → (B, 128, 128) long there, class ids 0..18."""
        return self(image.to(self.device)).argmax(dim=1).to(image.device)


class AttributeJudge(_AttributeReader):
    """Reads the attributes and the hair colour.

    It learns parsing beside them, from the features at 16 pixels: without that, parts of a few
    pixels (spectacles, an open mouth) took it very long to find.

    Args:
        channels: width of the residual stages at 64, 32, 16 and 8 pixels.
        attributes: which of ATTRIBUTES it reads, in the order of its logits.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 96, 160),
        attributes: tuple[str, ...] = FACE_ATTRIBUTES,
    ) -> None:
        super().__init__()
        count = len(_known(attributes)) + len(HAIR_COLORS)
        self.body = ResidualBody(channels)
        self.to_labels = pooled_head(channels[-1], count)
        self.to_placed_labels = PlacedHead(channels[-1], 16, count)
        self.to_parsing = nn.Conv2d(channels[-2], len(CLASSES) * 16, 1)

    def labels_and_parsing(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and logits of the classes (B, 19, 64, 64)."""
        *_, middle, deepest = self.body.features(_prepared(image))
        labels = self.to_labels(deepest) + self.to_placed_labels(deepest)
        parsing = F.pixel_shuffle(self.to_parsing(middle), 4)
        return *self._placed(labels), parsing

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] → logits of the attributes (B, A), of the hair colour (B, 6)."""
        return self.labels_and_parsing(image)[:2]

    @torch.no_grad()
    def read(self, image: Tensor) -> tuple[Tensor, list[str]]:
        """Read a batch of images.

        Args:
            image: (B, 3, H, W) in [-1, 1], on any device.

        Returns:
            (B, A) bool there, in the order of ATTRIBUTES, False where it does not read (see
            `reads`), and B names out of HAIR_COLORS.
        """
        attributes, hair_color = self(image.to(self.device))
        colors = [HAIR_COLORS[i] for i in hair_color.argmax(dim=1).tolist()]
        return (attributes > 0).to(image.device), colors


class IdentityJudge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Embeds a face as the head shape and skin tone it reads, so that hair and light count little.

    Args:
        channels: width of the residual stages at 64, 32, 16 and 8 pixels.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (24, 48, 96, 192)) -> None:
        super().__init__()
        self.body = ResidualBody(channels)
        self.to_code = PlacedHead(channels[-1], 12, CODE_SIZE)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, 49), the predicted identity_code."""
        return self.to_code(self.body(_prepared(image)))

    @torch.no_grad()
    def identity(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, 49) unit vectors; compare them by cosine."""
        return F.normalize(self(image), dim=1)


@dataclass(frozen=True)
class Judges:
    """The three judges of a weights folder."""

    parser: ParserJudge
    attributes: AttributeJudge
    identity: IdentityJudge


def load_judges(folder: str | Path, device: str | torch.device = "cpu") -> Judges:
    """Load the judges in fp32, whatever the pictures are drawn in, and eval mode.

    Args:
        folder: holds judge_parser/, judge_attributes/ and judge_identity/.

    Raises:
        FileNotFoundError: if one of them is missing.
    """
    homes = {
        "judge_parser": ParserJudge,
        "judge_attributes": AttributeJudge,
        "judge_identity": IdentityJudge,
    }
    missing = [name for name in homes if not (Path(folder) / name / "config.json").is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; expected a folder with config.json and weights "
            "for each judge. Train them with: python -m data_prep.priors.trainer"
        )
    parser, attributes, identity = (
        kind.from_pretrained(Path(folder) / name, torch_dtype=torch.float32).eval().to(device)
        for name, kind in homes.items()
    )
    return Judges(parser, attributes, identity)
