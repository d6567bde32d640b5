"""Cameras as EG3D's 25 numbers (Chan et al. 2022, arXiv 2112.07945, Sec. 4.1), poses and rays.

A camera c is cam2world (16 numbers, a row-major 4×4 matrix, OpenCV axes: x right, y down, z
forward) followed by the intrinsics (9 numbers, a row-major 3×3 matrix in units of the image side).
The world has y up, the head at the origin looks along +z, and released face networks put the
camera 2.7 from the origin with focal length 4.2647.

    c = look_at(yaw=[-30, 0, 30], pitch=0)      # (3, 25)
    origins, directions = camera_rays(c, 64)    # (3, 4096, 3) each
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CAMERA_DIM = 25
RADIUS = 2.7
FOCAL = 4.2647
_ROTATION_TOLERANCE = 1e-2

Numbers = float | Sequence[float] | Tensor


def look_at(
    yaw: Numbers,
    pitch: Numbers,
    radius: Numbers = RADIUS,
    roll: Numbers = 0.0,
    focal: Numbers = FOCAL,
    lookat: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
) -> Tensor:
    """The camera on a sphere around the origin that looks at a point.

    Every argument may be a number or a list; lists are broadcast against each other.

    Args:
        yaw:    degrees; positive moves the camera towards +x, the person's left
        pitch:  degrees, within ±90; positive moves it up
        radius: distance from the origin in world units
        roll:   degrees around the viewing direction
        focal:  focal length in units of the image side
        lookat: (3,) or (..., 3), the point in the image's centre

    Returns:
        (25,) if all arguments are single numbers, else (..., 25), float32 on the CPU

    Raises:
        ValueError: a value that is not finite, radius or focal not positive, a camera at the point
            it should look at or straight above or below it, or lists of different lengths
    """
    names = ("yaw", "pitch", "radius", "roll", "focal")
    # On the CPU, whatever the arguments' device: Apple's has no double precision.
    *given, target = (
        torch.as_tensor(v.cpu() if isinstance(v, Tensor) else v, dtype=torch.float64)
        for v in (yaw, pitch, radius, roll, focal, lookat)
    )
    if target.ndim == 0 or target.shape[-1] != 3:
        raise ValueError(f"lookat came as {tuple(target.shape)}; expected 3 numbers x, y, z.")
    for name, value in zip((*names, "lookat"), (*given, target), strict=True):
        if not value.isfinite().all():
            raise ValueError(f"{name} came as {value.tolist()}; expected finite numbers.")
    for name, value in zip(("radius", "focal"), (given[2], given[4]), strict=True):
        if (value <= 0).any():
            raise ValueError(f"{name} came as {value.tolist()}; expected numbers above 0.")
    try:
        *given, _ = torch.broadcast_tensors(*given, target[..., 0])
    except RuntimeError as error:
        sizes = {n: tuple(v.shape) for n, v in zip(names, given, strict=True)}
        raise ValueError(
            f"lists of the lengths {sizes}, lookat {tuple(target.shape)} came; expected equal"
            " lengths, or single numbers to repeat."
        ) from error
    y, p, r = (torch.deg2rad(v) for v in (given[0], given[1], given[3]))
    unit = torch.stack([y.sin() * p.cos(), p.sin(), y.cos() * p.cos()], dim=-1)
    position = given[2][..., None] * unit
    forward = target - position
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    if (right.norm(dim=-1) < 1e-6 * given[2]).any():
        raise ValueError(
            f"pitch {given[1].tolist()} with lookat {target.tolist()} came; expected a camera that"
            " is not at, straight above or straight below the point it looks at (|pitch| < 90)."
        )
    forward = forward / forward.norm(dim=-1, keepdim=True)
    right = right / right.norm(dim=-1, keepdim=True)
    down = torch.linalg.cross(forward, right)
    cos, sin = r.cos()[..., None], r.sin()[..., None]
    right, down = cos * right + sin * down, cos * down - sin * right
    cam2world = torch.zeros(*y.shape, 4, 4, dtype=torch.float64)
    cam2world[..., :3, :] = torch.stack([right, down, forward, position], dim=-1)
    cam2world[..., 3, 3] = 1.0
    intrinsics = torch.zeros(*y.shape, 3, 3, dtype=torch.float64)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = given[4]
    intrinsics[..., :2, 2] = 0.5
    intrinsics[..., 2, 2] = 1.0
    return compose_camera(cam2world, intrinsics).float()


def camera_angles(c: Tensor) -> Tensor:
    """Yaw, pitch and roll of cameras that look at the origin: `look_at` the other way round.

    Args:
        c: (..., 25)

    Returns:
        (..., 3) degrees; of cameras that look elsewhere, yaw and pitch say where they stand
    """
    cam2world, _ = split_camera(c.double() if c.device.type != "mps" else c)
    right, forward, position = (cam2world[..., :3, i] for i in (0, 2, 3))
    yaw = torch.atan2(position[..., 0], position[..., 2])
    pitch = torch.atan2(position[..., 1], position[..., ::2].norm(dim=-1))
    up = forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    level = F.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, level)
    roll = torch.atan2((right * down).sum(-1), (right * level).sum(-1))
    return torch.rad2deg(torch.stack([yaw, pitch, roll], dim=-1)).to(c.dtype)


def compose_camera(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """(..., 4, 4) and (..., 3, 3) → (..., 25).

    Raises:
        ValueError: matrices of other shapes
    """
    if cam2world.shape[-2:] != (4, 4) or intrinsics.shape[-2:] != (3, 3):
        raise ValueError(
            f"cam2world {tuple(cam2world.shape)} and intrinsics {tuple(intrinsics.shape)} came;"
            " expected (..., 4, 4) and (..., 3, 3)."
        )
    return torch.cat([cam2world.flatten(-2), intrinsics.flatten(-2)], dim=-1)


def split_camera(c: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 25) → cam2world (..., 4, 4) and intrinsics (..., 3, 3).

    Raises:
        ValueError: the last axis is not 25 long
    """
    if c.ndim == 0 or c.shape[-1] != CAMERA_DIM:
        raise ValueError(
            f"camera c came as {tuple(c.shape)}; expected (..., {CAMERA_DIM}): 16 numbers of"
            " cam2world, then 9 of the intrinsics. `look_at(yaw, pitch)` makes one."
        )
    return c[..., :16].unflatten(-1, (4, 4)), c[..., 16:].unflatten(-1, (3, 3))


def mirrored_camera(c: Tensor) -> Tensor:
    """The camera (..., 25) that sees the mirrored head as `c` sees the head, its picture flipped.

    The world is mirrored at x = 0 and the picture from left to right.
    """
    cam2world, K = split_camera(c)
    flip = c.new_tensor([-1.0, 1.0, 1.0, 1.0])
    K = K.clone()
    K[..., 0, 1] *= -1
    K[..., 0, 2] = 1 - K[..., 0, 2]
    return compose_camera(cam2world * flip[:, None] * flip, K)


def validate_camera(c: Tensor) -> None:
    """Checks that c (..., 25) is a camera in the convention of this module.

    Raises:
        ValueError: wrong length, numbers that are not finite, a cam2world that is no rigid motion
            (a transposed matrix, another handedness), or intrinsics in pixels
    """
    c = c.detach().cpu().double()
    cam2world, intrinsics = split_camera(c)
    if not c.isfinite().all():
        raise ValueError("camera c holds NaN or infinite numbers; expected finite ones.")
    bottom = cam2world.new_tensor([0.0, 0.0, 0.0, 1.0])
    if ((cam2world[..., 3, :] - bottom).abs() > _ROTATION_TOLERANCE).any():
        raise ValueError(
            f"cam2world's last row came as {cam2world[..., 3, :].tolist()}; expected (0, 0, 0, 1)."
            " Is the matrix transposed?"
        )
    rotation = cam2world[..., :3, :3]
    drift = (rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype)).abs()
    if (drift > _ROTATION_TOLERANCE).any() or (torch.linalg.det(rotation) < 0).any():
        raise ValueError(
            f"cam2world's rotation came as {rotation.tolist()}; expected right-handed orthonormal"
            " columns right, down, forward (OpenCV axes). Poses in OpenGL axes need their second"
            " and third columns negated."
        )
    focal, centre = intrinsics[..., (0, 1), (0, 1)], intrinsics[..., :2, 2]
    if (focal <= 0).any() or (centre < 0).any() or (centre > 1).any():
        raise ValueError(
            f"intrinsics came with focal lengths {focal.tolist()} and principal point"
            f" {centre.tolist()}; expected units of the image side, about {FOCAL} and 0.5. Divide"
            " the first two rows of a matrix in pixels by the image side."
        )
    last = intrinsics[..., 2, :] - intrinsics.new_tensor([0.0, 0.0, 1.0])
    if (last.abs() > 1e-6).any() or (intrinsics[..., 1, 0].abs() > 1e-6).any():
        raise ValueError(
            f"intrinsics came as {intrinsics.tolist()}; expected rows (fx, skew, cx), (0, fy, cy),"
            " (0, 0, 1)."
        )


def camera_rays(c: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """One ray through the centre of every pixel, in row-major order of the pixels.

    Args:
        c: (B, 25)
        resolution: pixels on a side

    Returns:
        origins and unit directions in the world, (B, resolution², 3) each

    Raises:
        ValueError: c is not (B, 25), or resolution is below 1
    """
    if c.ndim != 2:
        raise ValueError(f"cameras came as {tuple(c.shape)}; expected (B, {CAMERA_DIM}).")
    if resolution < 1:
        raise ValueError(f"resolution came as {resolution}; expected at least 1 pixel.")
    cam2world, K = split_camera(c)
    centres = (torch.arange(resolution, dtype=c.dtype, device=c.device) + 0.5) / resolution
    v, u = (a.flatten() for a in torch.meshgrid(centres, centres, indexing="ij"))
    y = (v - K[:, 1, 2, None]) / K[:, 1, 1, None]  # [B, R]
    x = (u - K[:, 0, 2, None] - K[:, 0, 1, None] * y) / K[:, 0, 0, None]
    pixels = torch.stack([x, y, torch.ones_like(x), torch.ones_like(x)], dim=1)  # [B, 4, R]
    origins = cam2world[:, None, :3, 3].expand(-1, resolution**2, -1)
    directions = (cam2world @ pixels)[:, :3].mT - origins
    return origins, F.normalize(directions, dim=2)
