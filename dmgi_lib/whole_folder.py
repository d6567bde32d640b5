"""A folder of a few files, replaced while others read and write it.

A new version is written beside the folder, then gets the name `.<folder>.ready`, which is the
moment from which it counts, and its files are moved into place one by one. A process that is killed
on the way loses nothing: whoever reads or writes the folder next finishes the move. Writers take
turns (`.<folder>.lock`, released by the operating system when its holder dies); the last one wins.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

Result = TypeVar("Result")


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(new_folder)` and puts what it wrote in place of `folder`, whole or not at all.

    Args:
        folder: replaced if it exists; files of its old version that the new one lacks go. Its
            files get the mode that any new file would get. Subfolders are not supported.

    Raises:
        OSError: the disk is full, or (on Windows) somebody holds an old file open; the old version
            then stays, or the next reader finishes the move.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _turn(folder):
        _finish(folder)
        new, old = _beside(folder, "new"), set()
        shutil.rmtree(new, ignore_errors=True)  # of a writer that was killed
        try:
            new.mkdir()
            write(new)
            _set_modes(new)
            kept = {path.name for path in new.iterdir()}
            if folder.is_dir():
                old = {path.name for path in folder.iterdir()} - kept
            os.rename(new, _beside(folder, "ready"))
        except Exception as error:  # torch and safetensors say it in many ways, if at all
            if "No space left" in str(error) or shutil.disk_usage(folder.parent).free < 2**20:
                raise OSError(
                    errno.ENOSPC,
                    f"the disk of {folder} is full; what was there before is untouched. Free some"
                    " space and write it again",
                ) from error
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        _finish(folder)
        for name in old:
            (folder / name).unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Finishes what killed writers of a folder, or of the folders inside it, left undone."""
    waiting = [_beside(folder, "ready"), *folder.glob(".*.ready")]
    for ready in waiting:
        if ready.is_dir():
            target = ready.with_name(ready.name[1 : -len(".ready")])
            with _turn(target):
                _finish(target)


def read_folder(folder: Path, read: Callable[[], Result]) -> Result:
    """`read()`, repeated if a writer replaced the folder's files, or those in it, meanwhile."""
    while True:
        settle(folder)
        before = _state(folder)
        if before is None:
            continue
        try:
            result = read()
        except (OSError, ValueError, RuntimeError):
            if _state(folder) == before:
                raise
            continue
        if _state(folder) == before:
            return result


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _turn(folder: Path) -> FileLock:
    return FileLock(_beside(folder, "lock"))


def _finish(folder: Path) -> None:
    """Moves the files of a ready version into place; to be called by the one whose turn it is."""
    ready = _beside(folder, "ready")
    if not ready.is_dir():
        return
    folder.mkdir(exist_ok=True)
    for path in sorted(ready.iterdir()):
        os.replace(path, folder / path.name)
    ready.rmdir()


def _state(folder: Path) -> list[tuple[str, int, int, int]] | None:
    """What tells one version of the files from another; None while a move is under way."""
    paths = [_beside(folder, "ready"), *folder.glob("*"), *folder.glob("*/*")]
    state = []
    for path in sorted(paths):
        if path.name.startswith("."):
            if path.name.endswith(".ready") and path.is_dir():
                return None
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        state.append((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return state


def _set_modes(folder: Path) -> None:
    """Some libraries write files that only their owner may read."""
    probe = folder / ".probe"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.iterdir():
        path.chmod(mode & 0o777)
