"""Jobs of a cluster from their submission to their result: attached to where an earlier command
left them, and submitted again where they were stopped or lost.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.config.cluster_params import ClusterParams
from densecl.errors import EXIT_OK, EXIT_RETRY, DataError, DenseclError, RetryLater
from pipelines.engines.executor import JobQueue, JobState, LeftRunning
from pipelines.engines.job import JobResult
from pipelines.engines.publish import Publication
from pipelines.engines.snapshot import create_commit, pack_commit
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import ClusterJob

POLL_INTERVAL = 1.0  # s between two questions to the cluster, for all jobs together
RESULT_TIMEOUT = 30.0  # s from a job's end until its result is seen on a shared file system


class JobRequest(NamedTuple):
    """What a job is to do."""

    names: tuple[str, ...]
    kind: str  # whose settings of the section `cluster` it asks for
    alone: bool  # with no other job on its node
    publish: Callable[[str], Publication]  # makes what it reads reachable, with the code's commit
    # What it brings back, before it is forgotten, however it ended.
    keep: Callable[[JobResult], None] = lambda _: None


class ClusterJobs:
    """Runs jobs, each in a thread of its caller. `files` travel beside the project's code."""

    def __init__(
        self, queue: JobQueue, settings: ClusterParams, files: Sequence[Path] = ()
    ) -> None:
        self.queue, self.settings, self.files = queue, settings, files
        self.closed = threading.Event()  # jobs are then left to the cluster
        self._lock = threading.Lock()
        self._jobs: dict[str, ClusterJob] = {}  # by the names of their stages
        self._states: Mapping[str, JobState] = {}
        self._polled = float("-inf")
        self._packs: dict[str, bytes] = {}  # by commit; another one where files were edited

    def describe(self, name: str) -> str:
        """Where the job of a stage is."""
        if (job := self._jobs.get(name)) is None:
            return ""
        state = self._states.get(job.id, JobState("queued"))
        return f"{self.queue.name} job {job.id}, {format_state(state)}; {job.log}"

    def run(self, request: JobRequest) -> JobResult:
        """Result of a job that ended well; starts it again where it was stopped or lost."""
        error, first = "", request.names[0]
        for _ in range(self.settings.requeues + 1):
            job = self._attach_or_submit(request)
            try:
                result = self._wait_for(job)
            finally:
                with self._lock:
                    self._jobs = {n: j for n, j in self._jobs.items() if j.id != job.id}
            is_cancelled = not get_job_file(job).exists()
            if result is not None and result.log:
                Path(job.log).parent.mkdir(parents=True, exist_ok=True)
                Path(job.log).write_text(result.log, encoding="utf-8")
            if result is not None:
                request.keep(result)
            _forget_job(job)
            self.queue.cancel([job.id])  # a copy of it, where a node was given up as dead
            if result is not None and result.status == EXIT_OK:
                return result
            error = result.error if result else "it left no result, as one that was killed"
            if result is not None and result.status != EXIT_RETRY:
                raise DenseclError(error or f"{first}: ended with status {result.status}")
            if is_cancelled:
                raise RetryLater(
                    f"{first}: {self.queue.name} job {job.id} was cancelled; the same command "
                    "submits it again"
                )
        raise RetryLater(
            f"{first}: given up after {self.settings.requeues + 1} jobs (cluster.requeues), the "
            f"last: {error}; the same command resumes"
        )

    def drop(self, jobs: Iterable[ClusterJob]) -> None:
        """End and forget jobs of earlier commands that nothing waits for any more."""
        for job in jobs:
            if job.engine == self.queue.name:
                self.queue.cancel([job.id])
                _forget_job(job)

    def _attach_or_submit(self, request: JobRequest) -> ClusterJob:
        commit = self._create_commit()
        publication = request.publish(commit)
        job = self._find_job(request.names, publication.key)
        if job is None:
            params = self.settings.resolve_job(request.kind)
            with self._lock:
                number = self.queue.submit(
                    publication.spec, self._packs[commit], params, request.alone
                )
            log = Path(publication.spec.log).relative_to(publication.spec.project)
            job = ClusterJob(
                id=number,
                engine=self.queue.name,
                stages=request.names,
                key=publication.key,
                log=log.as_posix(),
                submitted=time.time(),
            )
            write_json(get_job_file(job), job)
        with self._lock:
            self._jobs = self._jobs | dict.fromkeys(request.names, job)
        return job

    def _create_commit(self) -> str:
        with self._lock:
            commit = create_commit(self.files)
            if commit not in self._packs:
                self._packs[commit] = pack_commit(commit)
            return commit

    def _find_job(self, names: tuple[str, ...], key: str) -> ClusterJob | None:
        """The job of an earlier command on the same files, if the cluster still has it."""
        for job in read_jobs():
            if job.engine != self.queue.name or not set(names) & set(job.stages):
                continue
            if (job.stages, job.key) == (names, key) and (
                self.queue.poll([job.id])[job.id].state != "gone"
                or self.queue.fetch_result(job.id) is not None
            ):
                return job
            self.queue.cancel([job.id])  # of other files, or lost
            _forget_job(job)
        return None

    def _wait_for(self, job: ClusterJob) -> JobResult | None:
        gone_since = None
        while True:
            if result := self.queue.fetch_result(job.id):
                return result
            if self.closed.wait(POLL_INTERVAL) or SIGNAL_FORWARDER.received:
                raise LeftRunning(
                    f"{job.stages[0]}: left running as {self.queue.name} job {job.id}; the same "
                    f"command attaches to it, `python -m pipelines status` shows it, `python -m "
                    f"pipelines cancel` ends it"
                )
            if self._get_state(job).state != "gone":
                gone_since = None
            elif gone_since is None:
                gone_since = time.monotonic()
            elif time.monotonic() - gone_since > RESULT_TIMEOUT:
                return None

    def _get_state(self, job: ClusterJob) -> JobState:
        with self._lock:
            wanted = {job.id, *(other.id for other in self._jobs.values())}
            if time.monotonic() - self._polled > POLL_INTERVAL or job.id not in self._states:
                self._states = self.queue.poll(wanted)
                self._polled = time.monotonic()
            return self._states[job.id]


def format_state(state: JobState) -> str:
    """As "running on n1, 35 s"."""
    if state.state == "running":
        return f"running on {state.node}, {state.seconds:.0f} s"
    return f"{state.state} ({state.reason})" if state.reason else state.state


def get_job_file(job: ClusterJob) -> Path:
    return paths.CLUSTER_JOBS / f"{job.stages[0]}.json"


def read_jobs() -> list[ClusterJob]:
    """Jobs that were submitted and whose results are not taken yet."""
    jobs = []
    for path in sorted(paths.CLUSTER_JOBS.glob("*.json")):
        try:
            jobs.append(read_json(ClusterJob, path))
        except DataError as error:
            if not isinstance(error.__context__, FileNotFoundError):  # forgotten meanwhile
                raise
    return jobs


def _forget_job(job: ClusterJob) -> None:
    get_job_file(job).unlink(missing_ok=True)
