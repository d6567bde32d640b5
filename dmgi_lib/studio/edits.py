"""Edits of faces that the studio drew: directions, style mixing, styles, and heads turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from dmgi_lib.editing import mixed
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import camera_angles
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.studio.drawing import Result

WIDEST = {"yaw": (-45.0, 45.0), "pitch": (-20.0, 20.0)}  # where a model does not say


def view_ranges(pipe: DMGIPipeline) -> dict[str, list[float]]:
    """Degrees that a model's heads can be turned by, none if it draws pictures."""
    if not isinstance(pipe.generator, TriPlaneGenerator):
        return {}
    known = pipe.generator.config.pose_range or {}
    return {name: list(known.get(name, widest)) for name, widest in WIDEST.items()}


def angles(result: Result) -> list[list[float]]:
    """(yaw, pitch) in degrees of each face that has a camera."""
    if result.cameras is None:
        return []
    found: list[list[float]] = camera_angles(result.cameras.float().cpu())[:, :2].tolist()
    return found


def redrawn(pipe: DMGIPipeline, result: Result, face: int, asked: Mapping[str, Any]) -> Image.Image:
    """The picture of one face's code: of a head, from its own camera or as it was turned.

    Args:
        asked: "view", None or (yaw, pitch) in degrees; "style", None or shares by name, none of
            which make a photograph.

    Raises:
        ValueError: "view" is no camera, or turns a picture; an unknown style or share.
    """
    code, own = result.latents[face : face + 1], result.cameras
    camera = asked.get("view") or (None if own is None else own[face])
    style, image = style_of(result, face, asked), Image.Image()
    if camera is None:
        (image,) = pipe.edit(code, style=style).images
    else:
        (image,) = pipe.render(code, camera=camera, style=style)
    return image


def style_of(result: Result, face: int, asked: Mapping[str, Any]) -> dict[str, float]:
    """The style that is asked for, else that in which a face was drawn."""
    asked_for = asked.get("style")
    return result.styles[face] if asked_for is None else asked_for


def revised(
    pipe: DMGIPipeline, result: Result, face: int, asked: Mapping[str, Any], kept: Sequence[Result]
) -> Result:
    """A result with another code, and so far the old picture, of one face.

    Args:
        asked: "mix", None or {"number", "face", "rows"} of the face that gives rows first, and
            "strengths" of directions, as the page tells them.
        kept: results to mix with.

    Raises:
        ValueError: what `mixed` and `EditDirections` refuse; a face that is not kept.
        AttributeError: "mix" or "strengths" is no dict.
    """
    code = result.latents[face : face + 1]
    mix, strengths = asked.get("mix"), asked.get("strengths") or {}
    if mix:
        givers = [one for one in kept if one.request.number == mix.get("number")]
        giver = mix.get("face")
        if not givers or giver not in range(len(givers[0].latents)):
            raise ValueError("the face to mix with is no longer kept; draw it anew.")
        code = mixed(code, givers[0].latents[giver : giver + 1], str(mix.get("rows")))
    if strengths:
        code = pipe.edit_directions(code, strengths)
    latents = result.latents.clone()
    latents[face] = code[0].to(latents)
    return replace(result, latents=latents)
