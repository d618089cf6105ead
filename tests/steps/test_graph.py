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
    "densecl/errors.py", "densecl/runtime/hardware.py", "densecl/paths.py", "densecl/config/params.py", "densecl/artifacts.py",
    "densecl/config/error_messages.py", "densecl/config/yaml_loader.py",
    "densecl/training/step_cost.py", "densecl/monitoring/mlflow_store.py", "densecl/monitoring/monitor.py",  # they measure and tell
    "densecl/runtime/atomic_files.py", "densecl/runtime/signals.py", "densecl/runtime/launch.py", "densecl/training/out_of_memory.py",  # start and end
}  # fmt: skip
# What lists a set: the manifest it writes is the dependency.
LISTING = {f"densecl/datasets/manifests/{name}.py" for name in ("devkit", "dhash", "manifest", "scan")} | {
    "densecl/datasets/storage/filenames.py",
    "densecl/datasets/usable_images.py",
}
# Watched while training, and no dependency of it: a new evaluation set or figure retrains nothing.
WATCHED = {f"densecl/evaluation/{name}.py" for name in ("calibration", "predict", "protocols")} | {
    "densecl/datasets/imagenet.py"
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
