"""The evaluation of the champion and the anchor as DVC stages of their own: the root's `evaluate`
for two more models, with the same cell cache.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from densecl import paths
from densecl.artifacts import write_text

STAGES_FILE = paths.CHAMPION_REPORTS / "dvc.yaml"
SEED = 0


def write_champion_stages(models: Sequence[str]) -> None:
    """Write reports/champion/dvc.yaml for some of `paths.REGISTERED`; if it changes, remove the
    files of the stages before.
    """
    source = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    stage = source["stages"]["evaluate"] | {
        "matrix": {"mode": list(models), "seed": [SEED]},
        "wdir": "../..",
        "outs": [
            f"{(paths.CHAMPION_REPORTS / folder.name).as_posix()}/${{item.mode}}-${{item.seed}}"
            for folder in (paths.EVALUATION, paths.PREDICTIONS)
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
