"""Trials as jobs of a cluster. What they leave comes back with their result; this machine alone
writes the folder of the sweep and its database.
"""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from densecl import paths
from densecl.config.cluster_params import ClusterParams
from densecl.errors import EXIT_OK, EXIT_RETRY, DenseclError, RetryLater
from densecl.runtime.atomic_files import open_atomic_file
from densecl.tuning.records import SweepPlan
from pipelines.engines.cluster_jobs import ClusterJobs, JobRequest
from pipelines.engines.executor import JobQueue, LeftRunning
from pipelines.engines.job import JobResult
from pipelines.engines.publish import (
    Publication,
    build_spec,
    create_tracking_store,
    get_remote_name,
    select_lock_entries,
)
from pipelines.stages.dvc_graph import StageGraph
from pipelines.stages.transfer import list_image_outs, push_outs
from pipelines.studies.sweep.queue import ClaimedTrial

KIND = "train"  # of the section `cluster`: a trial is a training


class TrialJobs:
    """A thread per job; one that is still there from an earlier command is attached to."""

    def __init__(self, queue: JobQueue, settings: ClusterParams, plan: SweepPlan) -> None:
        self.settings, self.sweep, self.size = settings, plan.name, settings.jobs
        self.shared = (paths.sweep_plan(plan.name), paths.sweep_manifest(plan.name))
        self.graph = StageGraph()
        get_remote_name(self.graph.repo)  # before anything runs
        # No evaluation set travels, as no trial reads one.
        self.images = list_image_outs(self.graph, [Path(plan.root)])
        drawn_by = [o.stage.name for o in self.images if o.stage.addressing in self.graph.stages]
        self.lock_text = select_lock_entries(self.graph, drawn_by)
        self.jobs = ClusterJobs(queue, settings, self.shared)
        self.running: dict[str, tuple[ClaimedTrial, Future[None]]] = {}  # by name
        self._threads = ThreadPoolExecutor(settings.jobs)
        self._lock = threading.Lock()  # of the repository

    def __enter__(self) -> Self:
        push_outs(self.graph, self.images, f"sweep {self.sweep}")
        create_tracking_store()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave jobs that have not ended to the cluster, and say so, as what else has failed."""
        self.jobs.closed.set()
        self._threads.shutdown(cancel_futures=True)
        for _, future in self.running.values():
            if not future.cancelled() and (error := future.exception()):
                print(error, flush=True)

    def start(self, claim: ClaimedTrial) -> None:
        name = paths.trial_name(self.sweep, claim.mode, claim.index)
        self.running[name] = claim, self._threads.submit(self._run, claim, name)

    def take_ended(self) -> list[ClaimedTrial]:
        ended = []
        for name, (claim, future) in list(self.running.items()):
            if future.done():
                del self.running[name]
                future.result()
                ended.append(claim)
        return ended

    def describe(self) -> dict[str, str]:
        return {name: self.jobs.describe(name) for name in self.running}

    def _run(self, claim: ClaimedTrial, name: str) -> None:
        place = (self.sweep, claim.mode, claim.index)
        if paths.trial_result(*place).exists():  # of a command that was killed before it noted it
            return
        # The result last: with it, the trial has ended.
        results = (
            paths.trial_folder(*place) / "training/history.csv",
            paths.trial_predictions(*place),
            paths.trial_result(*place),
        )

        def publish(commit: str) -> Publication:
            plan = paths.trial_plan(*place)
            text = plan.read_text(encoding="utf-8")
            files = {plan.as_posix(): text, paths.DVC_LOCK.as_posix(): self.lock_text}
            with self._lock:
                spec = build_spec(self.graph.repo, (name,), commit, files, self.settings, results)
            return Publication(hash_files((*self.shared, plan)), spec)

        def keep(done: JobResult) -> None:
            for path in results:
                if done.status == EXIT_OK and path.as_posix() in done.files:
                    with open_atomic_file(path) as file:
                        file.write(done.files[path.as_posix()])

        try:
            self.jobs.run(JobRequest((name,), KIND, False, publish, keep))
        except LeftRunning:
            raise
        except DenseclError as error:
            raise (RetryLater if error.status == EXIT_RETRY else DenseclError)(
                f"trial {claim.index + 1} of {claim.mode}: {error}; its output is in "
                f"{paths.stage_log(name)}"
            ) from None
        finally:
            paths.stage_progress_file(name).unlink(missing_ok=True)


def hash_files(files: tuple[Path, ...]) -> str:
    """Hex digits, of what the files hold."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
