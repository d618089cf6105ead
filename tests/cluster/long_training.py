"""A training of some seconds as a job, and the command that waits for it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.small_project import DVC, make_project, repeat_project, set_params
from tests.pipelines.project_factory import ENVIRONMENT, call

MODEL = "models/none/seed-0/model.safetensors"
TRAIN = """
import sys
from densecl.runtime import cli
from pipelines.engines.run import open_executor, schedule_stages
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph

def run():
    SIGNAL_FORWARDER.install_handlers()
    with (
        open_executor(1, sys.argv[1]) as executor,
        schedule_stages(StageGraph(), ["train@none-0"], executor) as scheduler,
    ):
        scheduler.run()

cli.exit_immediately(cli.run_command(run))
"""
LONG: dict[str, Any] = {
    "modes": ["none"],
    "train": {
        "batch_size": 8,
        "epochs": 60,
        "learning_rate": 0.003,
        "warmup_epochs": 1,
        "validate_on": [],
    },
}


class Training:
    """A training of some seconds as a job: the command that waits for it, and its checkpoints."""

    def __init__(self, place: Path, engine: str) -> None:
        self.place, self.engine = place, engine
        self.log = place / "said"

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-c", TRAIN, self.engine],
                cwd=self.place,
                env=ENVIRONMENT,
                stdout=output,
                stderr=output,
            )

    def count_steps(self) -> int:
        """Steps of the newest checkpoint."""
        names = [path.stem for path in self.place.glob("checkpoints/*/step-*.pt")]
        return max((int(name.partition("-")[2]) for name in names), default=0)

    def wait_for_steps(self) -> None:
        """Wait for a checkpoint beyond those that are there."""
        before = self.count_steps()
        wait_until(lambda: self.count_steps() > before)


def prepare_training(folder: Path, engine: str, **cluster: Any) -> Training:
    """All that comes before the training is done."""
    place = make_project(folder / "jobs" / "densecl", **LONG)
    scratch = f"{folder}/scratch-$SLURMD_NODENAME"
    set_params(place, cluster={"engine": engine, "scratch": scratch, **cluster})
    call(place, *DVC, "repro", "--quiet", "validate")
    return Training(place, engine)


def run_here(place: Path) -> bytes:
    """The same training on this machine: bytes of its model."""
    here = repeat_project(place, place.parent / "here")
    set_params(here, **LONG)
    call(here, *DVC, "repro", "--quiet", "train@none-0")
    return (here / MODEL).read_bytes()


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.3)
