"""A cluster of processes of this machine: what the engine asks of one, without one."""

import pickle
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from densecl.config.cluster_params import EngineName, JobParams
from pipelines.engines.executor import JobState
from pipelines.engines.job import JobResult, JobSpec

RUN = """
import pickle, signal, sys
from pathlib import Path
from pipelines.engines.job import NodeJob

place = Path(sys.argv[1])
node_job = NodeJob(pickle.loads(place.with_suffix(".spec").read_bytes()), writer=place.name)
signal.signal(signal.SIGTERM, lambda *_: node_job.stop())
found = node_job.run(place.with_suffix(".pack").read_bytes())
place.with_suffix(".partial").write_bytes(pickle.dumps(found))
place.with_suffix(".partial").replace(place.with_suffix(".result"))
"""


class SubprocessQueue:
    """Jobs as processes; ids are numbers from 1."""

    name: EngineName = "slurm"  # as the record of jobs knows it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.specs: list[JobSpec] = []

    def submit(self, spec: JobSpec, pack: bytes, params: JobParams, alone: bool) -> str:
        job = str(len(self.specs) + 1)
        self.specs.append(spec)
        (self.folder / f"{job}.spec").write_bytes(pickle.dumps(spec))
        (self.folder / f"{job}.pack").write_bytes(pack)
        command = [sys.executable, "-c", RUN, str(self.folder / job)]
        self.processes[job] = subprocess.Popen(command)
        return job

    def poll(self, jobs: Collection[str]) -> dict[str, JobState]:
        return {
            job: JobState("running", "here")
            if job in self.processes and self.processes[job].poll() is None
            else JobState("gone")
            for job in jobs
        }

    def fetch_result(self, job: str) -> JobResult | None:
        path = self.folder / f"{job}.result"
        if not path.exists():
            return None
        if job in self.processes:
            self.processes[job].wait()  # it ends a moment after its result
        result: JobResult = pickle.loads(path.read_bytes())  # noqa: S301
        return result

    def cancel(self, jobs: Collection[str]) -> None:
        for job in jobs:
            if job in self.processes:
                self.processes[job].kill()
                self.processes[job].wait()

    def explain(self, name: str, params: JobParams, alone: bool) -> str:
        return f"process of {name}"
