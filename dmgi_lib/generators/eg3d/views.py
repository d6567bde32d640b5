"""Pictures of a head from chosen cameras: colour, depth and normals, and turntables.

    render(G, ws, look_at(yaw=[-30, 0, 30], pitch=0))       # three PIL images
    turntable(G, ws, frames=36, yaw=(-40, 40), path="head.webp")

The planes of a code are computed once, whatever the number of its views.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dmgi_lib import editing
from dmgi_lib.checks import number, one_of, whole_number
from dmgi_lib.dataset import to_uint8
from dmgi_lib.files import write_whole
from dmgi_lib.generators.eg3d.cameras import (
    CAMERA_DIM,
    Numbers,
    camera_angles,
    camera_rays,
    look_at,
    split_camera,
    validate_camera,
)
from dmgi_lib.generators.eg3d.generator import EG3DOutput, TriPlaneGenerator

OUTPUTS = ("image", "depth", "normals")
ANIMATIONS = (".webp", ".gif")
MOST_VIEWS = 1024  # of one call
FINEST = 64  # least side in pixels at which depth and normals are rendered


def as_3d(G: Any) -> TriPlaneGenerator:
    """G itself. Raises ValueError if it draws pictures rather than heads."""
    if not isinstance(G, TriPlaneGenerator):
        came = "no generator" if G is None else f"a {type(G).__name__}, which knows no cameras"
        raise ValueError(
            f"this model holds {came}; expected a TriPlaneGenerator. Load one that does:"
            ' DMGIPipeline.from_pretrained("mini-3d").'
        )
    return G


def check_codes(G: TriPlaneGenerator, latents: Any) -> Tensor:
    """W+ codes (B, num_ws, w_dim), or one (num_ws, w_dim), as (B, num_ws, w_dim) for this G.

    Raises:
        ValueError: see `editing.check_codes`
    """
    codes = latents[None] if isinstance(latents, Tensor) and latents.ndim == 2 else latents
    editing.check_codes("latents", codes, (G.num_ws, G.w_dim))
    return codes.detach().to(G.mean_latent)


def as_cameras(camera: Any, G: TriPlaneGenerator, count: int | None = None) -> Tensor:
    """Cameras as a user gives them → (V, 25); a warning of views beyond what G has seen.

    Args:
        camera: (25,) or (V, 25) numbers, or (yaw, pitch) or (yaw, pitch, roll) in degrees
        count: None = any number of cameras; else one is repeated, and others must be as many

    Raises:
        ValueError: another length, numbers that are no camera, or another count
    """
    try:
        given = torch.as_tensor(camera, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"camera came as {type(camera).__name__}; expected {CAMERA_DIM} numbers or (yaw, pitch)"
            " in degrees."
        ) from error
    if given.shape in ((2,), (3,)):
        yaw, pitch, *roll = given.tolist()
        given = look_at(yaw, pitch, roll=roll[0] if roll else 0.0)
    cameras = given[None] if given.ndim == 1 else given
    if cameras.ndim != 2 or cameras.shape[1] != CAMERA_DIM or not len(cameras):
        raise ValueError(
            f"camera came as {tuple(given.shape)}; expected (V, {CAMERA_DIM}) numbers, such as"
            " look_at(yaw=[-30, 0, 30], pitch=0) makes, or (yaw, pitch) in degrees."
        )
    validate_camera(cameras)
    if count is not None and len(cameras) not in (1, count):
        raise ValueError(f"{len(cameras)} cameras came for {count} images; expected 1 or {count}.")
    warn_of_pose(cameras, G)
    return cameras if count is None else cameras.expand(count, -1)


def warn_of_pose(cameras: Tensor, G: TriPlaneGenerator) -> None:
    """Warns of yaw and pitch outside the `pose_range` of G's config; silent if it has none."""
    yaw, pitch, _ = camera_angles(cameras.detach().cpu()).unbind(-1)
    for name, angles in (("yaw", yaw), ("pitch", pitch)):
        low, high = (G.config.get("pose_range") or {}).get(name, (-180.0, 180.0))
        # Half a degree: cameras are single-precision matrices.
        beyond = angles[(angles < low - 0.5) | (angles > high + 0.5)]
        if len(beyond):
            warnings.warn(
                f"{name} came as {beyond[0]:.0f} degrees ({len(beyond)} of {len(angles)} views);"
                f" this generator has seen {low:g} to {high:g} alone and guesses what is beyond.",
                stacklevel=4,
            )


def view_cameras(
    G: TriPlaneGenerator, yaw: Numbers, pitch: Numbers, roll: Numbers, camera: Any = None
) -> Tensor:
    """(V, 25) of angles in degrees (numbers or lists of equal length), or of `camera`."""
    if camera is None:
        return as_cameras(look_at(yaw, pitch, roll=roll), G)
    angles = (yaw, pitch, roll)
    if any(not isinstance(angle, (int, float)) or angle != 0 for angle in angles):
        raise ValueError("camera came together with yaw, pitch or roll; expected one of the two.")
    return as_cameras(camera, G)


@torch.no_grad()
def render(
    G: TriPlaneGenerator, latents: Tensor, cameras: Tensor, output: str = "image"
) -> list[Image.Image]:
    """Every code from every camera: all views of the first code, then of the second.

    Args:
        latents: (B, num_ws, w_dim)
        cameras: (V, 25)
        output: "image"; "depth", near white, far dark, one scale for the whole call, from the
            nearest hundredth of what is seen to the farthest tenth; or "normals", red to the right,
            green up, blue to the camera. Depth and normals are rendered at G's neural resolution,
            64 pixels at least, and enlarged; where a generator tells head from wall (alpha), the
            wall is black.

    Returns:
        B · V RGB images of G's size

    Raises:
        ValueError: codes of another generator, unknown output, more than 1024 views
    """
    one_of("output", output, OUTPUTS)
    codes = check_codes(G, latents)
    whole_number("views (codes times cameras)", len(codes) * len(cameras), 1, MOST_VIEWS)
    cameras = cameras.to(codes)
    if output == "image":
        seen = [to_uint8(view.image[0]) for _, view in _views(G, codes, cameras)]
        return [Image.fromarray(s.permute(1, 2, 0).cpu().numpy()) for s in seen]
    side = max(FINEST, G.neural_rendering_resolution)
    pairs = list(_views(G, codes, cameras, side))
    if output == "depth":
        pictures = _depth_pictures([view for _, view in pairs])
    else:
        pictures = [_normal_picture(c, view) for c, view in pairs]
    size = (G.img_resolution, G.img_resolution)
    return [Image.fromarray(p).resize(size, Image.Resampling.BILINEAR) for p in pictures]


def turntable(
    G: TriPlaneGenerator,
    latents: Tensor,
    frames: int = 36,
    yaw: Sequence[float] = (-40.0, 40.0),
    pitch: float = 0.0,
    path: str | Path | None = None,
    fps: float = 18.0,
) -> list[Image.Image]:
    """A head that turns there and back without a seam.

    Args:
        latents: (num_ws, w_dim) or (1, num_ws, w_dim), one code
        frames: of the whole loop; each view is seen twice, so half of them are rendered
        yaw: from and to, degrees
        pitch: degrees
        path: .webp or .gif to write as well; None = none
        fps: frames a second in that file

    Raises:
        ValueError: several codes, bad angles or counts, another ending; before any work
    """
    codes = one_code(G, latents)
    frames = whole_number("frames", frames, 2, MOST_VIEWS)
    fps = number("fps", fps, 0.5, 60.0)
    if not isinstance(yaw, (tuple, list)) or len(yaw) != 2:
        raise ValueError(f"yaw came as {yaw!r}; expected two angles, such as (-40, 40).")
    if path is not None:
        path = checked_path(path, ANIMATIONS)
    swing = torch.arange(frames // 2 + 1) * (2 * torch.pi / frames)
    share = (1 - swing.cos()) / 2
    cameras = view_cameras(G, yaw[0] + (yaw[1] - yaw[0]) * share, pitch, 0.0)
    views = render(G, codes, cameras)
    shown = [views[min(i, frames - i)] for i in range(frames)]
    if path is not None:
        write_animation(shown, path, fps)
    return shown


def one_code(G: TriPlaneGenerator, latents: Tensor) -> Tensor:
    """(1, num_ws, w_dim). Raises ValueError if several codes came, or none."""
    codes = check_codes(G, latents)
    if len(codes) != 1:
        raise ValueError(f"{len(codes)} codes came; expected one: latents[0].")
    return codes


def checked_path(path: str | Path, endings: Sequence[str]) -> Path:
    """A path to write to. Raises ValueError if its ending is none of `endings`."""
    path = Path(path).expanduser()
    if path.suffix.lower() not in endings:
        raise ValueError(
            f"path came as {str(path)!r}; expected one ending in {' or '.join(endings)}."
        )
    return path


def write_animation(pictures: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Writes an endless .webp or .gif (256 colours)."""
    first, *others = pictures
    options: dict[str, Any] = {"save_all": True, "append_images": others, "loop": 0}
    options |= {"duration": round(1000 / fps)}
    if path.suffix.lower() == ".webp":
        options |= {"quality": 90}
    write_whole(path, lambda target: first.save(target, **options))


def _views(G: TriPlaneGenerator, codes: Tensor, cameras: Tensor, side: int | None = None) -> Any:
    """(camera (1, 25), EG3DOutput) of every view, one after the other."""
    for code in codes.split(1):
        planes = G.planes(code)
        for c in cameras.split(1):
            yield c, G.synthesis(code, c, side, planes=planes)


def covered(view: EG3DOutput) -> Tensor:
    """(n, n) bool: where the head is."""
    return view.image_alpha[0, 0] > 0.5


def surface(c: Tensor, depth: Tensor) -> Tensor:
    """Cameras (B, 25) and depth (B, 1, n, n) along their rays → points (B, n, n, 3)."""
    n = depth.shape[-1]
    origins, directions = camera_rays(c.to(depth), n)
    return (origins + depth.flatten(1)[..., None] * directions).unflatten(1, (n, n))


def normals(points: Tensor) -> Tensor:
    """Unit normals (B, n, n, 3) of points (B, n, n, 3), towards the camera."""
    down, across = torch.gradient(points, dim=(1, 2))
    return F.normalize(torch.linalg.cross(down, across), dim=-1)


def _depth_pictures(views: list[EG3DOutput]) -> list[np.ndarray]:
    there = [covered(view) for view in views]
    depths = [view.image_depth[0, 0] for view in views]
    seen = torch.cat([d[t] for d, t in zip(depths, there, strict=True)])
    near, far = np.quantile(seen.cpu().numpy(), (0.01, 0.9)) if len(seen) else (0.0, 1.0)
    pictures = []
    for depth, mask in zip(depths, there, strict=True):
        light = 1 - 0.8 * (depth - near) / max(far - near, 1e-6)
        grey = (255 * light.clamp(0, 1) * mask).byte()
        pictures.append(grey[..., None].expand(-1, -1, 3).contiguous().cpu().numpy())
    return pictures


def _normal_picture(c: Tensor, view: EG3DOutput) -> np.ndarray:
    outward = normals(surface(c, view.image_depth))[0]
    cam2world, _ = split_camera(c[0].to(outward))
    seen = outward @ cam2world[:3, :3] * outward.new_tensor([1.0, -1.0, -1.0])
    picture = ((seen + 1) * 127.5 * covered(view)[..., None]).round().byte()
    return picture.cpu().numpy()
