"""Writes the data card of a built face world: `python -m data_prep.faces128.card`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from data_prep.faces128.build import TEST_SEED
from data_prep.faces128.built_sample import read
from data_prep.faces128.survey import Surveyed, survey
from dmgi_lib.dataset import FaceDataset, built_root, whole_splits
from dmgi_lib.files import write_text, write_whole
from dmgi_lib.presets import weights_folder

CELEBA = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns",
    "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip
READABLE = 0.85  # balanced accuracy from which an attribute counts as visible

HEAD = """# Data card: face world, 128 px

Rendered portraits of people who do not exist, with everything that is true of each picture.

![A hundred random samples](contact_sheet.png)

## Contents

| split | samples | identities |
|---|---|---|
{splits}

Every sample: an RGB picture of 128 x 128 pixels, a mask of the 19 CelebAMask-HQ classes, a
scribble, a depth map (ray distance in camera units, times 10,000), at least five captions,
attributes (true, false, or unknown where the picture does not show them), a camera of 25 numbers in
EG3D's convention, the identity's number and the seed that makes it again. `l_` is the person's own
left, which lies on the picture's right. Training and test identities are disjoint: test seeds start
at {test_seed:,}. `styles` holds training identities as statues, other beings, paintings and
drawings; `views` holds test identities seen by five cameras, `train_views` training identities seen
by four, one from each quarter of 45 degrees to either side.

## How it is made

`make faces` renders it; every sample is a function of its number, so a build can be stopped and
continued, and two builds on the same kind of processor give the same files; on another kind,
pixels differ by rounding. Heads come from the parametric model of `anny`:
phenotypes, {shapes} shape parameters and facial actions. Skin, folds, hair, beards, eyes, clothes,
jewellery, glasses, hats, lights and backdrops are made by the modules of `data_prep/faces128`;
`mitsuba` traces the light. Attributes are what the picture was made from, not what somebody saw in
it; where the value lies between two clear ones, or the part is hidden, the attribute is unknown.
Light changes colours: a garment, a hat or white hair has a colour where the picture's pixels and
the colour it was made in get the same plain word by thresholds in OKLab, and none where they differ
or lie between two words. A wall's colour is that of its pixels, in both halves of the picture.
{rendered}
## Licences

- `anny`: Apache-2.0. The head shapes in it come from MakeHuman, whose assets are CC0.
- `mitsuba`: BSD-3-Clause; none of its assets are used.
- The pictures and labels come under the licence of this repository.

No photograph of a person was used, and nobody's likeness was modelled; a resemblance would be
chance. Names of attributes follow CelebA so that results compare; none of its pictures are here.

## Known limits

- The people are rendered: skin has no real pores, strands of hair are thicker than real ones, and
  there are few hairstyles, garments and backdrops. What does well here need not do so on
  photographs.
- Attributes such as sex, age and skin tone are inputs of the model, not claims about real people.
  Sex has two values here because CelebA's label has.
- Adults only. No tattoos or scars, no head coverings but two kinds of hat, no hands, nobody else.
- Backdrops are painted behind the head, so they do not turn with the camera.
- Hair in masks is that of strands thickened to about a pixel.
- Big_Nose, Pointy_Nose and Big_Lips are no attributes here: a trained judge could not see them in
  pictures of this size, although the head-shape numbers behind them vary.
- Bushy brows are labelled, but no caption names them: at this size the judge reads them with less
  than 85 % balanced accuracy. Folds are faint as well, so young and old are told only where gray
  or other hair agrees.
- Colours that clothes, hats or walls hardly ever have here (white, yellow, orange) are no
  attributes, nor are a necktie's colour, of a few pixels, and the light of sunset. T-shirts,
  V-necks and other low necks are all shirts: the frame ends where they differ.
- Ages, hair and skin tones are drawn for variety, not as a census.
"""


def contact_sheet(images: list[np.ndarray], columns: int = 10) -> Image.Image:
    """Pictures (H, W, 3) in a grid."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for k, image in enumerate(images):
        y, x = divmod(k, columns)
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = image
    return Image.fromarray(sheet)


def _split_rows(root: Path) -> str:
    rows = []
    for split in whole_splits(root):
        records = FaceDataset(root, split).records
        people = len({r["seed"] for r in records})
        rows.append(f"| {split} | {len(records):,} | {people:,} |")
    return "\n".join(rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def judged(path: Path) -> dict[str, float]:
    """Attribute → the judge's balanced accuracy; empty where no judge has been trained.

    Args:
        path: card.md that the training of the attribute judge writes, or JSON of its measurements.

    Raises:
        ValueError: the file holds no balanced accuracies.
    """
    if not path.is_file():
        return {}
    row = r'balanced accuracy (\w+)(?: \(test\))?"?\s*[|:]\s*([0-9.]+)'
    found = re.findall(row, path.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(
            f"{path} holds no rows 'balanced accuracy Bald (test) | 0.98'; name the card of the"
            " attribute judge, as `python -m data_prep.priors.trainer` writes it."
        )
    return {name: float(value) for name, value in found}


def _attributes(shares: dict[str, tuple[float, float]], read_as: dict[str, float]) -> list[str]:
    """The table of attributes, and what the judge cannot read."""
    known = [name for name in shares if name in CELEBA]
    lines = ["", "## Attributes", "", f"{len(known)} of CelebA's {len(CELEBA)} attributes by their"
             f" names, and {len(shares) - len(known)} more (marked +)."]  # fmt: skip
    measured = {name: read_as[name] for name in shares if name in read_as}
    if measured:
        weak = [f"{n} {_percent(v)}" for n, v in measured.items() if v < READABLE]
        lines[-1] += (
            " The last column is the balanced accuracy on the test split of the attribute judge,"
            f" which is trained on the training split: {len(measured) - len(weak)} of"
            f" {len(measured)} reach {100 * READABLE:.0f} %; below: {', '.join(weak) or 'none'}."
        )
    else:
        lines[-1] += " No attribute judge has been trained on this set yet."
    lines += ["", "| attribute | true, of those that tell | unknown | judge |", "|---|---|---|---|"]
    for name, (true, unknown) in shares.items():
        mark = "" if name in CELEBA else " +"
        score = _percent(measured[name]) if name in measured else "not measured"
        lines.append(f"| {name}{mark} | {_percent(true)} | {_percent(unknown)} | {score} |")
    return lines


def markdown(
    root: Path, found: dict, split: str, judge: Path | None = None, rendered: str = ""
) -> str:
    """The card's text.

    Args:
        found: of `survey.survey` on `split`.
        judge: see `judged`.
        rendered: what the build printed of its speed, and on what it ran.
    """
    from data_prep.faces128.person import SHAPE_NAMES

    head = HEAD.format(
        splits=_split_rows(root), test_seed=TEST_SEED, shapes=len(SHAPE_NAMES),
        rendered=f"\nMeasured while rendering: {rendered.strip()}.\n" if rendered else "",
    )  # fmt: skip
    command = f"python -m data_prep.faces128.survey --split {split}"
    lines = [head, "## Measured", "", f"On the `{split}` split, by `{command}`."]
    lines += ["The other splits are drawn by the same rules.", ""]
    lines += ["| measurement | value |", "|---|---|"]
    lines += [f"| {k} | {v} |" for k, v in found.items() if not isinstance(v, dict)]
    lines += _attributes(found["attributes"], judged(judge) if judge else {})
    lines += ["", "## Distributions", "", "| | mean | standard deviation |", "|---|---|---|"]
    lines += [f"| {name} | {mean} | {std} |" for name, (mean, std) in found["spreads"].items()]
    for title, shares in found["distributions"].items():
        lines += ["", f"| {title} | share |", "|---|---|"]
        lines += [f"| {name} | {_percent(share)} |" for name, share in shares.items()]
    return "\n".join(lines) + "\n"


def write_card(
    root: Path,
    out: Path,
    split: str = "test",
    count: int | None = None,
    judge: Path | None = None,
    rendered: str = "",
) -> None:
    """Writes `card.md` and `contact_sheet.png` (100 random samples) into `out`."""
    samples = read(root, split, count)
    text = markdown(root, survey(samples), split, judge, rendered)
    order = np.random.default_rng(0).permutation(len(samples))[:100]
    sheet = contact_sheet([samples[i].image for i in order])
    write_whole(out / "contact_sheet.png", lambda path: sheet.save(path, "PNG", optimize=True))
    write_text(out / "card.md", text)


@dataclass
class Command:
    """Writes the data card of a built face world."""

    root: Path = field(default_factory=built_root)
    """a built face world"""
    out: Path | None = None
    """folder of the card; the root where not given"""
    split: Surveyed = "test"
    """split that is measured"""
    samples: int | None = None
    """at most so many"""
    judge: Path = weights_folder("mini") / "judge_attributes" / "card.md"
    """the attribute judge's card.md"""
    rendered: str = ""
    """"… s a sample", as the build printed it"""


def main() -> None:
    given = tyro.cli(Command)
    out = given.out or given.root
    write_card(given.root, out, given.split, given.samples, given.judge, given.rendered)


if __name__ == "__main__":
    main()
