"""Jobs of Slurm, by submitit: preempted and timed-out ones save their state and are queued again,
and so are those of a node that dies.

The project's folder must be one that the nodes see, as submitit's folder is in it.
"""

import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths, UncompletedJobError, pickle_load
from submitit.helpers import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

from densecl import paths
from densecl.config.cluster_params import ClusterParams, EngineName, JobParams
from densecl.errors import EXIT_OK, EXIT_RETRY, EXIT_USER_ERROR, DenseclError
from densecl.runtime.atomic_files import open_atomic_file
from densecl.runtime.launch import NODES_ENV
from pipelines.engines.executor import JobState
from pipelines.engines.job import JobResult, JobSpec, NodeJob

FOLDER = paths.CLUSTER / "slurm"  # a folder per submission, and a link to it by job id
SIGNAL_DELAY = 120  # s from the signal before a time limit to the limit
NO_LIMIT = 10**7  # minutes; submitit has a limit of its own, of 5
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}


class SlurmTask:
    """What a Slurm job runs; submitit calls `checkpoint` at its signal, then queues it again."""

    def __init__(self, spec: JobSpec, pack: str, nodes: int) -> None:
        self.spec, self.pack, self.nodes = spec, pack, nodes
        self.node_job: NodeJob | None = None
        self.is_requeued = False

    def __call__(self) -> JobResult:
        job, restart = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")
        os.environ[NODES_ENV] = str(self.nodes)
        self.node_job = NodeJob(self.spec, f"Slurm job {job}, restart {restart}")
        signal.signal(signal.SIGTERM, self._await_end)
        result = self.node_job.run(Path(self.pack).read_bytes())
        if result.status != EXIT_OK and _count_restarts(job) not in {None, int(restart)}:
            os._exit(EXIT_RETRY)  # of a node given up as dead: the job's result is its copy's
        return result

    def checkpoint(self) -> DelayedSubmission:
        """Stop the stages at a checkpoint; the copy goes on from there."""
        self.is_requeued = True
        if self.node_job is not None:
            self.node_job.stop()
        return DelayedSubmission(SlurmTask(self.spec, self.pack, self.nodes))

    def _await_end(self, *_: object) -> None:
        """At a preemption without submitit's signal: a job that ended by itself in the time of
        grace would not be queued again.
        """
        if self.is_requeued:
            return
        if self.node_job is not None:
            self.node_job.stop()
        while True:
            signal.pause()


def _count_restarts(job: str) -> int | None:
    """How often Slurm has queued a job again; None if it does not say."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\bRestarts=(\d+)", done.stdout)
    return int(found[1]) if found else None


class _Executor(SlurmExecutor):
    """Leaves the time limit to the partition where none is set."""

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        lines = super()._make_submission_file_text(command, uid).splitlines(keepends=True)
        return "".join(line for line in lines if line != f"#SBATCH --time={NO_LIMIT}\n")


class SlurmQueue:
    """The jobs of this user."""

    name: EngineName = "slurm"

    def __init__(self, settings: ClusterParams) -> None:
        self.settings = settings

    def submit(self, spec: JobSpec, pack: bytes, params: JobParams, alone: bool) -> str:
        FOLDER.mkdir(parents=True, exist_ok=True)
        paths.CLUSTER.chmod(0o700)  # tasks hold what .dvc/config.local does: keys
        file = paths.CLUSTER / f"{spec.commit}.pack"
        if not file.exists():
            with open_atomic_file(file) as output:
                output.write(pack)
        folder = FOLDER / uuid.uuid4().hex[:8]
        executor = self._open_executor(spec.names[0], params, alone, folder)
        task = SlurmTask(spec, str(file.absolute()), params.nodes)
        try:
            job = str(executor.submit(task).job_id)
        except Exception as error:  # submitit's, with sbatch's words
            shutil.rmtree(folder, ignore_errors=True)
            raise DenseclError(f"sbatch: {' '.join(str(error).split())}") from None
        link = FOLDER / job
        link.unlink(missing_ok=True)  # ids start again at 1 where a controller lost its state
        link.symlink_to(folder.name)
        return job

    def poll(self, jobs: Collection[str]) -> dict[str, JobState]:
        command = ["squeue", "--noheader", "--me", "--format=%i|%T|%N|%M|%r"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:  # the controller is away for a moment: its jobs are not
            said = " ".join(done.stderr.split()) or "squeue failed"
            return dict.fromkeys(jobs, JobState("queued", reason=said))
        states = {}
        for line in done.stdout.splitlines():
            job, state, node, elapsed, reason = line.split("|")
            if state in RUNNING:
                states[job] = JobState("running", node, parse_elapsed(elapsed))
            else:
                states[job] = JobState("queued", reason=reason)
        return {job: states.get(job, JobState("gone")) for job in jobs}

    def fetch_result(self, job: str) -> JobResult | None:
        path = JobPaths(FOLDER / job, job, 0).result_pickle
        if not path.exists():
            return None
        outcome, value = pickle_load(path)
        if outcome == "success":
            return JobResult(*value)
        line = str(value).strip().splitlines()[-1]
        status = EXIT_RETRY if UncompletedJobError.__name__ in line else EXIT_USER_ERROR
        return JobResult(status, line, "", 0.0, {}, "")

    def cancel(self, jobs: Collection[str]) -> None:
        subprocess.run(["scancel", *jobs], capture_output=True, check=False)
        for job in jobs:
            for file in (FOLDER / job).glob("*.pkl"):  # the log stays
                file.unlink(missing_ok=True)

    def explain(self, name: str, params: JobParams, alone: bool) -> str:
        text = self._open_executor(name, params, alone)._make_submission_file_text("", "")
        flags = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
        setup = "".join(f"; {line}" for line in params.setup)
        return f"sbatch {' '.join(flags)}{setup}"

    def _open_executor(
        self, name: str, params: JobParams, alone: bool, folder: Path = FOLDER
    ) -> _Executor:
        try:
            executor = _Executor(folder.absolute(), max_num_timeout=self.settings.requeues)
        except RuntimeError:
            raise DenseclError(
                "engine slurm: found no srun, expected Slurm's commands on the PATH of a machine "
                "that submits jobs"
            ) from None
        options: dict[str, Any] = {
            "job_name": name,
            "time": params.time or NO_LIMIT,
            "nodes": params.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": params.cpus,
            "signal_delay_s": SIGNAL_DELAY,
            "stderr_to_stdout": True,
            "setup": list(params.setup),
            "additional_parameters": {"requeue": True} | dict(params.options),
        }
        # From Slurm 22.05 on, srun does not inherit this from sbatch.
        options["srun_args"] = [f"--cpus-per-task={params.cpus}"]
        if params.nodes > 1:  # the stage starts processes on the other nodes itself
            options["srun_args"] += ["--nodes=1", "--ntasks=1"]
        if alone:
            options["exclusive"] = True
        if params.gpus:
            options["gpus_per_node"] = params.gpus
        executor.update_parameters(
            **options,
            **{
                key: value
                for key, value in (("partition", params.partition), ("mem", params.memory))
                if value is not None
            },
        )
        return executor


def parse_elapsed(text: str) -> float:
    """Seconds of squeue's "1-02:03:04" or "3:04"."""
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + (float(part) if part.isdigit() else 0)
    return seconds + 86400 * float(days or 0)
