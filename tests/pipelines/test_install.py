"""What `schedule install` writes is what systemd, cron and GitHub read, whatever the project's path
looks like.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from densecl.errors import DenseclError
from pipelines import install as room
from pipelines.install import install

ODD = "my $HOME%h \"pro\" 'ject' \\n ünï"
MONDAYS = "0 3 * * 1"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder with an odd name, whose python writes down how it was called."""
    root = tmp_path / ODD
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\npwd >> called; for word in "$@"; do echo "$word" >> called; done; command -v python >> called\n'
    )
    python.chmod(0o755)
    monkeypatch.chdir(root)
    monkeypatch.setattr(room.sys, "executable", str(python))
    return root


def test_systemd_accepts_the_unit(project, tmp_path, monkeypatch, capsys):
    install("systemd", MONDAYS, "Europe/Paris")
    unit = project / "deploy/densecl-retraining.service"
    text = unit.read_text()
    assert text.endswith("WantedBy=default.target\n")
    assert f"WorkingDirectory={project}".replace("%", "%%") in text
    assert '-m pipelines schedule run --cron "0 3 * * 1" --timezone Europe/Paris' in text
    assert "KillMode=mixed" in text  # SIGTERM reaches the retraining once, from the scheduler
    said = capsys.readouterr().out
    assert "Nothing is installed" in said
    assert "systemctl --user enable --now densecl-retraining.service" in said
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not there to check the unit")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_crontab_line_runs_the_retraining_in_the_project(project, tmp_path):
    install("cron", MONDAYS, "Europe/Paris")
    *comments, zone, line = (project / "deploy/retraining.crontab").read_text().splitlines()
    assert all(comment.startswith("# ") for comment in comments)
    assert zone == "CRON_TZ=Europe/Paris"
    assert line.startswith(f"{MONDAYS} ")
    command = line.split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)  # cron would end the command there
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")],
        cwd="/",
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0
    python = str(project / ".venv/bin/python")
    assert (project / "called").read_text().splitlines() == [
        str(project),
        "-m",
        "pipelines",
        "retraining",
        python,
    ]
    assert (project / "cache/retraining.log").exists()


def test_the_workflow_is_a_pinned_and_unprivileged_one(project):
    install("github", "0 3 * * MON", "Europe/Paris", Path("elsewhere"))
    text = (project / "elsewhere/retraining.yml").read_text()
    flow = yaml.safe_load(text)
    assert flow[True]["schedule"] == [
        {"cron": "0 3 * * MON", "timezone": "Europe/Paris"}
    ]  # YAML 1.1 reads `on` so
    assert flow["permissions"] == {"contents": "read"}
    assert flow["concurrency"] == {"group": "retraining", "cancel-in-progress": False}
    job = flow["jobs"]["retraining"]
    assert job["runs-on"] == ["self-hosted"]
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", each) for each in used)
    ran = [step["run"] for step in job["steps"] if "run" in step]
    assert [r for r in ran if "pipelines" in r] == ["python -m pipelines retraining"]
    assert any("dvc pull" in r for r in ran)
    assert any("dvc push" in r for r in ran)
    assert job["steps"][-1]["with"]["path"] == "reports/"
    for command in ran:
        subprocess.run(["/bin/sh", "-n", "-c", command], check=True)


def test_a_project_in_a_folder_of_its_repository(project):
    subprocess.run(["git", "init", "--quiet", ".."], check=True)
    install("github", MONDAYS, None)
    flow = yaml.safe_load((project / "deploy/retraining.yml").read_text())
    assert flow["defaults"]["run"]["working-directory"] == f"{ODD}/"
    assert flow["jobs"]["retraining"]["steps"][-1]["with"]["path"] == f"{ODD}/reports/"


def test_seconds_are_for_the_scheduler_alone(project):
    install("systemd", "*/10 * * * * *", "UTC")
    for kind in ("cron", "github"):
        with pytest.raises(DenseclError, match=f"expected five fields: {kind} knows no seconds"):
            install(kind, "*/10 * * * * *", "UTC")
    with pytest.raises(DenseclError, match="expected five fields"):
        install("systemd", "soon", "UTC")


def test_a_path_that_no_such_file_can_hold(tmp_path, monkeypatch):
    (tmp_path / "new\nline").mkdir()
    monkeypatch.chdir(tmp_path / "new\nline")
    with pytest.raises(DenseclError, match="control characters"):
        install("cron", MONDAYS, "UTC")
