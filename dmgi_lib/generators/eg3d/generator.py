"""EG3D generator G (Chan et al. 2022, arXiv 2112.07945): tri-planes, volume rendering, upsampling.

Plain PyTorch with the parameter names of the official PyTorch release, so that its weights load
unchanged.

    G = TriPlaneGenerator(img_resolution=512, sr_channels=(256, 128))
    c = look_at(yaw=[-30.0, 30.0], pitch=0)                         # (2, 25)
    ws = G.mapping(torch.randn(2, 512), c, truncation_psi=0.7)      # (2, 14, 512)
    out = G.synthesis(ws, c)
    out.image, out.image_raw, out.image_depth     # (2, 3, 512, 512), (2, 3, 128, 128), (2, 1, ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.checks import one_of
from dmgi_lib.generators.eg3d.cameras import CAMERA_DIM, camera_rays, validate_camera
from dmgi_lib.generators.eg3d.planes import (
    PAPER_AXES,
    PLANE_AXES,
    TriPlaneDecoder,
    sample_planes,
)
from dmgi_lib.generators.eg3d.super_resolution import SuperResolution
from dmgi_lib.generators.eg3d.volume_rendering import (
    MAX_POINTS,
    Field,
    RenderingConfig,
    render_rays,
)
from dmgi_lib.generators.stylegan2 import StyleMapping, SynthesisNetwork
from dmgi_lib.generators.stylegan2_layers import MAX_WIDTH, check_sizes, full_precision

PLANES = ("zx", "yz")


@dataclass(frozen=True)
class EG3DOutput:
    """What one view shows; n is the neural rendering resolution.

    image:       (B, 3, H, W), about [-1, 1], not clipped
    image_raw:   (B, 3, n, n), the rendered image before super-resolution, likewise
    image_depth: (B, 1, n, n), expected distance from the camera along the ray, in world units
    image_alpha: (B, 1, n, n), share of the ray that the planes' scene stops, in [0, 1]
    """

    image: Tensor
    image_raw: Tensor
    image_depth: Tensor
    image_alpha: Tensor


class TriPlaneBackbone(nn.Module):
    """The StyleGAN2 generator whose image is the three feature planes."""

    def __init__(self, mapping: StyleMapping, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis


class TriPlaneGenerator(ModelMixin, ConfigMixin):
    """G = super-resolution ∘ volume rendering ∘ tri-plane backbone.

    The defaults, with img_resolution=512 and sr_channels=(256, 128), are those of the released
    network for faces. Two options are for networks trained anew: planes as the paper draws them,
    and a backdrop, a picture from the same w that stands still behind the head when the head turns
    (as in PanoHead, arXiv 2303.13071), so that the planes need not hold a wall.

    Args:
        z_dim, c_dim, w_dim: widths of latent z, camera label c (25; 0 = mapping without a camera)
            and style code w
        img_resolution: output side in pixels, a power of two
        mapping_layers: fully connected layers of the mapping network
        channel_base, channel_max: channels of the backbone at resolution r =
            min(channel_base / r, channel_max)
        plane_resolution, plane_channels: side and channels of each plane
        decoder_hidden: hidden width of the decoder
        feature_channels: rendered features, of which the first three are RGB
        neural_rendering_resolution: side of the rendered image
        sr_channels, sr_input_resolution, sr_antialias, sr_conv_clamp: see `SuperResolution`; the
            released networks clamp at 256; sr_input_resolution None = img_resolution / 2, at most
            128
        conv_clamp: as sr_conv_clamp, in the backbone
        c_gen_conditioning_zero: mapping reads zeros instead of the camera
        c_scale: factor on the camera that mapping reads
        rendering: a RenderingConfig, or its fields as a dict
        third_plane: "zx", as the released networks were trained, or "yz", as in the paper
        backdrop_resolution: side of the picture behind the head; 0 = none, the scene is all there
            is. Its network has the channels of the backbone
        pose_range: degrees that training showed, {"yaw": (-45, 45), "pitch": (-15, 15)}; views
            beyond them are warned of; None = unknown

    Raises:
        ValueError: sizes that are no integers, out of range, or do not fit together; another third
            plane; a white background together with a backdrop
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = CAMERA_DIM,
        w_dim: int = 512,
        img_resolution: int = 512,
        mapping_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        plane_resolution: int = 256,
        plane_channels: int = 32,
        decoder_hidden: int = 64,
        feature_channels: int = 32,
        neural_rendering_resolution: int = 128,
        sr_channels: Sequence[int] = (256, 128),
        sr_input_resolution: int | None = None,
        sr_antialias: bool = True,
        sr_conv_clamp: float | None = None,
        conv_clamp: float | None = None,
        c_gen_conditioning_zero: bool = False,
        c_scale: float = 1.0,
        rendering: RenderingConfig | dict[str, Any] | None = None,
        third_plane: str = "zx",
        backdrop_resolution: int = 0,
        pose_range: dict[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(rendering, RenderingConfig):
            rendering = RenderingConfig(**(rendering or {}))
        self.register_to_config(rendering=asdict(rendering), sr_channels=list(sr_channels))
        check_sizes(
            z_dim=(z_dim, 1, MAX_WIDTH),
            w_dim=(w_dim, 1, MAX_WIDTH),
            mapping_layers=(mapping_layers, 1, 64),
            channel_base=(channel_base, 1, 2**24),
            channel_max=(channel_max, 1, MAX_WIDTH),
            plane_channels=(plane_channels, 1, MAX_WIDTH),
            decoder_hidden=(decoder_hidden, 1, MAX_WIDTH),
            feature_channels=(feature_channels, 3, MAX_WIDTH),
            neural_rendering_resolution=(neural_rendering_resolution, 1, 4096),
            img_resolution=(img_resolution, 4, 4096),
        )
        if c_dim not in (0, CAMERA_DIM):
            raise ValueError(f"c_dim came as {c_dim}; expected {CAMERA_DIM}, or 0 for no camera.")
        self.axes = PLANE_AXES if one_of("third_plane", third_plane, PLANES) == "zx" else PAPER_AXES
        if backdrop_resolution and rendering.white_back:
            raise ValueError("white_back came with a backdrop; expected one or the other.")
        if not 0 <= backdrop_resolution <= plane_resolution:
            raise ValueError(
                f"backdrop_resolution came as {backdrop_resolution}; expected 0 … "
                f"{plane_resolution}, that of the planes, whose style rows it shares."
            )
        self.rendering = rendering
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.plane_channels = img_resolution, plane_channels
        self.neural_rendering_resolution = neural_rendering_resolution
        synthesis = SynthesisNetwork(
            w_dim, plane_resolution, 3 * plane_channels, channel_base, channel_max, conv_clamp
        )
        self.backbone = TriPlaneBackbone(
            StyleMapping(z_dim, c_dim, w_dim, synthesis.num_ws, mapping_layers), synthesis
        )
        self.decoder = TriPlaneDecoder(plane_channels, decoder_hidden, feature_channels)
        self.superresolution = SuperResolution(
            feature_channels,
            sr_channels,
            w_dim,
            min(img_resolution // 2, 128) if sr_input_resolution is None else sr_input_resolution,
            img_resolution,
            sr_antialias,
            sr_conv_clamp,
        )
        self.backdrop: SynthesisNetwork | None = None
        if backdrop_resolution:
            widths = (channel_base, channel_max, conv_clamp)
            self.backdrop = SynthesisNetwork(w_dim, backdrop_resolution, feature_channels, *widths)

    @property
    def num_ws(self) -> int:
        """Number of style rows: 2 log2(plane_resolution) − 2."""
        return self.backbone.synthesis.num_ws

    @property
    def mean_latent(self) -> Tensor:
        """w_avg (w_dim,): the centre of truncation."""
        return self.backbone.mapping.w_avg

    def mapping(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """z (B, z_dim) and the camera that conditions it → ws (B, num_ws, w_dim).

        Args:
            c: (B, 25), need not be the camera that is rendered; may be missing if the network
                ignores it (c_gen_conditioning_zero or c_dim = 0)
            truncation_psi, truncation_cutoff: see `StyleMapping`

        Raises:
            ValueError: z or c of another shape, or a missing camera
        """
        if self.c_dim == 0:
            c = None
        elif self.config.c_gen_conditioning_zero:
            c = z.new_zeros(len(z), self.c_dim)
        elif c is not None:
            c = c * self.config.c_scale
        return self.backbone.mapping(z, c, truncation_psi, truncation_cutoff)

    def planes(
        self, ws: Tensor, noise_mode: str = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """ws (B, num_ws, w_dim) → feature planes (B, 3, C, H, W): the scene without a camera.

        As in the released networks, planes and rendering keep full precision under autocast; only
        super-resolution runs at half. With parameters of half precision the backbone's features
        are half too, planes and rendering stay fp32.

        Raises:
            ValueError: wrong shape of ws or unknown noise mode
        """
        with full_precision(self.mean_latent):
            stacked = self.backbone.synthesis(ws, noise_mode, generator)
        return stacked.unflatten(1, (3, self.plane_channels))

    def synthesis(
        self,
        ws: Tensor,
        c: Tensor,
        neural_rendering_resolution: int | None = None,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        deterministic: bool = True,
        max_points: int | None = MAX_POINTS,
        planes: Tensor | None = None,
    ) -> EG3DOutput:
        """Renders each scene from its camera. Differentiable in ws and c.

        Args:
            ws: (B, num_ws, w_dim); equal rows are W, free rows W+
            c:  (B, 25) cameras, see `dmgi_lib.generators.eg3d.cameras`
            neural_rendering_resolution: side of image_raw; None = the network's own
            noise_mode: of the backbone: "const" stored noise maps, "random" fresh ones, "none"
            generator: source of random noise and jitter; None = torch's default generator
            deterministic: evenly spaced samples on rays (our choice for images that repeat);
                False jitters them, as in training
            max_points: points on rays in memory at once, which bounds peak memory without
                gradients; None = all
            planes: (B, 3, C, H, W) of the same ws from `planes`, to render several views of a scene
                without running the backbone again

        Raises:
            ValueError: wrong shapes, unknown noise mode, or numbers that are no camera
        """
        if ws.ndim != 3 or c.shape != (len(ws), CAMERA_DIM):
            raise ValueError(
                f"ws {tuple(ws.shape)} and cameras {tuple(c.shape)} came; expected"
                f" (B, {self.num_ws}, {self.w_dim}) and (B, {CAMERA_DIM}) with the same B."
            )
        validate_camera(c)
        ws = ws.to(self.mean_latent.device)
        if max_points is not None and max_points < 1:
            raise ValueError(f"max_points came as {max_points}; expected at least 1, or None.")
        if planes is None:
            planes = self.planes(ws, noise_mode, generator)
        elif planes.shape[:3] != (len(ws), 3, self.plane_channels):
            raise ValueError(
                f"planes came as {tuple(planes.shape)}; expected what `planes(ws)` returns,"
                f" ({len(ws)}, 3, {self.plane_channels}, H, W)."
            )
        n = neural_rendering_resolution or self.neural_rendering_resolution
        features, depth, alpha = self.render(
            planes, c, n, self.wall(ws, noise_mode, generator), deterministic, generator, max_points
        )
        image_raw = features[:, :3]
        image = self.superresolution(features, image_raw, ws)
        return EG3DOutput(image, image_raw, depth, alpha)

    def wall(
        self, ws: Tensor, noise_mode: str = "const", generator: torch.Generator | None = None
    ) -> Tensor | None:
        """ws (B, num_ws, w_dim) → what stands behind the heads, (B, feature_channels, H, W)."""
        if self.backdrop is None:
            return None
        with full_precision(self.mean_latent):
            return self.backdrop(ws[:, : self.backdrop.num_ws], noise_mode, generator)

    def render(
        self,
        planes: Tensor,
        c: Tensor,
        resolution: int,
        wall: Tensor | None = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
        max_points: int | None = MAX_POINTS,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What super-resolution reads: the scene from its camera, before its wall.

        Args:
            planes, wall: of the same scenes; see `planes` and `wall`
            c: (B, 25)
            resolution: n, side of the picture in pixels
            deterministic, generator, max_points: see `synthesis`

        Returns:
            features (B, feature_channels, n, n), of which the first three are the image; depth and
            alpha (B, 1, n, n), see EG3DOutput
        """
        size = (resolution, resolution)
        with full_precision(planes):
            origins, directions = camera_rays(c.to(planes), resolution)
            scene, config = self._field(planes), self.rendering
            seen = render_rays(
                scene, origins, directions, config, deterministic, generator, max_points
            )
            colors, depth, alpha = (x.mT.unflatten(2, size) for x in seen)  # each (B, ?, n, n)
            features = 2 * colors - 1
            if wall is not None:
                antialias = wall.shape[-1] > resolution
                wall = F.interpolate(wall, size, mode="bilinear", antialias=antialias)
                features = features + (1 - alpha) * (wall + 1)  # no wall is black, -1
        return features, depth, alpha

    def sample(
        self,
        points: Tensor,
        ws: Tensor,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        max_points: int | None = MAX_POINTS,
        planes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Asks the scene itself, for instance on a grid from which a mesh is extracted.

        Args:
            points: (B, P, 3) in world units; planes span the cube of side box_warp
            ws: (B, num_ws, w_dim)
            max_points: points in memory at once; None = all
            planes: as in `synthesis`

        Returns:
            colour features (B, P, feature_channels), about [0, 1], and raw density (B, P, 1); the
            surface lies where softplus(density − 1) is large

        Raises:
            ValueError: wrong shapes or unknown noise mode
        """
        if points.ndim != 3 or points.shape[2] != 3 or len(points) != len(ws):
            raise ValueError(f"points came as {tuple(points.shape)}; expected ({len(ws)}, P, 3).")
        if planes is None:
            planes = self.planes(ws, noise_mode, generator)
        size = points.shape[1] if max_points is None else max_points // len(ws)
        pieces = points.to(planes).split(max(1, size), dim=1)
        with full_precision(planes):
            colors, sigma = zip(*map(self._field(planes), pieces), strict=True)
        return torch.cat(colors, dim=1), torch.cat(sigma, dim=1)

    def _field(self, planes: Tensor) -> Field:
        return lambda points: self.decoder(
            sample_planes(planes, points, self.rendering.box_warp, self.axes)
        )

    def forward(
        self, z: Tensor, c: Tensor, truncation_psi: float = 1.0, **options: Any
    ) -> EG3DOutput:
        """z (B, z_dim) seen from the cameras c (B, 25) that also condition mapping.

        `options` are those of `synthesis`.
        """
        return self.synthesis(self.mapping(z, c, truncation_psi), c, **options)
