"""Other models as rows of Table 1: M of stage 1 and T of stage 2 beside those of stage 3.

A pipeline folder holds the last stage only. The earlier ones are read from the checkpoints that
`dmgi_lib.training.stages` leaves in its run folders, if they belong to this model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmgi_lib.files import file_hash, state_hash
from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.style_modulation import StyleModulationNetwork
from dmgi_lib.weight_folder import CALL_DEFAULTS, part_name

RUNS = Path("~/.cache/dmgi/runs").expanduser()
NETWORKS: dict[str, Any] = {
    "mapping_network": MappingNetwork,
    "style_modulation": StyleModulationNetwork,
}


@dataclass(frozen=True)
class OtherModel:
    """A model whose last exit is a row: an earlier stage, or one to compare with.

    Attributes:
        key, name: of the row.
        pipe:      the model.
        made_from: hash of its weights; "" if they are those of the table's model.
    """

    key: str
    name: str
    pipe: DMGIPipeline
    made_from: str


def earlier_models(
    pipe: DMGIPipeline, condition: str, runs: Path = RUNS
) -> tuple[list[OtherModel], list[str]]:
    """Models "M only" and "M + T", and notes on what could not be had.

    Without a checkpoint of stage 1, M only is the model's own M with T taken out; its name says so.

    Args:
        runs: holds <condition>_stage1/checkpoint.pt and <condition>_stage2/checkpoint.pt.
    """
    m_part, t_part = (part_name(p, condition) for p in ("mapping_network", "style_modulation"))
    try:
        first, m_hash, m_seen = _averaged(runs / f"{condition}_stage1", "mapping_network", pipe)
    except LookupError as reason:
        alone = _with(pipe, {t_part: None})
        found = [OtherModel("m_only", "DMGI, M only (T taken out)", alone, "")]
        return found, [f"no rows of the model after stages 1 and 2: {reason}"]
    m_only = _with(pipe, {m_part: first, t_part: None})
    found = [OtherModel("m_only", f"DMGI, M only (stage 1, {m_seen})", m_only, m_hash)]
    try:
        second, t_hash, t_seen = _averaged(
            runs / f"{condition}_stage2", "style_modulation", pipe, first
        )
    except LookupError as reason:
        return found, [f"no row of the model after stage 2: {reason}"]
    both = _with(pipe, {m_part: first, t_part: second})
    name = f"DMGI, M + T (stage 2, {t_seen} more)"
    found.append(OtherModel("m_and_t", name, both, f"{m_hash} {t_hash}"))
    return found, []


def last_stage(folder: Path, condition: str) -> int | None:
    """The stage that a model's T was last trained in, as its card says; None if it does not."""
    card = folder / part_name("style_modulation", condition) / "card.md"
    if not card.is_file():
        return None
    found = re.search(r"^- stage (\d)", card.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else None


def _averaged(run_dir: Path, name: str, pipe: DMGIPipeline, M: Any = None) -> tuple[Any, str, str]:
    """The averaged network of a run's checkpoint, the file's hash, and on how much it was trained.

    Raises:
        LookupError: there is none, or it was trained with another G or M than these.
    """
    path = run_dir / "checkpoint.pt"
    if not path.is_file():
        raise LookupError(f"{run_dir.name} of the training runs holds no checkpoint")
    state = torch.load(path, map_location="cpu", weights_only=True)
    made_from = state.get("made_from", {})
    for frozen, network in (("generator", pipe.generator), ("mapping_network", M)):
        if network is None:
            continue
        if made_from.get("frozen", {}).get(frozen) != state_hash(network):
            raise LookupError(f"{run_dir.name} was trained with another {frozen}")
    network = NETWORKS[name].from_config(made_from["networks"][name])
    network.load_state_dict(state["ema"][name])
    seen = f"{state['step'] * state['batch_size']:,} samples"
    return network.eval().to(pipe.device, pipe.dtype), file_hash(path), seen


def _with(pipe: DMGIPipeline, parts: dict[str, Any]) -> DMGIPipeline:
    """The same pipeline with other components; the rest is shared."""
    defaults = {k: pipe.config[k] for k in CALL_DEFAULTS}
    return DMGIPipeline(**(pipe.components | parts), **defaults)
