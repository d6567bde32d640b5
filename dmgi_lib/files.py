"""Files and folders written whole or not at all, and hashes of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary_path)`, then renames, so that `path` is never half written.

    The last of several writers wins; each has a temporary file of its own. The file gets the mode
    that any new file would get.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_whole` of UTF-8 text."""
    write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """The dict in a JSON file. Raises FileNotFoundError, or ValueError if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; fetch the folder anew.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or no JSON ({error}); fetch it anew.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; expected a dict. Fetch it anew."
        )
    return content


def sweep(folder: Path, name: str) -> None:
    """Removes what killed `write_whole`s of `name` (a pattern) left in a folder.

    Only files older than an hour: a younger one may belong to a writer at work.
    """
    for path in folder.glob(f".[0-9]*.{name}"):
        if time.time() - path.stat().st_mtime > 3600.0:
            path.unlink(missing_ok=True)


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as they come back from a file: tuples become lists, keys text."""
    return json.loads(json.dumps(facts))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """What differs between two nested dicts: ["weights.unet was '1f0c', is '93ab'", ...]."""
    found = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old or new, Mapping) and isinstance(new or old, Mapping):
            found += differences(old or {}, new or {}, f"{where}{key}.")
        elif old != new:
            was, is_now = ("nothing" if value is None else repr(value) for value in (old, new))
            found.append(f"{where}{key} was {was}, is {is_now}")
    return found


def file_hash(path: Path) -> str:
    """16 hex digits of SHA-256 over a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def folder_hash(folder: Path, without: Collection[str] = ()) -> str:
    """16 hex digits of SHA-256 over names and bytes of all weights and configs in a folder.

    Args:
        without: subfolders that do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(p for s in ("safetensors", "json") for p in folder.rglob(f"*.{s}")):
        name = path.relative_to(folder)
        if name.parts[0] not in without:
            digest.update(name.as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def state_hash(module: torch.nn.Module) -> str:
    """16 hex digits of SHA-256 over a module's weights as fp16, the precision they ship in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
