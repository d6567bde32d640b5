"""Runs of the CelebAMask-HQ converter on a small download, and what they report and write."""

import json

import pytest

from data_prep.celebamask_hq.__main__ import main
from dmgi_lib.dataset import FaceDataset

SIZE = 64


def convert(download, out, *more, size=SIZE, workers=1):
    """Runs the command and returns its report."""
    flags = {
        "--source": download / "CelebAMask-HQ",
        "--captions": download / "celeba-caption",
        "--partition": download / "list_eval_partition.txt",
        "--out": out,
        "--size": size,
        "--workers": workers,
    }
    main([str(x) for pair in flags.items() for x in pair] + [str(x) for x in more])
    return json.loads((out / "report.json").read_text())


def skipped(report):
    return {entry["index"]: entry["reason"] for entry in report["skipped"]}


def notes(report):
    return {(entry["index"], entry["kind"]) for entry in report["notes"]}


def ids(out):
    return {
        int(i) for s in ("train", "test") for r in FaceDataset(out, s).records for i in [r["id"]]
    }


def stop(download, out, capsys, *more):
    with pytest.raises(SystemExit):
        convert(download, out, *more)
    return capsys.readouterr().err
