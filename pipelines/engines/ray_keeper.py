"""The actor that owns a project's Ray tasks. Sent to nodes by value: of this project, it imports
pipelines/engines/job.py only.
"""

import os
import signal
import time
from typing import Any

import ray

from pipelines.engines.job import JobResult, JobSpec, NodeJob


class TaskKeeper:
    """Submits tasks, and keeps their results until the actor is killed or the cluster ends."""

    def __init__(self) -> None:
        self.tasks: dict[str, Any] = {}  # references, by id
        self.started: dict[str, tuple[str, float]] = {}  # node, and seconds since 1970
        self.packs: dict[str, Any] = {}
        self.me = ray.get_runtime_context().current_actor

    def keep_pack(self, commit: str, pack: bytes) -> None:
        """Put a commit's files into Ray's store, once for all tasks."""
        self.packs.setdefault(commit, ray.put(pack))

    def submit(
        self,
        spec: tuple[Any, ...],
        commit: str,
        options: dict[str, Any],
        environment: dict[str, str],
    ) -> str:
        """Id of a new task; "" where the commit's files are not kept, as after a restart."""
        if commit not in self.packs:
            return ""
        number = f"{int(time.time())}-{len(self.tasks) + 1}"
        task = ray.remote(run_task).options(**options)
        self.tasks[number] = task.remote(self.packs[commit], spec, environment, self.me, number)
        return number

    def note_start(self, number: str, node: str) -> None:
        """Called by the task, also by its second run."""
        self.started[number] = (node, time.time())

    def poll(self, numbers: list[str]) -> dict[str, tuple[str, str, float]]:
        """State, node and start of tasks."""
        return {number: self._get_state(number) for number in numbers}

    def _get_state(self, number: str) -> tuple[str, str, float]:
        if number not in self.tasks or ray.wait([self.tasks[number]], timeout=0)[0]:
            return "gone", "", 0.0
        if number not in self.started:
            return "queued", "", 0.0
        return "running", *self.started[number]

    def fetch_result(self, number: str) -> tuple[Any, ...] | None:
        """What the task returned, or an error if it raised one; None if it runs, was cancelled or
        is lost.
        """
        if number not in self.tasks or not ray.wait([self.tasks[number]], timeout=0)[0]:
            return None
        try:
            result: tuple[Any, ...] = ray.get(self.tasks[number])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (ray.exceptions.RayError, KeyboardInterrupt)):
                return None  # the task did not raise it itself
            node, _ = self.started.get(number, ("", 0.0))
            cause = " ".join(f"{type(error.cause).__name__}: {error.cause}".split())
            text = f"Ray task {number} failed on {node or 'its node'}"
            return tuple(JobResult(2, f"{text}: {cause}", node, 0.0, {}, ""))
        except (ray.exceptions.RayError, KeyboardInterrupt):
            return None
        return result

    def cancel(self, numbers: list[str]) -> None:
        """Stop tasks at a checkpoint."""
        for number in numbers:
            if number in self.tasks:
                ray.cancel(self.tasks[number])


def run_task(
    pack: bytes, spec: tuple[Any, ...], environment: dict[str, str], keeper: Any, number: str
) -> tuple[Any, ...]:
    """Run a job on a node; a cancelled or preempted task stops its stages first."""
    os.environ.update(environment)
    node = ray.util.get_node_ip_address()
    keeper.note_start.remote(number, node)
    writer = f"Ray task {number} on {node}, process {os.getpid()} at {time.time():.0f}"
    node_job = NodeJob(JobSpec(*spec), writer)
    signal.signal(signal.SIGTERM, lambda *_: node_job.stop())
    return tuple(node_job.run(pack))
