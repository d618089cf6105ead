"""The champion's evaluation as a DVC stage of its own: the root's `evaluate` for one more model."""

import re
import shutil
from pathlib import Path

import yaml

from densecl import paths
from densecl.artifacts import write_text

STAGES_FILE = paths.CHAMPION_REPORTS / "dvc.yaml"
SEED = 0


def write_champion_stages() -> None:
    """Write reports/champion/dvc.yaml; if it changes, remove the files of the stages before."""
    source = Path("dvc.yaml").read_text(encoding="utf-8")
    item = {"mode": paths.CHAMPION, "seed": str(SEED)}
    filled = re.sub(r"\$\{item\.(\w+)\}", lambda match: item.get(match[1], match[0]), source)
    template = yaml.safe_load(filled)["stages"]["evaluate"]
    stage = {
        "cmd": template["cmd"],
        "wdir": "../..",
        "deps": template["deps"],
        "outs": [
            build_path(paths.CHAMPION, SEED).as_posix()
            for build_path in (paths.evaluation_folder, paths.predictions_folder)
        ],
    }
    text = yaml.safe_dump({"stages": {"evaluate": stage}}, sort_keys=False, width=200)
    header = (
        "# Written by `python -m pipelines retraining` from the "
        "stage evaluate of ../../dvc.yaml; do not edit.\n"
    )
    if not STAGES_FILE.exists() or STAGES_FILE.read_text(encoding="utf-8") != header + text:
        for folder in (paths.EVALUATION, paths.PREDICTIONS):
            shutil.rmtree(paths.CHAMPION_REPORTS / folder.name, ignore_errors=True)
        write_text(STAGES_FILE, header + text)
