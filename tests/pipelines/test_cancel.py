"""`python -m pipelines cancel` beside a command that waits for the job."""

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pytest

from densecl.config.cluster_params import ClusterParams
from densecl.errors import RetryLater
from pipelines.engines import cluster_jobs, status
from pipelines.engines.cluster_jobs import ClusterJobs, JobRequest, read_jobs
from pipelines.engines.executor import JobState
from pipelines.engines.job import JobSpec
from pipelines.engines.publish import Publication


class Queue:
    """Jobs that run until they are cancelled, and leave no result."""

    name = "slurm"

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.submitted = 0

    def submit(self, *_: object) -> str:
        self.submitted += 1
        self.running.add(str(self.submitted))
        return str(self.submitted)

    def poll(self, jobs: Collection[str]) -> dict[str, JobState]:
        return {job: JobState("running" if job in self.running else "gone") for job in jobs}

    def fetch_result(self, _job: str) -> None:
        return None

    def cancel(self, jobs: Collection[str]) -> None:
        self.running -= set(jobs)


def test_a_cancelled_job_is_not_submitted_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_jobs, "RESULT_TIMEOUT", 0.1)
    monkeypatch.setattr(cluster_jobs, "POLL_INTERVAL", 0.01)
    queue = Queue()
    spec = JobSpec(
        names=("train@dense-0",),
        commit="c",
        prefix="",
        files={},
        config="",
        project=str(tmp_path),
        token="",
        token_file="",
        log=str(tmp_path / "log"),
        progress="",
        scratch=None,
        checkpoints=None,
    )
    publication = Publication("k", spec)
    jobs = ClusterJobs(queue, ClusterParams())
    request = JobRequest(("train@dense-0",), "train", False, lambda _: publication)
    monkeypatch.setattr(cluster_jobs, "create_commit", lambda _: "c")
    monkeypatch.setattr(cluster_jobs, "pack_commit", lambda _: b"")
    monkeypatch.setattr(status, "_open_queues", lambda jobs: [(queue, jobs)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(jobs.run, request)
        while not read_jobs():
            time.sleep(0.01)
        status.cancel_jobs([])
        with pytest.raises(RetryLater, match=r"slurm job 1 was cancelled; the same command"):
            waiting.result(10)
    assert read_jobs() == []
    assert queue.submitted == 1
