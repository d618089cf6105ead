"""Stages as jobs of a cluster: this machine publishes what they read, waits, and takes what they
leave from the DVC remote. It alone writes dvc.lock.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.config.cluster_params import JOB_KINDS, ClusterParams
from densecl.errors import EXIT_OK, EXIT_RETRY, DataError, DenseclError, RetryLater
from pipelines.engines.executor import (
    JobQueue,
    JobState,
    LeftRunning,
    Pool,
    StageOutcome,
)
from pipelines.engines.job import JobResult
from pipelines.engines.local import LocalExecutor
from pipelines.engines.publish import Publication, get_remote_name
from pipelines.engines.snapshot import create_commit, pack_commit
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import ClusterJob
from pipelines.stages.dvc_graph import ROOT_FILE, StageGraph, get_stage_kind
from pipelines.stages.transfer import CommandNeeded

POLL_INTERVAL = 1.0  # s between two questions to the cluster, for all jobs together
RESULT_TIMEOUT = 30.0  # s from a job's end until its result is seen on a shared file system


class ClusterExecutor:
    """Context manager. A thread per job; a job that is still there from an earlier command is
    attached to, not submitted again.
    """

    def __init__(self, queue: JobQueue, settings: ClusterParams, local: LocalExecutor) -> None:
        self.queue, self.settings, self.local = queue, settings, local
        self.graph = StageGraph()
        get_remote_name(self.graph.repo)  # before anything runs
        self._threads = ThreadPoolExecutor(settings.jobs)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._jobs: dict[str, ClusterJob] = {}  # by the names of their stages
        self._states: Mapping[str, JobState] = {}
        self._polled = float("-inf")
        self._packs: dict[str, bytes] = {}  # by commit; another one where files were edited

    def __enter__(self) -> "ClusterExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave jobs that have not ended to the cluster."""
        self._closed.set()
        self._threads.shutdown(cancel_futures=True)

    def get_pool(self, name: str, file: Path) -> Pool:
        if runs_elsewhere(name, file):
            return Pool(self.queue.name, self.settings.jobs, is_here=False)
        return self.local.get_pool(name, file)

    def joins(self, name: str, file: Path) -> bool:
        return runs_elsewhere(name, file) and self.settings.is_joined(get_stage_kind(name))

    def submit(self, names: Sequence[str], file: Path) -> Future[dict[str, StageOutcome]]:
        if self.get_pool(names[0], file).is_here:
            return self.local.submit(names, file)
        return self._threads.submit(self._update_group, names)

    def describe(self, name: str) -> str:
        if (job := self._jobs.get(name)) is None:
            return ""
        state = self._states.get(job.id, JobState("queued"))
        return f"{self.queue.name} job {job.id}, {format_state(state)}; {job.log}"

    def _update_group(self, names: Sequence[str]) -> dict[str, StageOutcome]:
        outcomes = self._restore(names)
        if remaining := [name for name in names if name not in outcomes]:
            result = self._run_job(remaining)
            restored = self._restore(remaining)
            if missing := [name for name in remaining if name not in restored]:
                raise RetryLater(
                    f"{missing[0]}: its job ended well on {result.node}, but the DVC remote holds "
                    f"no run of it on the files as they are now; run the same command again"
                )
            for name, outcome in restored.items():
                seconds = result.stages.get(name, ("", result.seconds))[1]
                outcomes[name] = outcome._replace(result="ran", seconds=seconds)
        return outcomes

    def _restore(self, names: Sequence[str]) -> dict[str, StageOutcome]:
        """Those of the first stages that are up to date or in the remote, without running any."""
        outcomes: dict[str, StageOutcome] = {}
        for name in names:
            try:
                outcomes[name] = self.local.call("restore", name, ROOT_FILE).result()
            except CommandNeeded:
                break
        return outcomes

    def _run_job(self, names: Sequence[str]) -> JobResult:
        """Result of a job that ended well; starts it again where it was stopped or lost."""
        error = ""
        for _ in range(self.settings.requeues + 1):
            job = self._attach_or_submit(names)
            try:
                result = self._wait_for(job)
            finally:
                self._jobs = {n: j for n, j in self._jobs.items() if j.id != job.id}
            is_cancelled = not get_job_file(job).exists()
            _forget_job(job)
            if result is not None and result.log:
                Path(job.log).write_text(result.log, encoding="utf-8")
            self.queue.cancel([job.id])  # a copy of it, where a node was given up as dead
            if result is not None and result.status == EXIT_OK:
                return result
            error = result.error if result else "it left no result, as one that was killed"
            if result is not None and result.status != EXIT_RETRY:
                raise DenseclError(error or f"{names[0]}: ended with status {result.status}")
            if is_cancelled:
                raise RetryLater(
                    f"{names[0]}: {self.queue.name} job {job.id} was cancelled; the same command "
                    "submits it again"
                )
        raise RetryLater(
            f"{names[0]}: given up after {self.settings.requeues + 1} jobs (cluster.requeues), the "
            f"last: {error}; the same command resumes"
        )

    def _attach_or_submit(self, names: Sequence[str]) -> ClusterJob:
        commit = self._create_commit()
        publication: Publication = self.local.call(
            "publish", tuple(names), commit, self.settings
        ).result()
        job = self._find_job(names, publication.key)
        if job is None:
            alone = self.graph.is_exclusive(names[0])
            params = self.settings.resolve_job(get_stage_kind(names[0]))
            with self._lock:
                number = self.queue.submit(publication.spec, self._packs[commit], params, alone)
            log = Path(publication.spec.log).relative_to(publication.spec.project)
            job = ClusterJob(
                id=number,
                engine=self.queue.name,
                stages=tuple(names),
                key=publication.key,
                log=log.as_posix(),
                submitted=time.time(),
            )
            write_json(get_job_file(job), job)
        self._jobs = self._jobs | dict.fromkeys(names, job)
        return job

    def _create_commit(self) -> str:
        with self._lock:
            commit = create_commit()
            if commit not in self._packs:
                self._packs[commit] = pack_commit(commit)
            return commit

    def _find_job(self, names: Sequence[str], key: str) -> ClusterJob | None:
        """The job of an earlier command on the same files, if the cluster still has it."""
        for job in read_jobs():
            if job.engine != self.queue.name or not set(names) & set(job.stages):
                continue
            if (job.stages, job.key) == (tuple(names), key) and (
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
            if self._closed.wait(POLL_INTERVAL) or SIGNAL_FORWARDER.received:
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


def runs_elsewhere(name: str, file: Path) -> bool:
    """True for the stages that compute; the models of other files are not in the DVC remote."""
    return file == ROOT_FILE and get_stage_kind(name) in JOB_KINDS


def format_state(state: JobState) -> str:
    """As "running on n1, 35 s"."""
    if state.state == "running":
        return f"running on {state.node}, {state.seconds:.0f} s"
    return f"{state.state} ({state.reason})" if state.reason else state.state


def get_job_file(job: ClusterJob) -> Path:
    return paths.CLUSTER_JOBS / f"{job.stages[0]}.json"


def read_jobs() -> list[ClusterJob]:
    """Jobs that were submitted and whose stages are not restored yet."""
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
