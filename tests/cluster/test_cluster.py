"""Stages as jobs, with only the DVC remote between the machines: the lock file is that of `dvc
repro`, nothing of a clone stays behind, and an interrupted command goes on.
"""

import sys

import pytest

from densecl.config.cluster_params import ClusterParams
from pipelines.engines.cluster import ClusterExecutor
from pipelines.engines.cluster_jobs import read_jobs
from pipelines.engines.local import LocalExecutor
from pipelines.engines.run import schedule_stages
from pipelines.stages.dvc_graph import StageGraph
from tests.cluster.small_project import DVC, read_stable_lock, repeat_project
from tests.cluster.subprocess_queue import SubprocessQueue
from tests.pipelines.project_factory import ENVIRONMENT, call

MODEL = "models/none/seed-0/model.safetensors"
CREATE_COMMIT = "from pipelines.engines.snapshot import create_commit; print(create_commit())"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's
]


def test_jobs_leave_the_lock_file_of_dvc_repro(finished, tmp_path, monkeypatch, capfd):
    place = repeat_project(finished, tmp_path / "densecl")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place)
    scratch = tmp_path / "scratch"
    queue = SubprocessQueue(tmp_path / "queue")
    settings = ClusterParams(scratch=str(scratch), kinds={"evaluate": {"join": True}})
    graph = StageGraph()
    with (
        LocalExecutor(2) as local,
        ClusterExecutor(queue, settings, local) as executor,
        schedule_stages(graph, list(graph.stages), executor) as scheduler,
    ):
        outcomes = scheduler.run()
    assert read_stable_lock(place) == read_stable_lock(finished)
    assert call(place, *DVC, "status", "--quiet") == ""
    assert sorted(spec.names for spec in queue.specs) == [
        ("cost",),
        ("train@global-0", "evaluate@global-0"),
        ("train@none-0", "evaluate@none-0"),
    ]
    assert outcomes["train@none-0"].result == "ran"
    assert not list(scratch.glob("*/jobs/*/*"))
    assert read_jobs() == []
    assert (place / MODEL).read_bytes() == (finished / MODEL).read_bytes()
    assert "train@none-0: slurm job" in capfd.readouterr().out


def test_a_worker_by_hand_leaves_what_plain_dvc_restores(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))  # scratch without an older cache
    place = repeat_project(finished, tmp_path / "densecl")
    call(place, *DVC, "repro", "--quiet", "validate")
    call(place, *DVC, "push", "--quiet")
    with (place / "densecl/training/trainer.py").open("a") as file:
        file.write("# an edit that no branch has\n")
    worker = (sys.executable, "-m", "pipelines", "worker", "train@none-0", "--commit")
    said = call(place, *worker, "no-such-commit", status=2)
    assert said == (
        "error: --commit no-such-commit: found no such commit here; `git log` lists them\n"
    )
    said = call(place, sys.executable, "-c", CREATE_COMMIT)
    call(place, *worker, said.strip())
    assert not (place / "models").exists()
    said = call(place, *DVC, "repro", "--single-item", "--pull", "train@none-0")
    assert "is cached - skipping run" in said
    assert (place / MODEL).read_bytes() == (finished / MODEL).read_bytes()
