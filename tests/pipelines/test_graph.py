"""What is told where DVC cannot open the project, or a stage fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from densecl.errors import DenseclError, RetryLater
from densecl.runtime.cli import ERROR_LOG_ENV
from pipelines.stages.champion_stages import STAGES_FILE
from pipelines.stages.dvc_graph import StageGraph

FAILS = """
from densecl.runtime import cli
from densecl.errors import DataError

def fail():
    raise DataError("imagenet-r: found no image\\nsketch: found no folder")

cli.exit_immediately(cli.run_command(fail))
"""
FULL = FAILS.replace(
    'DataError("imagenet-r: found no image\\nsketch: found no folder")',
    'OSError(28, "No space left on device")',
)


def test_without_dvc_or_git_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DenseclError, match=r"found no \.dvc folder, expected the project's root"):
        StageGraph()
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(
        DenseclError, match=r"is not a git repository, which DVC expects: .*core\.no_scm"
    ):
        StageGraph()


def test_a_generated_file_that_was_damaged_may_be_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    STAGES_FILE.parent.mkdir(parents=True)
    STAGES_FILE.write_text("a: [")
    with pytest.raises(
        DenseclError, match=r"DVC: .*reports/champion/dvc\.yaml.*; remove it: it is generated"
    ):
        StageGraph()


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's own, at pygtrie's
def test_a_stage_that_fails_is_named_with_its_own_words(tmp_path, monkeypatch):
    """They go into the record and the notification, where nobody sees a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "full.py").write_text(FULL)
    stages = {
        "told": f"{sys.executable} fails.py",
        "full": f"{sys.executable} full.py",
        "untold": f"{sys.executable} -c 'raise SystemExit(3)'",
    }
    found = {name: {"cmd": cmd, "outs": [name]} for name, cmd in stages.items()}
    found["reads"] = {"cmd": "true", "deps": ["images/r"], "outs": ["reads"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": found}))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    graph = StageGraph()
    with pytest.raises(
        DenseclError,
        match=r"^told: its command failed with status 2: imagenet-r: found no image; sketch: found no folder$",
    ):
        graph.update_stage("told", lambda: None)
    with pytest.raises(DenseclError, match=r"^untold: its command failed with status 3$"):
        graph.update_stage("untold", lambda: None)
    with pytest.raises(
        RetryLater,
        match=r"^full: disk: No space left on device; .*: the same command resumes from there$",
    ):
        graph.update_stage("full", lambda: None)
    with pytest.raises(
        DenseclError, match=r"^reads: found no images/r, which it reads; put it back, or change"
    ):
        graph.update_stage("reads", lambda: None)
    assert ERROR_LOG_ENV not in os.environ


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's own, at pygtrie's
def test_a_shared_folder_is_hashed_once_and_its_changes_are_found(tmp_path, monkeypatch):
    from dvc import output

    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a").write_text("a")
    stages = {name: {"cmd": f"touch {name}", "deps": ["images"], "outs": [name]} for name in "bcd"}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    graph = StageGraph()
    assert not graph.is_up_to_date()
    for name in graph.stages:
        graph.update_stage(name, lambda: None)
    hashed: list[str] = []
    build = output.build
    monkeypatch.setattr(
        output,
        "build",
        lambda odb, path, *a, **k: (hashed.append(path), build(odb, path, *a, **k))[1],
    )
    assert graph.is_up_to_date()
    assert sorted(Path(path).name for path in hashed) == ["b", "c", "d", "images"]
    (tmp_path / "images" / "a").write_text("b")
    assert not graph.is_up_to_date()


def test_a_project_without_stages_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    with pytest.raises(
        DenseclError, match=r"^dvc\.yaml: found no stages, expected those of the pipeline"
    ):
        StageGraph()
