"""A retraining in git: what is in its commit, what never is, and that the user's own work is not
touched.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from densecl.config.params import Params, load_params
from pipelines.outcome import csv_log
from pipelines.outcome.git_snapshot import save_snapshot
from pipelines.schemas import GateVerdict, RetrainingRecord
from tests.training.training_project import ROOT

FINISHED = RetrainingRecord(
    started="2026-01-05T03:00:00+01:00",
    seconds=9,
    outcome="rejected",
    said="no",
    version="4",
    champion="3",
)
VERDICT = GateVerdict(
    promoted=False,
    champion="3",
    mode="dense",
    seed=0,
    criteria=(),
    said="sketch fell by 4.1 points",
)
TAG = "retraining/20260105T020000Z-rejected"


def git(*words: str, at: Path | None = None) -> str:
    return subprocess.run(
        ["git", *words], cwd=at, check=True, capture_output=True, text=True
    ).stdout.strip()


def params(how: str) -> Params:
    given = load_params(ROOT / "tests/small.yaml")
    return given.model_copy(update={"retraining": given.retraining.model_copy(update={"git": how})})


def later(minute: int, outcome: str = "promoted") -> RetrainingRecord:
    return FINISHED.model_copy(
        update={"started": f"2026-01-05T03:{minute:02}:00+01:00", "outcome": outcome}
    )


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


@pytest.fixture(autouse=True)
def _settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git as on a machine of nobody: no name, and settings that would sign and run hooks."""
    home = tmp_path_factory.mktemp("home")
    hook = home / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[user]\nuseConfigOnly = true\n[commit]\ngpgSign = true\n[tag]\ngpgSign = true\n"
        f"[gpg]\nprogram = /nowhere\n[core]\nhooksPath = {hook.parent}\nautocrlf = true\n"
    )
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "XDG_CONFIG_HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)


NAMED = (
    "-c",
    "user.name=A",
    "-c",
    "user.email=a@example.com",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "core.hooksPath=/dev/null",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a commit, then a retraining's files, and changes of the user's that are not
    committed.
    """
    root = tmp_path / "pro ject"
    root.mkdir()
    monkeypatch.chdir(root)
    git(*NAMED, "init", "--quiet", "--initial-branch=main")
    write(".gitignore", "/models/\n/data/\n")
    write("params.yaml", "modes: [none]\n")
    write("densecl/code.py", "one = 1\n")
    write("notes.txt", "notes\n")
    write("reports/evaluation/gone-0/sketch.json", "{}")
    git(*NAMED, "add", ".")
    git(*NAMED, "commit", "--quiet", "-m", "Begin")
    Path("reports/evaluation/gone-0/sketch.json").unlink()
    write("params.yaml", "modes: [dense]\n")
    write("dvc.lock", "schema: '2.0'\n")
    write("cache/card.md", "# card\n")
    Path("models").mkdir()
    Path("models/card.md").symlink_to(Path("cache/card.md").absolute())  # as DVC may link it
    write("reports/evaluation/dense-0/sketch.json", json.dumps({"top1": 0.5}))
    write("reports/comparison.csv", "x" * (2**20 + 1))
    write("densecl/code.py", "one = 2\n")
    write("densecl/new.py", "")
    write("notes.txt", "private\n")
    write("staged.txt", "staged\n")
    git(*NAMED, "add", "staged.txt")
    return root


def theirs() -> tuple[str, ...]:
    """What must be as before: branch, HEAD, index to the byte, working tree."""
    status = git(
        "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=all"
    )
    return status, Path(".git/index").read_bytes().hex(), Path(".git/HEAD").read_text()


def files(commit: str) -> set[str]:
    return set(git("ls-tree", "-r", "-z", "--name-only", commit).strip("\0").split("\0"))


def test_a_fresh_clone_has_the_run_and_nothing_of_the_dirty_tree(project, tmp_path):
    earlier = later(0).model_copy(update={"started": "2026-01-04T03:00:00+01:00"})
    csv_log.append_record(Path("reports/retraining.csv"), earlier)
    before = theirs()
    assert save_snapshot(params("tag"), FINISHED, VERDICT) == TAG
    assert theirs() == before
    clone = tmp_path / "clone"
    git(*NAMED, "clone", "--quiet", str(project), str(clone))
    git(*NAMED, "checkout", "--quiet", TAG, at=clone)
    assert (clone / "params.yaml").read_text() == "modes: [dense]\n"
    assert (clone / "dvc.lock").read_text() == "schema: '2.0'\n"
    assert not (clone / "models/card.md").is_symlink()
    assert (clone / "models/card.md").read_text() == "# card\n"
    assert (clone / "notes.txt").read_text() == "notes\n"
    assert (clone / "densecl/code.py").read_text() == "one = 1\n"
    assert files(TAG) == {
        ".gitignore",
        "params.yaml",
        "dvc.lock",
        "models/card.md",
        "notes.txt",
        "densecl/code.py",
        "reports/evaluation/dense-0/sketch.json",
        "reports/retraining.csv",
    }
    kept = csv_log.read_records(
        clone / "reports/retraining.csv", RetrainingRecord
    )  # with this one, which the project's gets next
    assert kept == [earlier, FINISHED.model_copy(update={"git": TAG})]
    assert git("branch", "--contains", TAG) == ""
    message = git("log", "-1", "--format=%B", TAG)
    assert message.startswith(
        "Retraining of 2026-01-05T03:00:00+01:00: rejected\n\nsketch fell by 4.1 points\n"
    )
    head = git("rev-parse", "HEAD")
    assert (
        f"The code of this retraining differed from {head[:12]} in: densecl/code.py, densecl/new.py"
        in message
    )
    assert "Left out, above 1048576 bytes: reports/comparison.csv" in message
    assert message.endswith("Mode: dense, seed 0\nVersion: 4\nChampion: 3")
    assert (
        git("log", "-1", "--format=%an <%ae>", TAG) == "densecl retraining <retraining@localhost>"
    )


def test_no_filter_of_the_repository_changes_a_byte(project):
    write(".gitattributes", "*.lock filter=evil\n*.json text eol=lf\n")
    git("config", "filter.evil.clean", "echo POINTER")
    Path("reports/evaluation/dense-0/sketch.json").write_bytes(b"{\r\n}\n")
    save_snapshot(params("tag"), FINISHED, VERDICT)
    assert git("show", f"{TAG}:dvc.lock") == "schema: '2.0'"
    assert git("cat-file", "-s", f"{TAG}:reports/evaluation/dense-0/sketch.json") == "5"


def test_a_branch_of_their_own_keeps_each_and_the_code_it_ran_with(project):
    assert save_snapshot(params("commit"), FINISHED, VERDICT) == TAG
    first = git("rev-parse", "retraining")
    assert git("rev-parse", TAG) == first
    assert git("rev-parse", f"{first}^@") == git("rev-parse", "main")
    save_snapshot(params("commit"), later(1), VERDICT)
    second = git("rev-parse", "retraining")
    assert git("rev-parse", f"{second}^@") == first
    git(*NAMED, "commit", "--quiet", "--all", "-m", "More code")
    before = theirs()
    save_snapshot(params("commit"), later(2), VERDICT)
    assert theirs() == before
    third = git("rev-parse", "retraining")
    assert git("rev-parse", f"{third}^@").split() == [second, git("rev-parse", "main")]
    assert git("show", f"{third}:densecl/code.py") == "one = 2"
    assert "differed" in git("log", "-1", "--format=%B", third)  # new.py is still in no commit
    assert len(git("tag", "--list", "retraining/*").split()) == 3


def test_a_branch_that_is_checked_out_is_not_moved(project, capfd):
    git(*NAMED, "checkout", "--quiet", "-b", "retraining")
    before = theirs()
    assert save_snapshot(params("commit"), FINISHED, VERDICT) == TAG
    assert theirs() == before
    assert "retraining is checked out in" in capfd.readouterr().err


def test_a_branch_that_cannot_be_made_leaves_the_tag(project, capfd):
    git(*NAMED, "branch", "retraining/mine")
    assert save_snapshot(params("commit"), FINISHED, VERDICT) == TAG
    assert "only tagged" in capfd.readouterr().err


def test_detached_and_unborn(project, tmp_path, monkeypatch):
    git(*NAMED, "checkout", "--quiet", "--detach")
    before = theirs()
    assert save_snapshot(params("commit"), FINISHED, VERDICT) == TAG
    assert theirs() == before
    new = tmp_path / "new"
    new.mkdir()
    monkeypatch.chdir(new)
    git("init", "--quiet")
    write("params.yaml", "modes: [dense]\n")
    write("steps/code.py", "")
    assert save_snapshot(params("commit"), FINISHED, VERDICT) == TAG
    assert save_snapshot(params("commit"), later(1), VERDICT)
    assert files(TAG) == {"params.yaml", "reports/retraining.csv"}
    assert "The code of this retraining is in no commit: steps/code.py" in git(
        "log", "-1", "--format=%B", TAG
    )
    assert git("rev-list", "--count", "retraining") == "2"


def test_a_project_in_a_folder_of_a_repository(project, tmp_path, monkeypatch):
    inner = project / "sub" / "project"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    write("params.yaml", "modes: [global]\n")
    write("reports/evaluation/global-0/sketch.json", "{}")
    assert save_snapshot(params("tag"), FINISHED, VERDICT) == TAG
    monkeypatch.chdir(project)
    assert git("show", f"{TAG}:sub/project/params.yaml") == "modes: [global]"
    assert git("show", f"{TAG}:params.yaml") == "modes: [none]"
    assert "sub/project/reports/evaluation/global-0/sketch.json" in files(TAG)


def test_off_no_repository_no_git_and_a_tag_that_is_taken(project, tmp_path, capfd, monkeypatch):
    assert save_snapshot(params("off"), FINISHED, VERDICT) is None
    assert save_snapshot(params("tag"), FINISHED, VERDICT) == TAG
    assert capfd.readouterr().err == ""
    assert save_snapshot(params("tag"), FINISHED, VERDICT) is None
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    assert save_snapshot(params("tag"), FINISHED, VERDICT) is None
    monkeypatch.setenv("PATH", str(outside))
    assert save_snapshot(params("tag"), FINISHED, VERDICT) is None
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 3
    assert "not a git repository" in said[1]
    assert all(
        line.startswith("warning: ") and line.endswith("; this retraining is not kept in git")
        for line in said
    )
