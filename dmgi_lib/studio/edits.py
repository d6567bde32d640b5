"""Edits of faces that the studio drew: sliders along directions, and style mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dmgi_lib.editing import mixed
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.studio.drawing import Result


def edit_names(pipe: DMGIPipeline) -> list[str]:
    """Of the directions of a model, none if it has none."""
    return [] if pipe.edit_directions is None else list(pipe.edit_directions.names)


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
