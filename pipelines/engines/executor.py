"""Where stages run. `StageExecutor` is the whole interface of an engine; `JobQueue` is that of a
cluster, which pipelines/engines/cluster.py makes an engine of.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from densecl.config.cluster_params import EngineName, JobParams
from densecl.errors import RetryLater
from pipelines.engines.job import JobResult, JobSpec
from pipelines.schemas import StageRef, StageResult


class StageOutcome(NamedTuple):
    """How a stage was brought up to date."""

    result: StageResult
    reference: StageRef
    seconds: float


class Pool(NamedTuple):
    """Machines that run groups of stages beside each other."""

    name: str
    size: int  # groups at a time
    is_here: bool  # this machine: a stage with `meta.exclusive` then runs alone


class StageExecutor(Protocol):
    """Runs groups of stages in order; each is submitted once all stages that it depends on are up
    to date.
    """

    def get_pool(self, name: str, file: Path, /) -> Pool:
        """Where a stage of `file` (a dvc.yaml) runs."""

    def joins(self, name: str, file: Path, /) -> bool:
        """True if a stage belongs into the group of the one before it."""

    def submit(self, names: Sequence[str], file: Path) -> Future[dict[str, StageOutcome]]:
        """Bring stages of `file` up to date; the future raises the first error."""

    def describe(self, name: str, /) -> str:
        """Where a running stage is, as "slurm job 12, running on n1"; "" on this machine."""


class JobState(NamedTuple):
    """What a cluster says of a job."""

    state: Literal["queued", "running", "gone"]  # gone: ended, or never heard of
    node: str = ""
    seconds: float = 0.0
    reason: str = ""  # why it is queued


class JobQueue(Protocol):
    """A cluster that runs jobs, also when this process has ended."""

    name: EngineName

    def submit(self, spec: JobSpec, pack: bytes, params: JobParams, alone: bool) -> str:
        """Id of a new job, which lays the git pack and runs the stages of `spec`; `alone`: with no
        other job on its node.
        """

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobState]:
        """States by id."""

    def fetch_result(self, job: str) -> JobResult | None:
        """How a job ended; None if it has left no result, as a killed one."""

    def cancel(self, jobs: Collection[str]) -> None:
        """End jobs; those that have ended are no error."""

    def explain(self, name: str, params: JobParams, alone: bool) -> str:
        """What `submit` would ask the cluster for."""


class LeftRunning(RetryLater):
    """The command was stopped while a job goes on elsewhere; the same command attaches to it."""
