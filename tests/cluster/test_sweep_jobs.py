"""The trials of a sweep as jobs: the same files as on one machine, each trial once, also where the
command is interrupted.
"""

import signal
import sys
from pathlib import Path

import pytest

from densecl import paths
from densecl.errors import RetryLater
from pipelines.engines import queues
from pipelines.engines.cluster_jobs import read_jobs
from pipelines.engines.job import JobSpec
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.studies.sweep import run as sweep
from tests.cluster.small_project import DVC, repeat_project
from tests.cluster.subprocess_queue import SubprocessQueue
from tests.pipelines.project_factory import ENVIRONMENT, call

COMMAND = (sys.executable, "-m", "pipelines", "sweep", "--budget", "2", "--name", "s-1")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's
]


class Interrupted(SubprocessQueue):
    """Ctrl-C comes with the first job."""

    def submit(self, spec: JobSpec, *arguments: object) -> str:
        job = super().submit(spec, *arguments)
        if not self.specs[1:]:
            SIGNAL_FORWARDER.received = signal.SIGINT
        return job


def read_results(place: Path) -> dict[str, bytes]:
    files = [place / paths.SWEEP_TRIALS, place / paths.tuned_preset("s-1")]
    for name in ("result.json", "predictions.parquet", "training/history.csv"):
        files += sorted((place / paths.sweep_folder("s-1")).glob(f"trials/*/{name}"))
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in files}


def test_trials_as_jobs_leave_what_trials_of_this_machine_leave(
    finished, tmp_path, monkeypatch, capfd
):
    alone = repeat_project(finished, tmp_path / "alone" / "densecl")
    call(alone, *COMMAND, "--jobs", "2")
    place = repeat_project(finished, tmp_path / "densecl")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # scratch of jobs
    monkeypatch.chdir(place)
    queue = Interrupted(tmp_path / "queue")
    monkeypatch.setattr(queues, "open_queue", lambda *_: queue)
    monkeypatch.setattr(SIGNAL_FORWARDER, "install_handlers", lambda: None)
    monkeypatch.setattr(SIGNAL_FORWARDER, "received", 0)
    call(place, *DVC, "repro", "--quiet", "render@imagenet-train")
    arguments = {"jobs": None, "engine": "slurm", "take_over": False}
    with pytest.raises(RetryLater, match="SIGINT: stopped; nothing is lost"):
        sweep.main(2, "s-1", **arguments, dry_run=False)
    assert "left running as slurm job 1; the same command attaches" in capfd.readouterr().out
    assert [job.id for job in read_jobs()][:1] == ["1"]
    SIGNAL_FORWARDER.received = 0
    sweep.main(2, "s-1", **arguments, dry_run=False)
    assert sorted(spec.names for spec in queue.specs) == [
        (f"trial@s-1-{mode}-{index}",) for mode in ("global", "none") for index in range(2)
    ]
    assert read_results(place) == read_results(alone)
    assert len(read_results(place)) == 2 + 4 * 3
    assert read_jobs() == []
