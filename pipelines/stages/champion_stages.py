"""The champion's evaluation as DVC stages of their own: the root's `evaluate`, for one more
model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import Params

FILE = paths.CHAMPION_REPORTS / "dvc.yaml"
SEED = 0


def define(params: Params) -> None:
    """Write reports/champion/dvc.yaml, a stage a set, from the stage `evaluate` of dvc.yaml; cells
    of sets that are no longer evaluated go with their stages.
    """
    root = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]["evaluate"]
    stages = {name: _stage(root, name) for name in params.evaluate.datasets}
    text = yaml.safe_dump({"stages": stages}, sort_keys=False, width=200)
    head = (
        "# Written by `python -m pipelines retraining` from the "
        "stage evaluate of ../../dvc.yaml; do not edit.\n"
    )
    if not FILE.exists() or FILE.read_text(encoding="utf-8") != head + text:
        write_text(FILE, head + text)


def _stage(root: dict[str, Any], name: str) -> dict[str, Any]:
    item = {"set": name, "mode": paths.CHAMPION, "seed": str(SEED)}

    def filled(text: str) -> str:
        for key, value in item.items():
            text = text.replace(f"${{item.{key}}}", value)
        return text

    places = (paths.predictions, paths.control_predictions, paths.evaluation)
    return {
        "cmd": filled(root["cmd"]),
        "wdir": "../..",
        "deps": [filled(dep) for dep in root["deps"]],
        "outs": [place(name, paths.CHAMPION, SEED).as_posix() for place in places],
    }
