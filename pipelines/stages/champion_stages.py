"""The champion's evaluation as separate DVC stages: the root's `evaluate` for one more model."""

import re
from pathlib import Path
from typing import Any

import yaml

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import Params

STAGES_FILE = paths.CHAMPION_REPORTS / "dvc.yaml"
SEED = 0


def write_champion_stages(params: Params) -> None:
    """Write reports/champion/dvc.yaml, one stage per dataset, and remove cells of datasets that are
    no longer evaluated.
    """
    source = Path("dvc.yaml").read_text(encoding="utf-8")
    stages = {name: _build_stage(source, name) for name in params.evaluate.datasets}
    text = yaml.safe_dump({"stages": stages}, sort_keys=False, width=200)
    header = (
        "# Written by `python -m pipelines retraining` from the "
        "stage evaluate of ../../dvc.yaml; do not edit.\n"
    )
    if not STAGES_FILE.exists() or STAGES_FILE.read_text(encoding="utf-8") != header + text:
        write_text(STAGES_FILE, header + text)


def _build_stage(source: str, name: str) -> dict[str, Any]:
    item = {"set": name, "mode": paths.CHAMPION, "seed": str(SEED)}
    filled = re.sub(r"\$\{item\.(\w+)\}", lambda match: item.get(match[1], match[0]), source)
    template = yaml.safe_load(filled)["stages"]["evaluate"]
    path_builders = (paths.predictions_file, paths.control_predictions_file, paths.evaluation_file)
    return {
        "cmd": template["cmd"],
        "wdir": "../..",
        "deps": template["deps"],
        "outs": [build_path(name, paths.CHAMPION, SEED).as_posix() for build_path in path_builders],
    }
