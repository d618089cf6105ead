"""Stages as jobs of a cluster: this machine publishes what they read, waits, and takes what they
leave from the DVC remote. It alone writes dvc.lock.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from densecl.config.base import TRAIN_SET
from densecl.config.cluster_params import JOB_KINDS, ClusterParams
from densecl.errors import RetryLater
from pipelines.engines.cluster_jobs import ClusterJobs, JobRequest
from pipelines.engines.executor import JobQueue, Pool, StageOutcome
from pipelines.engines.job import JobResult
from pipelines.engines.local import LocalExecutor
from pipelines.engines.publish import Publication, get_remote_name
from pipelines.engines.shard_scans import ShardScans, get_dataset, list_stored_datasets
from pipelines.stages.dvc_graph import ROOT_FILE, StageGraph, get_stage_kind
from pipelines.stages.transfer import CommandNeeded


class ClusterExecutor:
    """Context manager. A thread per job; a job that is still there from an earlier command is
    attached to, not submitted again.
    """

    def __init__(self, queue: JobQueue, settings: ClusterParams, local: LocalExecutor) -> None:
        self.settings, self.local = settings, local
        self.graph = StageGraph()
        get_remote_name(self.graph.repo)  # before anything runs
        self.jobs = ClusterJobs(queue, settings)
        self.scans = ShardScans(self.graph.repo, self.jobs, settings)
        self.stored = list_stored_datasets()
        self._threads = ThreadPoolExecutor(settings.jobs)

    def __enter__(self) -> "ClusterExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave jobs that have not ended to the cluster."""
        self.jobs.closed.set()
        self._threads.shutdown(cancel_futures=True)
        self.scans.close()

    def get_pool(self, name: str, file: Path) -> Pool:
        if runs_elsewhere(name, file) or self._reads_store(name, file):
            return Pool(self.jobs.queue.name, self.settings.jobs, is_here=False)
        return self.local.get_pool(name, file)

    def joins(self, name: str, file: Path) -> bool:
        return runs_elsewhere(name, file) and self.settings.is_joined(get_stage_kind(name))

    def submit(self, names: Sequence[str], file: Path) -> Future[dict[str, StageOutcome]]:
        if self.get_pool(names[0], file).is_here:
            return self.local.submit(names, file)
        if self._reads_store(names[0], file):
            return self._threads.submit(self._prepare, names[0])
        return self._threads.submit(self._update_group, names)

    def describe(self, name: str) -> str:
        return self.scans.describe(name) or self.jobs.describe(name)

    def _reads_store(self, name: str, file: Path) -> bool:
        """True for a stage `prepare` of shards in a store, or of classes that such shards have."""
        is_prepare = file == ROOT_FILE and get_stage_kind(name) == "prepare"
        return is_prepare and not self.stored.isdisjoint((get_dataset(name), TRAIN_SET))

    def _prepare(self, name: str) -> dict[str, StageOutcome]:
        """A stage `prepare` that reads shards in a store: jobs scan them, it runs here."""
        if not (outcomes := self._restore((name,))):
            self.scans.run(name)
            outcomes[name] = self.local.call("update", name, ROOT_FILE).result()
        return outcomes

    def _update_group(self, names: Sequence[str]) -> dict[str, StageOutcome]:
        outcomes = self._restore(names)
        if remaining := tuple(name for name in names if name not in outcomes):
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

    def _run_job(self, names: tuple[str, ...]) -> JobResult:
        def publish(commit: str) -> Publication:
            done: Publication = self.local.call("publish", names, commit, self.settings).result()
            return done

        alone = self.graph.is_exclusive(names[0])
        return self.jobs.run(JobRequest(names, get_stage_kind(names[0]), alone, publish))


def runs_elsewhere(name: str, file: Path) -> bool:
    """True for the stages that compute; the models of other files are not in the DVC remote."""
    return file == ROOT_FILE and get_stage_kind(name) in JOB_KINDS
