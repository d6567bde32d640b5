"""Trains everything that ships from the data shards: the parts of `world_parts`, in their order.

    python -m data_prep.priors.world                 # days on two cores, a part after the other
    python -m data_prep.priors.world --minutes 15    # on a GPU, side by side
    python -m data_prep.priors.world --smoke         # a trial of the whole way, in minutes

Each part is one of the kit's own commands, in a process with a log of its own. What is finished is
skipped and what was cut off goes on, so the same command, given again, ends what it began. Folders
of weights may be put into the world from elsewhere; they count as finished.
"""

from __future__ import annotations

import datetime
import re
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import torch
import tyro
from PIL import Image
from tqdm.auto import tqdm

from data_prep.priors.part_process import processes, run_module
from data_prep.priors.recipe import picture_grid
from data_prep.priors.world_parts import PARTS, START, Part, startable, training_minutes
from data_prep.shard_writer import read_shard, write_split
from dmgi_lib.checks import whole_number
from dmgi_lib.dataset import FaceDataset, default_root, to_uint8, whole_splits
from dmgi_lib.devices import machine, pick_device
from dmgi_lib.files import write_text
from dmgi_lib.masks import mask_to_rgb
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.shards import shard_paths
from dmgi_lib.weight_folder import REQUIRED, write_model_index

GPU_MINUTES = 15.0
FEW = {"train": 24, "test": 8}  # samples of a trial
FEW_VIEWS = 8  # and of each other split that a part needs
MAKERS = {
    name: f"`python -m data_prep.faces128.build --{option}` makes it."
    for name, option in (("train_views", "train-views 1500"), ("styles", "styles 150"))
}
SHOWN_LINES = 12  # of the log of a part that failed
BAR = "{desc}: {n_fmt} of {total_fmt} done{postfix}"


@dataclass(frozen=True)
class World:
    """Where a world's parts read and write, and how they run."""

    out: Path  # the weight folder that they fill
    data: Path  # face dataset
    device: str  # of all parts, "cpu", "cuda" or "mps"
    at_once: int  # parts beside each other
    minutes: dict[str, float]  # of training, by the part's name
    smoke: bool = False  # a few steps each

    @property
    def runs(self) -> Path:
        """Beside `out`: of each part a folder with its checkpoint, log.csv and output.txt."""
        return self.out.with_name(f"{self.out.name}_runs")

    def mark(self, part: Part) -> Path:
        """The file that says that a run of a part has ended well."""
        return self.runs / part.name / "finished"

    def is_done(self, part: Part) -> bool:
        """A part is done if its folders are there and no run of it is unfinished.

        Features have no folder: they are also done once nothing needs them any more.
        """
        if not part.makes:
            for_whom = [other for other in PARTS if part.name in other.needs]
            return self.mark(part).is_file() or all(map(self.is_done, for_whom))
        there = all(any((self.out / name).glob("*.*")) for name in part.makes)
        return there and (self.mark(part).is_file() or not (self.runs / part.name).is_dir())

    @property
    def threads(self) -> int:
        """Of each part on the CPU."""
        return max(1, torch.get_num_threads() // self.at_once)

    def command(self, part: Part) -> list[str]:
        """The part as a command with all its options."""
        names = {"out": self.out, "runs": self.runs, "name": part.name, "threads": self.threads}
        names |= {"data": self.data, "device": self.device, "minutes": self.minutes[part.name]}
        more = part.smoke if self.smoke else part.on_gpu if self.device == "cuda" else ""
        words = shlex.split(f"{part.command} {part.common} {more}")
        return [sys.executable, "-m", *(word.format(**names) for word in words)]

    def start(self, part: Part) -> Running:
        """Starts a part; its output is added to output.txt in its folder."""
        log, command = self.runs / part.name / "output.txt", self.command(part)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as output:
            print("$", shlex.join(command), file=output)
        work = (command[2:], log, self.threads)
        process: BaseProcess = processes(self.device).Process(target=run_module, args=work)  # type: ignore[attr-defined]
        process.start()
        return Running(part, process, log, time.monotonic())

    def index(self) -> None:
        """Keeps model_index.json up to date, without which nobody loads the folder."""
        if all((self.out / name).is_dir() for name in REQUIRED):
            write_model_index(self.out)
            if (self.out / "3d" / "generator").is_dir():
                write_model_index(self.out / "3d")


@dataclass(frozen=True)
class Running:
    """A part's process, its log and when it began."""

    part: Part
    process: BaseProcess
    log: Path
    began: float

    def minutes(self) -> float:
        return (time.monotonic() - self.began) / 60.0

    def last_lines(self) -> str:
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return "".join(f"    {line}" for line in deque(lines, SHOWN_LINES))


@contextmanager
def _stopped_in_the_end(running: dict[str, Running]) -> Iterator[None]:
    """Whatever ends the block, no process is left behind; a polite kill ends it, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.join(10)
            one.process.kill()
            one.process.join()
        signal.signal(signal.SIGTERM, before)


def run(world: World, wanted: Sequence[Part]) -> dict[str, str]:
    """Runs parts until all are done or wait for one that failed; only in the main thread.

    Returns:
        of each part that is not done, why
    """
    done = {part.name for part in PARTS if world.is_done(part)}
    for part in wanted:
        if part.name in done:
            tqdm.write(f"{part.name}: finished before")
    todo = [part for part in wanted if part.name not in done]
    world.index()
    problems: dict[str, str] = {}
    running: dict[str, Running] = {}
    bar = tqdm(total=len(todo), desc="parts", bar_format=BAR, disable=None)
    with bar, _stopped_in_the_end(running):
        while True:
            for part in startable(done, {*running, *problems}):
                if part in todo and len(running) < world.at_once:
                    running[part.name] = one = world.start(part)
                    tqdm.write(f"{part.name}: begun; {one.log}")
            if not running:
                break
            time.sleep(0.2)
            for name, one in [*running.items()]:
                if (code := one.process.exitcode) is None:
                    continue
                del running[name]
                if code:
                    problems[name] = f"failed with exit status {code}, see {one.log}"
                    tqdm.write(f"{name}: {problems[name]}:\n{one.last_lines()}")
                else:
                    done.add(name)
                    world.mark(one.part).touch()
                    world.index()
                    bar.update()
                    tqdm.write(f"{name}: finished after {one.minutes():.1f} minutes")
            now = [f"{n} {o.minutes():.0f}/{world.minutes[n]:.0f} min" for n, o in running.items()]
            waiting = sum(part.name not in {*done, *running, *problems} for part in todo)
            bar.set_postfix_str(f"{', '.join(now)}; {waiting} waiting")
    for part in todo:
        if part.name not in {*done, *problems}:
            problems[part.name] = f"waits for {', '.join(sorted({*part.needs} - done))}"
    return problems


def few_people(data: Path, folder: Path) -> Path:
    """The first people of a face dataset as one of its own.

    Raises:
        FileNotFoundError: there is no dataset
    """
    views = {part.split: FEW_VIEWS for part in PARTS if part.split}
    for split, count in (FEW | views).items():
        if paths := shard_paths(data / split):
            write_split(folder / split, read_shard(paths[0])[:count])
        elif split in FEW:
            raise FileNotFoundError(f"no face dataset at {data}; build it with `make faces`.")
    return folder


def able(parts: Sequence[Part], data: Path) -> list[Part]:
    """Those of the parts whose data are there."""
    there = whole_splits(data)
    return [part for part in parts if not part.split or part.split in there]


def chosen(names: Collection[str]) -> list[Part]:
    """The parts of these names; all without any.

    Raises:
        ValueError: a name that no part has
    """
    known = [part.name for part in PARTS]
    if unknown := sorted({*names} - {*known}):
        raise ValueError(f"--only came with {unknown}; expected some of {known}.")
    return [part for part in PARTS if not names or part.name in names]


CARD = """\
# A world of faces

Every network that the kit ships, trained by one command:

```
python -m data_prep.priors.world {arguments}
```

On {machine}, {date}. Minutes are those of training, over all resumes; a part without them was \
trained elsewhere. Each folder's card.md has the part's own command and all that was measured.

| part | minutes | images seen | images per second | measured |
|---|---|---|---|---|
{rows}
"""


def world_card(world: World, place: torch.device, arguments: Sequence[str]) -> str:
    """Markdown: command, device, and one row a part from its checkpoint and its networks' cards."""
    rows = []
    for part in PARTS:
        spent = ["", "", ""]
        if (path := world.runs / part.name / "checkpoint.pt").is_file():
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            seen, seconds = state["step"] * state["batch_size"], state["seconds"]
            spent = [f"{seconds / 60:.1f}", f"{seen:,}", f"{seen / max(seconds, 1e-9):.1f}"]
        found = measured_rows(part, world.out)
        measured = "; ".join(f"{name} {found[name]}" for name in part.measured if name in found)
        rows.append(f"| {' | '.join([part.name, *spent, measured])} |")
    return CARD.format(
        arguments=shlex.join(arguments),
        machine=machine(place),
        date=datetime.date.today().isoformat(),
        rows="\n".join(rows),
    )


def measured_rows(part: Part, out: Path) -> dict[str, str]:
    """Rows of two cells whose second is a number, in the cards of a part's folders."""
    paths = [out / name / "card.md" for name in part.makes]
    text = "".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    return dict(re.findall(r"^\| ([^|]+) \| (-?[\d.]+(?:e[+-]?\d+)?) \|$", text, re.MULTILINE))


def draw_faces(world: World, place: torch.device, count: int = 8) -> Path:
    """Draws test people by the world's pipeline: their masks, faces drawn, and they themselves."""
    people = FaceDataset(world.data, "test")
    rows, path = people.first_views()[:count], world.runs / "faces.png"
    prompts, masks = [people.captions[row][0] for row in rows.tolist()], people.masks[rows]
    pipe = DMGIPipeline.from_pretrained(world.out).to(place)
    drawn = pipe(prompts, mask=list(masks), output_type="pt").images
    shown = to_uint8(mask_to_rgb(masks) * 2 - 1), to_uint8(drawn), people.images[rows]
    Image.fromarray(picture_grid(shown)).save(path)
    return path


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
def main(
    minutes: float | None = None,
    out: Path | None = None,
    data: Path | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    only: tuple[str, ...] = (),
    smoke: bool = False,
    at_once: int | None = None,
) -> None:
    """Trains everything that ships, as parts that need each other and share one budget.

    Args:
        minutes: budget from start to end; default: what two CPU cores need, two to three days; on a
            CUDA GPU 15
        out: weight folder of the world; default: world or, in a trial, world_smoke in ~/.cache/dmgi
        data: face dataset; default: the full one if it is built, else what ships
        device: auto takes a CUDA GPU, else Apple's, else the CPU
        only: run these parts alone; their shares of the budget stay as they are
        smoke: a trial: a few steps on a few people
        at_once: parts beside each other; default: 1 on a CPU, in a trial one a thread; on a GPU as
            many as can start, and each takes its share of the memory
    """
    place, folder = pick_device(device), (data or default_root()).expanduser().resolve()
    possible = able(PARTS, folder)
    wanted = able(chosen(only), folder)
    for part in chosen(only):
        if part not in wanted:
            why = f"{folder} holds no {part.split}; {MAKERS[part.split]}"
            tqdm.write(f"{part.name}: skipped, {why}")
    if not wanted:
        raise SystemExit("nothing to train")
    if at_once is None:
        on_cpu = torch.get_num_threads() if smoke else 1
        at_once = on_cpu if place.type == "cpu" else len(PARTS)
    at_once = whole_number("--at-once", at_once, 1, len(PARTS))
    if minutes is None:
        hours = sum(part.hours for part in possible)
        minutes = GPU_MINUTES if place.type == "cuda" else 60.0 * hours + START * len(possible)
    home = (out or Path("~/.cache/dmgi") / ("world_smoke" if smoke else "world")).expanduser()
    shares = training_minutes(minutes, at_once, possible)
    world = World(home.resolve(), folder, place.type, at_once, shares, smoke)
    if smoke:
        world = replace(world, data=few_people(world.data, world.runs / "few_people"))
    try:
        problems = run(world, wanted)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from the last checkpoints") from None
    write_text(world.out / "card.md", world_card(world, place, sys.argv[1:]))
    if problems:
        raise SystemExit("\n".join(f"{name} {why}" for name, why in problems.items()))
    tqdm.write(f"{world.out} holds {', '.join(part.name for part in wanted)}")
    if all(map(world.is_done, possible)):
        world.index()
        tqdm.write(f"drew {draw_faces(world, place)}")


if __name__ == "__main__":
    tyro.cli(main)
