"""The shards of a dataset in a store, scanned by jobs of a cluster before `prepare` reads on this
machine what they found: a job per shard, or per block of shards where there are more than jobs.
"""

import hashlib
import json
import math
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json, write_text
from densecl.config.base import TRAIN_SET
from densecl.config.cluster_params import ClusterParams
from densecl.config.params import load_params
from densecl.datasets.manifests.kept_scans import SCAN_PACKAGES, locate_scan
from densecl.datasets.manifests.layouts.shard_images import is_scanned, locate_shards
from densecl.datasets.manifests.layouts.shard_listings import locate_listing
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.remote_store import is_remote
from densecl.datasets.storage.shard_index import ShardIndex, read_index
from densecl.errors import EXIT_RETRY, DataError, DenseclError, RetryLater
from densecl.runtime.kept_files import accept_kept
from pipelines.engines.cluster_jobs import ClusterJobs, JobRequest, read_jobs
from pipelines.engines.executor import LeftRunning
from pipelines.engines.job import JobResult
from pipelines.engines.publish import Publication, build_spec
from pipelines.engines.worker import SCAN
from pipelines.runtime.signals import SIGNAL_FORWARDER

if TYPE_CHECKING:
    from dvc.repo import Repo


class ShardBlock(NamedTuple):
    """What a job scans."""

    name: str  # of the job
    shards: list[Path]  # the same in every command, so that its job is found again
    unscanned: list[Path]


class ShardScans:
    """A thread per job; one that is still there from an earlier command is attached to."""

    def __init__(self, repo: "Repo", jobs: ClusterJobs, settings: ClusterParams) -> None:
        self.repo, self.jobs, self.settings = repo, jobs, settings
        self._threads, self._waiting = ThreadPoolExecutor(settings.jobs), ThreadPoolExecutor()
        self._lock = threading.Lock()
        self._datasets: dict[str, Future[None]] = {}  # that are scanned, or have been
        self._places: dict[str, str] = {}  # where the jobs of a dataset are
        self._awaited: dict[str, str] = {}  # the dataset that a stage waits for

    def close(self) -> None:
        self._waiting.shutdown(cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)

    def run(self, stage: str) -> None:
        """Have all shards scanned that a stage `prepare` reads: those of its dataset, and of the
        train set, whose classes it lists.
        """
        name = get_dataset(stage)
        is_grouped = read_json(DatasetPlan, paths.plan_file(name)).groups is not None
        for dataset in dict.fromkeys((name,) if is_grouped else (TRAIN_SET, name)):
            with self._lock:
                if dataset not in self._datasets:
                    self._datasets[dataset] = self._waiting.submit(self._scan_dataset, dataset)
            self._awaited[stage] = dataset
            self._datasets[dataset].result()
        self._awaited.pop(stage, None)

    def describe(self, stage: str) -> str:
        """Where the jobs are that a stage waits for; "" if for none."""
        return self._places.get(self._awaited.get(stage, ""), "")

    def _scan_dataset(self, name: str) -> None:
        """Keep what is found of the shards of a dataset in a store. A single one without a job is
        left to its stage, as is an error of an optional dataset, which it writes into the manifest.
        """
        plan, stage = read_json(DatasetPlan, paths.plan_file(name)), f"prepare@{name}"
        try:
            blocks = [block for block in list_blocks(plan, self.settings.jobs) if block.unscanned]
        except DataError:  # as in `prepare`
            return
        names = {block.name for block in blocks}
        jobs = [job for job in read_jobs() if paths.get_scanned_dataset(job.stages[0]) == name]
        # Of nodes that see this folder, or of shards that are in the index no more.
        self.jobs.drop(job for job in jobs if job.stages[0] not in names)
        is_begun = any(job.stages[0] in names for job in jobs)
        if sum(len(block.unscanned) for block in blocks) < 2 and not is_begun:
            return
        write_text(paths.stage_log(stage), "")  # clear that of the run before
        where = f"{len(blocks)} jobs, {blocks[0].name} to {blocks[-1].name}"
        self._places[name] = f"shards are scanned by {self.jobs.queue.name}, {where}"
        futures = [self._threads.submit(self._scan, plan, block) for block in blocks]
        for done, future in enumerate(as_completed(futures), 1):
            if future.exception():
                break
            progress = {"done": done, "total": len(futures), "text": ""}
            write_text(paths.stage_progress_file(stage), json.dumps(progress))
        for future in futures:  # after an error, those that have not begun
            future.cancel()
        wait(futures)
        del self._places[name]
        paths.stage_progress_file(stage).unlink(missing_ok=True)
        errors = [e for f in futures if not f.cancelled() and (e := f.exception())]
        if left := [error for error in errors if isinstance(error, LeftRunning)]:
            more = f"; likewise {len(left) - 1} more jobs of {stage}" if left[1:] else ""
            raise LeftRunning(f"{left[0]}{more}")
        for error in errors:
            if not plan.optional or getattr(error, "status", None) != DataError.status:
                raise error
            print(f"warning: {error}", file=sys.stderr, flush=True)

    def _scan(self, plan: DatasetPlan, block: ShardBlock) -> None:
        SIGNAL_FORWARDER.raise_if_signalled()
        kept = [locate_files(plan, shard) for shard in block.shards]
        key = hashlib.sha256("\n".join(path.name for pair in kept for path in pair).encode())
        results = [path for shard in block.unscanned for path in locate_files(plan, shard)]

        def publish(commit: str) -> Publication:
            # An attempt before may have left some.
            new = [shard for shard in block.unscanned if not is_scanned(plan, shard)]
            with self._lock:
                files = describe_block(plan, new or block.unscanned)
                names = (block.name,)
                spec = build_spec(self.repo, names, commit, files, self.settings, results)
            return Publication(key.hexdigest(), spec._replace(progress=""))

        def keep(done: JobResult) -> None:
            for path in results:
                if (stored := done.files.get(path.as_posix())) is not None:
                    accept_kept(path, stored)

        try:
            result = self.jobs.run(JobRequest((block.name,), SCAN, False, publish, keep))
        except LeftRunning:
            raise
        except DenseclError as error:
            raise (RetryLater if error.status == EXIT_RETRY else DenseclError)(
                f"prepare@{plan.name}: {error}; the job's output is in "
                f"{paths.stage_log(block.name)}"
            ) from None
        for shard in block.unscanned:
            if not locate_files(plan, shard)[1].exists() and not is_scanned(plan, shard):
                raise RetryLater(
                    f"{block.name}: its job ended well on {result.node}, but there is no scan of "
                    f"{to_printable(shard.name)} by the code and the versions of this machine "
                    f"({', '.join(SCAN_PACKAGES)}); install the same versions on the node, or, if "
                    "files of cache/ were removed meanwhile, run the same command again"
                )


def get_dataset(stage: str) -> str:
    """The dataset of a stage `prepare`."""
    return stage.partition("@")[2]


def list_stored_datasets() -> set[str]:
    """The datasets of shards in a store."""
    datasets = load_params(paths.PARAMS).datasets
    return {name for name, source in datasets.items() if is_remote(source.root)}


def list_blocks(plan: DatasetPlan, jobs: int) -> list[ShardBlock]:
    """The shards of a dataset in a store in at most so many blocks, none of other datasets;
    DataError if they cannot be listed.
    """
    shards = locate_shards(plan.dataset) if is_remote(plan.dataset.root) else []
    size = math.ceil(len(shards) / jobs) or 1
    parts = [shards[start : start + size] for start in range(0, len(shards), size)]
    return [
        ShardBlock(
            paths.scan_name(plan.name, number, len(parts)),
            part,
            [shard for shard in part if not is_scanned(plan, shard)],
        )
        for number, part in enumerate(parts, 1)
    ]


def describe_block(plan: DatasetPlan, unscanned: list[Path]) -> dict[str, str]:
    """What `python -m steps scan` reads: the dataset's plan, with an index of these shards only."""
    file, root = paths.scan_index(plan.name), locate_root(plan.dataset)
    index = read_index(Path(plan.dataset.tracked_by))
    if index is None:
        raise RuntimeError(f"{plan.dataset.tracked_by}: removed since the shards were listed")
    names = {shard.relative_to(root).as_posix() for shard in unscanned}
    shards = tuple(shard for shard in index.shards if shard.name in names)
    dataset = plan.dataset.model_copy(update={"tracked_by": file.as_posix()})
    here = plan.model_copy(update={"dataset": dataset})
    return {
        paths.plan_file(plan.name).as_posix(): here.model_dump_json(by_alias=True),
        file.as_posix(): ShardIndex(base=index.base, shards=shards).model_dump_json(),
    }


def locate_files(plan: DatasetPlan, shard: Path) -> tuple[Path, Path]:
    """The files that keep what a shard holds and what is found of its images, now or later."""
    listing = locate_listing(shard)
    if listing is None:
        raise ValueError(f"{shard}: found no shard of a store")
    return listing, locate_scan(shard, plan.exif)
