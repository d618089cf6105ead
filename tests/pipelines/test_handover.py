"""A ZenML stack that schedules is handed the schedule; the local one never is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from densecl.errors import DenseclError
from pipelines import handover
from pipelines.schedule.cron import parse_timezone
from tests.training.training_project import ENVIRONMENT

SCRIPT = """
from pipelines import environment, handover
from pipelines.schedule.cron import zone
environment.prepare()
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
print("local:", handover.answer() == handover.NO)
client = Client()
client.create_flavor("tests.pipelines.fake_orchestrator.Flavor", Kind.ORCHESTRATOR)
client.create_stack_component("cluster", "schedulable", Kind.ORCHESTRATOR, {})
client.create_stack("cluster", {Kind.ORCHESTRATOR: "cluster", Kind.ARTIFACT_STORE: "default"})
client.activate_stack("cluster")
print("cluster:", handover.wanted())
handover.hand_over("0 3 * * 1", zone("Europe/Paris"))
try:
    handover.hand_over("0 4 * * 1", zone("Europe/Paris"))
except Exception as error:
    print("twice:", error)
"""


@pytest.mark.slow
def test_a_stack_that_schedules_is_handed_the_schedule(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "local: True" in said
    assert "cluster: True" in said
    assert any("handed to the orchestrator of stack cluster" in line for line in said)
    assert said[-1].startswith(
        "twice: the stack cluster has the schedule densecl-retraining already (0 3 * * 1)"
    )
    handed = json.loads((tmp_path / "handed.json").read_text())
    assert handed == {"pipeline": "retraining", "cron": "0 3 * * 1", "run": None}


def test_nothing_is_asked_where_nobody_set_up_a_stack(tmp_path, monkeypatch):
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    assert handover.wanted() is False


def test_seconds_are_not_handed_over():
    with pytest.raises(DenseclError, match="knows five fields"):
        handover.hand_over("*/5 * * * * *", parse_timezone("UTC"))
