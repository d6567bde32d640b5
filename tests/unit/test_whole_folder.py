"""Folders that several processes replace, read, and are killed in."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from dmgi_lib.whole_folder import read_folder, settle, write_folder

WRITER = """
import sys
from pathlib import Path
from dmgi_lib.whole_folder import write_folder
folder, word, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for i in range(rounds):
    text = f"{word} {i}"
    write_folder(folder, lambda new: [(new / f"{n}.txt").write_text(text) for n in "abcd"])
    print(i, flush=True)
"""
READER = """
import sys
from pathlib import Path
from dmgi_lib.whole_folder import read_folder
folder = Path(sys.argv[1])
for i in range(int(sys.argv[2])):
    texts = read_folder(folder, lambda: [(folder / f"{n}.txt").read_text() for n in "abcd"])
    assert len(set(texts)) == 1, texts
"""


def process(program: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def version(text: str):
    return lambda new: [(new / f"{name}.txt").write_text(text) for name in "abcd"]


def texts(folder) -> set[str]:
    return read_folder(folder, lambda: {(folder / f"{n}.txt").read_text() for n in "abcd"})


def leftovers(folder) -> set[str]:
    return {path.name for path in folder.parent.iterdir()} - {folder.name, f".{folder.name}.lock"}


def test_writers_and_readers_at_the_same_time(tmp_path):
    folder = tmp_path / "part"
    write_folder(folder, version("first"))
    writers = [process(WRITER, folder, word, 60) for word in ("one", "two", "three")]
    readers = [process(READER, folder, 300) for _ in range(2)]
    for work in (*writers, *readers):
        _, errors = work.communicate(timeout=120)
        assert work.returncode == 0, errors
    assert texts(folder) <= {f"{word} 59" for word in ("one", "two", "three")}
    assert not leftovers(folder)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_writers_lose_nothing(tmp_path):
    folder = tmp_path / "part"
    write_folder(folder, version("first"))
    for delay in range(8):
        work = process(WRITER, folder, f"round{delay}", 10**6)
        assert work.stdout is not None
        for _ in range(delay + 1):
            work.stdout.readline()
        time.sleep(delay / 3000)
        work.send_signal(signal.SIGKILL)
        work.communicate()
        assert len(texts(folder)) == 1  # of one version, whichever
        assert {path.name for path in folder.iterdir()} == {f"{n}.txt" for n in "abcd"}
    write_folder(folder, version("last"))
    assert texts(folder) == {"last"}
    assert not leftovers(folder)


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_kill_between_two_moves(tmp_path, monkeypatch, moves):
    folder = tmp_path / "part"
    write_folder(folder, version("old"))
    real, done = os.replace, []

    def replace(source, target):
        if len(done) == moves:
            raise KeyboardInterrupt  # nothing after it runs, as after a kill
        done.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, version("new"))
    monkeypatch.undo()
    assert all((folder / f"{n}.txt").is_file() for n in "abcd")
    assert leftovers(folder) == {".part.ready"}
    settle(tmp_path) if moves else settle(folder)
    assert texts(folder) == {"new"}
    assert not leftovers(folder)


def test_a_failed_write_keeps_the_old_version(tmp_path, monkeypatch):
    folder = tmp_path / "part"
    write_folder(folder, version("old"))

    def full(new):
        (new / "a.txt").write_text("half")
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 704 vs 598")

    with pytest.raises(RuntimeError, match="inline_container"):
        write_folder(folder, full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="disk of .*part is full; what was there before is untouched"):
        write_folder(folder, full)
    assert texts(folder) == {"old"}
    assert not leftovers(folder)


def test_old_files_go_and_modes_are_those_of_any_file(tmp_path):
    folder, plain = tmp_path / "part", tmp_path / "plain"
    plain.touch()
    write_folder(folder, lambda new: (new / "old.txt").touch())

    def write(new):
        (new / "secret").touch(mode=0o600)

    write_folder(folder, write)
    assert [path.name for path in folder.iterdir()] == ["secret"]
    mode = stat.S_IMODE(plain.stat().st_mode)
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == mode


def test_a_reader_reads_again_what_was_replaced_meanwhile(tmp_path):
    folder = tmp_path / "part"
    write_folder(folder, version("old"))
    seen = []

    def read():
        first = (folder / "a.txt").read_text()
        if not seen:
            write_folder(folder, version("new"))
        seen.append((first, (folder / "b.txt").read_text()))
        return seen[-1]

    assert read_folder(folder, read) == ("new", "new")
    assert seen[0] == ("old", "new")
    with pytest.raises(FileNotFoundError):
        read_folder(folder, (folder / "missing").read_text)
