"""Tasks of a Ray cluster. A detached actor on its head node owns them, so that they outlast the
command; Ray runs a task again where its node dies.

Nodes need this project's Python environment, not its folder: the code travels with the task.
"""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ray

from densecl.config.cluster_params import ClusterParams, EngineName, JobParams
from densecl.errors import DenseclError, RetryLater
from pipelines.engines import job, ray_keeper
from pipelines.engines.executor import JobState
from pipelines.engines.job import JobResult, JobSpec

NAMESPACE = "densecl"
HEAD = "node:__internal_head__"  # Ray's resource of the node that it was started on
RESTART_TIMEOUT = 60.0  # s
# What stages read of the environment, of the machine that submits.
PREFIXES = ("AWS_", "MLFLOW_", "DENSECL_", "OMP_", "DVC_")


class RayQueue:
    """The tasks of this project, by the actor that owns them."""

    name: EngineName = "ray"

    def __init__(self, settings: ClusterParams) -> None:
        self.settings = settings
        self._has_warned = False
        self._lock = threading.Lock()  # of a connection: jobs have threads of their own
        self._keeper: Any = None
        self._older: list[Any] = []  # actors of this project as it was

    @property
    def keeper(self) -> Any:
        """The actor; Ray is asked for it only when a job is."""
        with self._lock:
            if self._keeper is None:
                self._keeper = self._connect()
            return self._keeper

    def submit(self, spec: JobSpec, pack: bytes, params: JobParams, alone: bool) -> str:
        environment = {k: v for k, v in os.environ.items() if k.startswith(PREFIXES)}
        options = self._build_options(spec.names[0], params)
        if alone:  # it takes all cores of the largest node
            _ = self.keeper  # connects: this may be the first job
            nodes = [node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"]]
            options["num_cpus"] = max(nodes)
        arguments = (tuple(spec), spec.commit, options, environment)
        while not (number := self._ask("submit", *arguments)):
            self._ask("keep_pack", spec.commit, pack)
        return str(number)

    def poll(self, jobs: Collection[str]) -> dict[str, JobState]:
        states: dict[str, tuple[str, str, float]] = self._ask("poll", list(jobs))
        return {
            job: JobState(state, node, time.time() - started if started else 0.0)  # type: ignore[arg-type]
            for job, (state, node, started) in states.items()
        }

    def fetch_result(self, job: str) -> JobResult | None:
        found = self._ask("fetch_result", job)
        return None if found is None else JobResult(*found)

    def cancel(self, jobs: Collection[str]) -> None:
        self._ask("cancel", list(jobs))
        for keeper in self._older:
            keeper.cancel.remote(list(jobs))

    def explain(self, name: str, params: JobParams, alone: bool) -> str:
        options = self._build_options(name, params)
        text = " ".join(f"{key}={value}" for key, value in options.items())
        return f"ray task {text}{', on all cores of a node' if alone else ''}"

    def _ask(self, method: str, *arguments: Any) -> Any:
        """What the actor answers; waits a little for one that starts again on another node."""
        deadline = time.monotonic() + RESTART_TIMEOUT
        while True:
            try:
                return ray.get(getattr(self.keeper, method).remote(*arguments))
            except ray.exceptions.RayActorError as error:
                if time.monotonic() > deadline:
                    reason = " ".join(str(error).split())[:200]
                    raise RetryLater(f"engine ray: {reason}; run the same command again") from None
                time.sleep(1)

    def _build_options(self, name: str, params: JobParams) -> dict[str, Any]:
        if (keys := self.settings.list_slurm_keys()) and not self._has_warned:
            self._has_warned = True
            print(
                f"warning: engine ray: does not read cluster.{', cluster.'.join(keys)}",
                file=sys.stderr,
            )
        if params.nodes > 1:
            raise DenseclError(
                f"engine ray: {name}: found nodes: {params.nodes}, expected 1, as a task of Ray is "
                "on one node; use a node with more GPUs, or engine slurm"
            )
        return {
            "name": name,
            "num_cpus": params.cpus,
            "num_gpus": params.gpus,
            "max_retries": self.settings.requeues,
        }

    def _connect(self) -> Any:
        try:
            ray.init(
                address=self.settings.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                ignore_reinit_error=True,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DenseclError(
                f"engine ray: {' '.join(str(error).split())[:200]}; expected a cluster at "
                f"cluster.address ({self.settings.address}): `ray start --head` starts one"
            ) from None
        code = hashlib.sha256()
        for module in (job, ray_keeper):  # nodes may have no copy of this project
            ray.cloudpickle.register_pickle_by_value(module)
            code.update(Path(str(module.__file__)).read_bytes())
        prefix = f"keeper of {Path.cwd()}, code "
        name = prefix + code.hexdigest()[:12]  # an actor goes on with the code that it began with
        older = [n for n in ray.util.list_named_actors() if n.startswith(prefix) and n != name]
        self._older = [ray.get_actor(n) for n in older]
        actor = ray.remote(ray_keeper.TaskKeeper).options(
            name=name,
            lifetime="detached",
            max_restarts=-1,  # without its tasks, which are then submitted again
            get_if_exists=True,
            num_cpus=0,
            resources={HEAD: 0.001},  # the cluster ends with that node
        )
        return actor.remote()
