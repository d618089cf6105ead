"""Kills of a run of stages side by side, at any moment: the same command goes on, and ends in the
same files.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.pipelines.project_factory import ENVIRONMENT, PARAMS, call, pipelines, project

pytestmark = [pytest.mark.slow, pytest.mark.kills]

ROOT = Path(__file__).parents[2]
RUN = """
from pathlib import Path
from pipelines.engines.local import LocalExecutor
from pipelines.engines.run import schedule_stages
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph
from densecl.runtime import cli

def run():
    SIGNAL_FORWARDER.install_handlers()
    graph = StageGraph()
    with LocalExecutor(3) as executor, schedule_stages(graph, list(graph.stages), executor) as s:
        s.run()

cli.exit_immediately(cli.run_command(run))
"""


def list_processes(place: Path) -> list[str]:
    """Command lines of the processes whose current folder is `place`."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if each.joinpath("cwd").resolve() == place and int(each.name) != os.getpid():
                found.append(each.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a command in a process group of its own, which ends with the test; its output goes to
    the file `said` beside its folder.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start_group(place: Path, *command: str) -> subprocess.Popen[bytes]:
        environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
        with (place.parent / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=place,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start_group
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def kill(place: Path, process: subprocess.Popen[bytes], number: int, whole_group: bool) -> None:
    """Kill the parent alone or its whole group; nothing may stay behind, and nothing broken."""
    (os.killpg if whole_group else os.kill)(process.pid, number)
    status = process.wait(30)
    end = time.monotonic() + 20
    while list_processes(place):
        assert time.monotonic() < end, f"still running: {list_processes(place)}"
        time.sleep(0.1)
    assert status in {0, 75, -signal.SIGKILL, -signal.SIGTERM}, (place.parent / "said").read_text()
    lock = place / "dvc.lock"
    assert not lock.exists() or yaml.safe_load(lock.read_text())["stages"]


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    """Five chains of four quick stages, and one that reads all their ends."""
    place = tmp_path / "project"
    place.mkdir()
    stages = {
        f"s{chain}-{link}": {
            "cmd": f"sleep 0.2; echo {chain} {link} | cat - {before} > o{chain}-{link}",
            "deps": [before],
            "outs": [f"o{chain}-{link}"],
        }
        for chain in range(5)
        for link in range(4)
        for before in [f"o{chain}-{link - 1}" if link else "start"]
    }
    ends = [f"o{chain}-3" for chain in range(5)]
    stages["end"] = {"cmd": f"cat {' '.join(ends)} > end", "deps": ends, "outs": ["end"]}
    (place / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (place / "start").write_text("start\n")
    (place / "run.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{RUN}")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        call(place, *command)
    return place


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGKILL, True), (signal.SIGTERM, False)]
)
def test_no_kill_leaves_what_the_same_command_cannot_go_on_from(start, chains, number, whole_group):
    draw, kills = random.Random(int(number)), int(os.environ.get("DENSECL_TEST_KILLS", "3"))
    for _ in range(kills):
        process = start(chains, "run.py")
        until(lambda: " ..." in (chains.parent / "said").read_text())
        time.sleep(draw.uniform(0, 2.5))
        kill(chains, process, number, whole_group)
    assert start(chains, "run.py").wait(300) == 0
    lock = (chains / "dvc.lock").read_text()
    assert "up to date" in call(chains, "dvc", "repro")
    (chains / "dvc.lock").unlink()
    call(chains, "dvc", "repro", "--force")
    assert (chains / "dvc.lock").read_text() == lock


def digest_models(place: Path) -> dict[str, str]:
    return {
        str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (place / "models").rglob("*")
        if file.is_file()
    }


def test_trainings_that_are_killed_side_by_side_end_in_the_same_bits(start, tmp_path):
    train = PARAMS["train"] | {"epochs": 20, "checkpoint_minutes": 0.005}
    place = project(tmp_path / "project", modes=["none", "global"], train=train)
    for whole_group in (True, False):
        process = start(place, "-m", "pipelines", "run", "--jobs", "2")
        until(lambda: len({f.parent for f in place.glob("checkpoints/*/step-*.pt")}) == 2)
        assert process.poll() is None
        kill(place, process, signal.SIGKILL, whole_group)
    pipelines(place, "run", "--jobs", "2")
    assert "resumes after step" in (place / "cache/stages/train@none-0.log").read_text()
    killed = digest_models(place)
    assert {
        "models/none/seed-0/model.safetensors",
        "models/global/seed-0/model.safetensors",
    } <= set(killed)
    for folder in ("models", ".dvc/cache/runs"):
        shutil.rmtree(place / folder)
    call(place, "dvc", "repro", "--force", "--single-item", "train@none-0", "train@global-0")
    assert digest_models(place) == killed
