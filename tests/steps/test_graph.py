"""dvc.yaml names the code that its stages run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# What stages import but do not depend on: it shapes no artifact.
PASSIVE = {
    "densecl/errors.py", "densecl/hardware.py", "densecl/layout.py", "densecl/params.py", "densecl/records.py",
    "densecl/mistakes.py", "densecl/yaml12.py",
    "densecl/training/cost.py", "densecl/training/store.py", "densecl/training/tracking.py",  # they measure and tell
    "densecl/files.py", "densecl/lifetime.py", "densecl/training/launch.py", "densecl/training/room.py",  # start and end
}  # fmt: skip
# What lists a set: the manifest it writes is the dependency.
LISTING = {f"densecl/datasets/{name}.py" for name in ("devkit", "duplicates", "manifest", "names", "scan")}
# Watched while training, and no dependency of it: a new evaluation set or figure retrains nothing.
WATCHED = {f"densecl/robustness/{name}.py" for name in ("calibration", "evaluation", "protocols")} | {
    "densecl/datasets/published.py"
}


def imported(module: Path, seen: set[Path]) -> set[Path]:
    """Files of densecl that a file imports, directly or not, inside functions too."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = ROOT / (name.replace(".", "/") + ".py")
            if name.startswith("densecl") and path.is_file() and path not in seen:
                seen.add(path)
                imported(path, seen)
    return seen


@pytest.mark.parametrize("stage", ["train", "evaluate", "validate", "report", "prepare"])
def test_a_stage_depends_on_the_code_it_runs(stage):
    deps = set((STAGES[stage].get("do") or STAGES[stage])["deps"])
    used = {str(path.relative_to(ROOT)) for path in imported(ROOT / "steps" / f"{stage}.py", set())}
    passive = PASSIVE | (WATCHED if stage == "train" else set()) | (LISTING if stage != "prepare" else set())
    assert used - deps - passive == set()
