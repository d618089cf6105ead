"""dvc.yaml names the folders of the code that its stages run."""

import ast
import subprocess
from pathlib import Path

import pytest
import yaml

from densecl.evaluation.cached_predict import PREDICTION_CODE
from densecl.evaluation.probing.run import PROBE_CODE

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# Rooms that shape no artifact: reading params (the plan files hold what they say), the process,
# progress and tracking.
PASSIVE = ("config", "runtime", "monitoring", "artifacts.py", "errors.py", "paths.py")
# Logged while training; a new metric or evaluation set retrains nothing.
LOGGED = {"train": ("evaluation", "datasets/imagenet.py")}


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


def code_of(stage: str) -> list[Path]:
    """Files and folders of code that the stage depends on."""
    deps = (STAGES[stage].get("do") or STAGES[stage])["deps"]
    return [ROOT / dep for dep in deps if dep.startswith(("densecl", "steps"))]


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "plan"])
def test_a_stage_depends_on_the_code_it_runs(stage):
    free = [ROOT / "densecl" / room for room in (*PASSIVE, *LOGGED.get(stage, ()))]
    covered = [*code_of(stage), *free]
    used = imported(ROOT / "steps" / f"{stage.replace('-', '_')}.py", set())
    assert [
        path for path in sorted(used) if not any(path.is_relative_to(dep) for dep in covered)
    ] == []


def test_no_stage_depends_on_a_room_that_shapes_no_artifact_and_all_code_exists():
    for stage in STAGES:
        for dep in code_of(stage):
            assert dep.exists()
            if stage != "plan":
                assert not any(dep.is_relative_to(ROOT / "densecl" / room) for room in PASSIVE), (
                    stage,
                    dep,
                )


def test_the_key_of_kept_predictions_holds_the_code_that_makes_them():
    module = ROOT / "densecl" / "evaluation" / "predict.py"
    covered = [ROOT / "densecl" / part for part in (*PREDICTION_CODE, *PASSIVE)]
    # seeding.py: of initial weights, in whose place an exported model has its own.
    used = {module, *imported(module, set())} - {ROOT / "densecl" / "seeding.py"}
    assert len(used) > 5
    assert [p for p in sorted(used) if not any(p.is_relative_to(part) for part in covered)] == []


def test_the_key_of_kept_probes_holds_the_code_that_makes_them():
    package = ROOT / "densecl"
    # What score.py decides (images, labels, preprocessing, scored classes) is in the key itself.
    used = {package / "evaluation" / "score.py"}
    for module in sorted((package / "evaluation" / "probes").glob("*.py")):
        imported(module, used)
    used.remove(package / "evaluation" / "score.py")
    # These are in the key whole, or only read and write.
    passive = [part for part in PASSIVE if part != "artifacts.py"]
    covered = [
        package / part
        for part in (*PREDICTION_CODE, *PROBE_CODE, *passive, "evaluation/cell_cache.py")
    ]
    assert len(used) > 20
    assert [p for p in sorted(used) if not any(p.is_relative_to(part) for part in covered)] == []


def test_the_report_s_code_retrains_nothing():
    readers = {
        stage for stage in STAGES if any("densecl/report" in str(dep) for dep in code_of(stage))
    }
    assert readers == {"report"}


def test_compiled_code_beside_the_sources_is_no_dependency():
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").split()
    assert {"__pycache__", "*.pyc"} <= set(ignored)
    tracked = subprocess.run(
        ["git", "ls-files", "densecl"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "__pycache__" not in tracked
