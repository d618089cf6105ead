"""Which stages run on which machines; in no plan file, so that a change reruns no training."""

from typing import Annotated, Any, Literal

from pydantic import Field

from densecl.config.base import Count, Names, StrictModel

EngineName = Literal["local", "slurm", "ray"]
JobKind = Literal["train", "evaluate", "evaluate-model", "cost", "scan"]
SLURM_KEYS = ("partition", "time", "memory", "setup", "options")
JOB_KINDS: tuple[JobKind, ...] = ("train", "evaluate", "evaluate-model", "cost")  # of stages


class JobParams(StrictModel):
    """What a job asks for."""

    partition: str | None = Field(default=None, description="Slurm's partition; null: its default")
    time: Annotated[int, Field(ge=5)] | None = Field(
        default=None,
        description="minutes after which Slurm ends a job, which saves a checkpoint 2 minutes "
        "before and is queued again; null: the partition's limit",
    )
    gpus: Annotated[int, Field(ge=0)] = Field(default=0, description="GPUs per node")
    cpus: Count = Field(default=1, description="CPU cores per node")
    memory: Annotated[str, Field(pattern=r"^[0-9]+[MG]$")] | None = Field(
        default=None, description="memory per node, such as 64G; null: Slurm's default"
    )
    nodes: Count = Field(default=1, description="nodes (Slurm)")
    setup: Names = Field(
        default=(), description="lines of shell that run first in a Slurm job, such as module loads"
    )
    options: dict[str, str | int | bool] = Field(
        default={}, description="further options of sbatch, such as {account: vision}"
    )


class KindParams(JobParams):
    """As JobParams, of the jobs of one kind of stage; what is not set here is that of `cluster`."""

    join: bool = Field(
        default=False,
        description="run in the job of the stage that it follows, such as evaluate after train: "
        "one wait in the queue for both",
    )


class ClusterParams(JobParams):
    """Read by `python -m pipelines` only: a change reruns no stage but `plan`."""

    engine: EngineName = Field(
        default="local", description="where stages run; --engine overrides it"
    )
    jobs: Count = Field(default=256, description="jobs at a time, queued or running")
    requeues: Annotated[int, Field(ge=0)] = Field(
        default=3, description="how often a job is started again after a time limit or a lost node"
    )
    scratch: str | None = Field(
        default=None,
        description="folder on a node's own disk for clones and the DVC cache of that node; "
        "$VARIABLES are the node's; null: the system's folder of temporary files",
    )
    checkpoints: str | None = Field(
        default=None,
        description="folder that all nodes share, for checkpoints; null: that of the project where "
        "a node sees it, else one in scratch",
    )
    address: str = Field(
        default="auto", description="address of the Ray cluster, such as 10.0.0.1:6379"
    )
    kinds: dict[JobKind, KindParams] = Field(
        default={},
        description="what the jobs of one kind ask for, where it differs (train, evaluate, "
        "evaluate-model, cost, scan); scan, which reads shards for prepare, has no GPU unless set "
        "here",
    )

    def resolve_job(self, kind: str) -> JobParams:
        """What the jobs of a kind of stage ask for; those that scan shards, for one node without
        GPUs, unless `kinds.scan` says otherwise.
        """
        fields = set(JobParams.model_fields)
        values: dict[str, Any] = self.model_dump(include=fields)
        if kind == "scan":
            values |= {"gpus": 0, "nodes": 1}
        if kind in self.kinds:
            values |= self.kinds[kind].model_dump(include=fields, exclude_unset=True)
        return JobParams(**values)

    def list_slurm_keys(self) -> list[str]:
        """Keys that are set and that Slurm alone reads, as `kinds.train.time`."""
        default = JobParams()
        sections = {"": self} | {f"kinds.{name}.": values for name, values in self.kinds.items()}
        return [
            prefix + key
            for prefix, values in sections.items()
            for key in SLURM_KEYS
            if getattr(values, key) != getattr(default, key)
        ]

    def is_joined(self, kind: str) -> bool:
        """True if a stage of this kind runs in the job of the one before it."""
        return any(name == kind and values.join for name, values in self.kinds.items())
