"""`python -m pipelines cancel` beside a command that waits for the job."""

import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from densecl.artifacts import write_json
from densecl.config.cluster_params import ClusterParams
from densecl.errors import RetryLater
from pipelines.engines import cluster, status
from pipelines.engines.cluster import ClusterExecutor
from pipelines.engines.executor import JobState
from pipelines.schemas import ClusterJob


class Queue:
    """Jobs that run until they are cancelled, and leave no result."""

    name = "slurm"

    def __init__(self) -> None:
        self.running: set[str] = set()

    def poll(self, jobs: Collection[str]) -> dict[str, JobState]:
        return {job: JobState("running" if job in self.running else "gone") for job in jobs}

    def fetch_result(self, _job: str) -> None:
        return None

    def cancel(self, jobs: Collection[str]) -> None:
        self.running -= set(jobs)


def test_a_cancelled_job_is_not_submitted_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "RESULT_TIMEOUT", 0.1)
    monkeypatch.setattr(cluster, "POLL_INTERVAL", 0.01)
    queue, submitted = Queue(), threading.Event()
    executor = object.__new__(ClusterExecutor)
    executor.queue, executor.settings = queue, ClusterParams()
    executor._closed, executor._lock = threading.Event(), threading.Lock()
    executor._jobs, executor._states, executor._polled = {}, {}, float("-inf")

    def submit(names: Sequence[str]) -> ClusterJob:
        assert not submitted.is_set()
        job = ClusterJob(
            id="1", engine="slurm", stages=tuple(names), key="k", log="l", submitted=time.time()
        )
        queue.running.add(job.id)
        write_json(cluster.get_job_file(job), job)
        executor._jobs = dict.fromkeys(names, job)
        submitted.set()
        return job

    monkeypatch.setattr(executor, "_attach_or_submit", submit)
    monkeypatch.setattr(status, "_open_queues", lambda jobs: [(queue, jobs)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(executor._run_job, ["train@dense-0"])
        assert submitted.wait(10)
        status.cancel_jobs([])
        with pytest.raises(RetryLater, match=r"slurm job 1 was cancelled; the same command"):
            waiting.result(10)
    assert cluster.read_jobs() == []
