"""Stages side by side: the order, the limits, failures, and the same lock file as `dvc repro`."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from densecl.errors import DenseclError, RetryLater
from densecl.runtime.hardware import CORE_SHARE_ENV, count_workers
from pipelines.__main__ import main, parse_jobs
from pipelines.engines import local
from pipelines.engines.executor import Pool, StageOutcome
from pipelines.engines.local import LocalExecutor
from pipelines.engines.run import schedule_stages
from pipelines.engines.scheduler import StageScheduler
from pipelines.schemas import StageRef
from pipelines.stages import dvc_graph
from pipelines.stages.dvc_files import ReplacingFileSystem
from pipelines.stages.dvc_graph import StageGraph

ROOT = Path(__file__).parents[2]
IGNORE_PYGTRIE = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's


@dataclass
class PlannedGraph:
    """A graph without DVC."""

    upstream: dict[str, tuple[str, ...]]
    exclusive: frozenset[str] = frozenset()
    file: Path = Path("dvc.yaml")

    def is_exclusive(self, name: str) -> bool:
        return name in self.exclusive


@dataclass
class RecordingExecutor:
    """Finishes one running stage, chosen at random, for each that is submitted or waited for."""

    graph: PlannedGraph
    jobs: int
    seed: int = 0
    fails: str = ""
    joined: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    groups: dict[str, list[str]] = field(default_factory=dict)
    running: dict[str, Future[dict[str, StageOutcome]]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    most: int = 0

    def get_pool(self, name: str, file: Path) -> Pool:
        if name in self.elsewhere:
            return Pool("there", self.jobs, is_here=False)
        return Pool("here", self.jobs, is_here=True)

    def joins(self, name: str, file: Path) -> bool:
        return name in self.joined

    def describe(self, name: str) -> str:
        return ""

    def submit(self, names: Sequence[str], file: Path) -> Future[dict[str, StageOutcome]]:
        name = names[0]
        self.groups[name] = list(names)
        assert set(self.graph.upstream[name]) <= self.done
        self.started.append(name)
        future = self.running[name] = Future[dict[str, StageOutcome]]()
        self.most = max(self.most, len(self.running))
        here = [n for n in self.running if n not in self.elsewhere]
        if any(map(self.graph.is_exclusive, here)):
            assert len(here) == 1
        threading.Timer(
            0.002 * random.Random(f"{self.seed}{name}").random(), self.finish, [name]
        ).start()
        return future

    def finish(self, name: str) -> None:
        future = self.running.pop(name)
        if name == self.fails:
            future.set_exception(DenseclError(f"{name}: broken"))
        else:
            names = self.groups[name]
            self.done.update(names)
            future.set_result(
                {n: StageOutcome("ran", StageRef(stage=n, deps={}, outs={}), 0.0) for n in names}
            )


class NoDisplay:
    """Shows nothing."""

    def refresh(self, running: object) -> None: ...
    def report_outcome(self, name: str, outcome: StageOutcome) -> None: ...
    def report_failure(self, names: Sequence[str], error: Exception) -> None: ...


def draw_graph(seed: int, stages: int = 14) -> PlannedGraph:
    rng = random.Random(seed)
    names = [f"s{i}" for i in range(stages)]
    upstream = {n: tuple(u for u in names[:i] if rng.random() < 0.25) for i, n in enumerate(names)}
    return PlannedGraph(upstream, frozenset(n for n in names if rng.random() < 0.15))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("jobs", [1, 3])
def test_each_stage_starts_after_its_dependencies_and_within_the_limits(seed, jobs):
    graph = draw_graph(seed)
    executor = RecordingExecutor(graph, jobs, seed)
    scheduler = StageScheduler(graph, list(graph.upstream), executor, NoDisplay())
    assert set(scheduler.run()) == set(graph.upstream)
    assert sorted(executor.started) == sorted(graph.upstream)
    assert executor.most <= jobs


def test_after_a_failure_nothing_starts_and_what_runs_is_waited_for():
    graph = PlannedGraph({"a": (), "b": (), "c": ("a",), "d": ("b",), "e": ("c", "d")})
    executor = RecordingExecutor(graph, 2, fails="a")
    scheduler = StageScheduler(graph, list(graph.upstream), executor, NoDisplay())
    with pytest.raises(DenseclError, match="a: broken"):
        scheduler.run()
    assert {"c", "e"}.isdisjoint(executor.started)
    assert executor.running == {}


def test_stages_that_join_run_in_the_group_of_the_one_before_them_where_it_runs():
    graph = PlannedGraph(
        {
            "here": (),
            "train": ("here",),
            "evaluate": ("here", "train"),
            "other model": ("here",),  # after a stage of this machine: a group of its own
            "report": ("evaluate", "other model"),
        }
    )
    executor = RecordingExecutor(
        graph,
        2,
        joined=frozenset({"evaluate", "other model"}),
        elsewhere=frozenset({"train", "evaluate", "other model"}),
    )
    scheduler = StageScheduler(graph, list(graph.upstream), executor, NoDisplay())
    assert set(scheduler.run()) == set(graph.upstream)
    assert sorted(executor.groups.values()) == [
        ["here"],
        ["other model"],
        ["report"],
        ["train", "evaluate"],
    ]


def test_a_stage_that_runs_alone_shares_its_own_machine_with_none_and_leaves_others_alone():
    graph = PlannedGraph({"a": (), "b": (), "alone": (), "there": ()}, frozenset({"alone"}))
    executor = RecordingExecutor(graph, 4, elsewhere=frozenset({"there"}))
    scheduler = StageScheduler(graph, list(graph.upstream), executor, NoDisplay())
    scheduler._start_ready_stages()
    assert executor.started == ["a", "b", "there"]
    scheduler.run()
    assert executor.started == ["a", "b", "there", "alone"]


# Each of the two waits for the other's file: they end only if they run side by side.
MEET = """
import sys, time, pathlib
mine, other = sys.argv[1:]
pathlib.Path(mine).write_text(mine)
while not pathlib.Path(other).exists():
    time.sleep(0.05)
print("met", flush=True)
print("warning: they met", file=sys.stderr, flush=True)
"""


def update_all(graph: StageGraph, jobs: int = 2) -> dict[str, StageOutcome]:
    with (
        LocalExecutor(jobs) as executor,
        schedule_stages(graph, list(graph.stages), executor) as scheduler,
    ):
        return scheduler.run()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (place / "meet.py").write_text(MEET)
    stages = {
        "z_last": {"cmd": "cat one two > end", "deps": ["one", "two"], "outs": ["end"]},
        "left": {
            "cmd": f"{sys.executable} meet.py one two.tmp",
            "deps": ["meet.py"],
            "outs": ["one"],
        },
        "right": {
            "cmd": f"cp meet.py two.tmp && {sys.executable} meet.py two one",
            "deps": ["meet.py"],
            "outs": ["two"],
        },
    }
    (place / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    return place


@pytest.mark.slow
@IGNORE_PYGTRIE
def test_two_stages_meet_and_the_lock_file_is_that_of_dvc_repro(repository, capsys):
    graph = StageGraph()
    outcomes = update_all(graph)
    assert {name: outcome.result for name, outcome in outcomes.items()} == dict.fromkeys(
        graph.stages, "ran"
    )
    said = capsys.readouterr().out.splitlines()
    assert {"left ...", "right ...", "z_last ..."} <= set(said)
    assert said[-1].startswith("[3/3] z_last: ran, ")
    assert {"left: warning: they met", "right: warning: they met"} <= set(said)
    assert (repository / "cache/stages/left.log").read_text() == "met\nwarning: they met\n"
    assert StageGraph().is_up_to_date()
    ours = (repository / "dvc.lock").read_text()
    (repository / "dvc.lock").unlink()
    shutil.rmtree(repository / ".dvc/tmp")
    (repository / "two.tmp").write_text("")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)
    assert (repository / "dvc.lock").read_text() == ours


@pytest.mark.slow
@IGNORE_PYGTRIE
def test_a_failing_stage_names_itself_and_keeps_its_output(repository, capsys):
    text = (repository / "dvc.yaml").read_text()
    (repository / "dvc.yaml").write_text(text.replace("cat one two", "echo gone wrong; cat three"))
    graph = StageGraph()
    with pytest.raises(DenseclError, match=r"^z_last: its command failed with status 1$"):
        update_all(graph)
    assert "gone wrong" in (repository / "cache/stages/z_last.log").read_text()
    said = capsys.readouterr().out
    assert (
        "z_last: failed; its output is in cache/stages/z_last.log and ends with: cat: three" in said
    )


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_an_impossible_number_of_jobs_is_refused(jobs, capsys):
    with pytest.raises(SystemExit) as status:
        main(["run", "--jobs", jobs])
    assert status.value.code == 2
    assert f"--jobs: found {jobs}, expected a number of stages" in capsys.readouterr().err


def test_more_jobs_than_cores_are_allowed_after_a_warning(capsys):
    assert parse_jobs("4096") == 4096
    assert "warning: --jobs 4096: found " in capsys.readouterr().err
    assert parse_jobs("1") == 1
    assert capsys.readouterr().err == ""


def test_loaders_share_the_cores_that_stages_leave_unless_their_number_is_set(monkeypatch):
    monkeypatch.setattr(local, "count_cores", lambda: 8)
    monkeypatch.delenv("DENSECL_WORKERS", raising=False)

    def count_loaders(jobs: int, processes: int) -> int:
        with monkeypatch.context() as stage:
            share = local._build_environment(jobs)[CORE_SHARE_ENV]
            stage.setenv(CORE_SHARE_ENV, share)
            stage.setenv("LOCAL_WORLD_SIZE", str(processes))
            return count_workers()

    assert [count_loaders(jobs, 1) for jobs in (1, 3, 5, 8, 9)] == [8, 2, 0, 0, 0]
    assert [count_loaders(1, processes) for processes in (2, 4, 8)] == [4, 2, 0]
    monkeypatch.setenv("DENSECL_WORKERS", "3")
    assert count_loaders(8, 1) == 3


def test_a_write_that_is_broken_off_leaves_the_file_as_it_was(tmp_path):
    files, path = ReplacingFileSystem(), tmp_path / "dvc.lock"
    with files.open(str(path), "w+", encoding="utf-8") as file:
        file.write("one")
    assert path.read_text() == "one"

    def break_off() -> None:
        with files.open(str(path), "w+", encoding="utf-8") as half:
            half.write("half")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    with files.open(str(path), encoding="utf-8") as file:
        assert file.read() == "one"


@pytest.mark.slow
@IGNORE_PYGTRIE
def test_entries_of_stages_that_are_no_more_come_last(repository):
    graph = StageGraph()
    update_all(graph)
    whole = yaml.safe_load((repository / "dvc.lock").read_text())
    names = list(graph.stages)
    assert list(whole["stages"]) == names
    shuffled = {name: whole["stages"][name] for name in reversed(names)}
    whole["stages"] = {"gone": whole["stages"][names[0]]} | shuffled
    (repository / "dvc.lock").write_text(yaml.safe_dump(whole, sort_keys=False))
    graph.sort_lock_file()
    found = yaml.safe_load((repository / "dvc.lock").read_text())
    assert list(found["stages"]) == [*names, "gone"]
    assert found == whole


@IGNORE_PYGTRIE
def test_a_stage_that_another_process_runs_is_waited_for_and_then_named(repository, monkeypatch):
    graph = StageGraph()
    busy = repository / ".dvc/tmp/rwlock"
    info = {"pid": os.getppid(), "cmd": "dvc repro elsewhere"}
    text = json.dumps({"write": {str(repository / "end"): info}, "read": {}})
    busy.write_text(text)
    monkeypatch.setattr(dvc_graph, "BUSY_TIMEOUT", 0.0)
    with pytest.raises(
        RetryLater, match=r"^z_last: .*dvc repro elsewhere.*run again when the other process"
    ):
        graph.update_stage("z_last", lambda: None)
    busy.write_text(text)
    monkeypatch.setattr(dvc_graph, "BUSY_TIMEOUT", 60.0)
    threading.Timer(0.7, busy.write_text, ["{}"]).start()
    assert not graph.is_up_to_date()


@pytest.mark.slow
@IGNORE_PYGTRIE
def test_a_stage_whose_process_is_killed_is_told_and_the_others_finish(repository, capsys):
    text = (repository / "dvc.yaml").read_text()
    kill = "kill -9 $PPID; sleep 1"
    (repository / "dvc.yaml").write_text(
        text.replace(f"{sys.executable} meet.py one two.tmp", f"touch one; {kill}").replace(
            f"{sys.executable} meet.py two one", "sleep 1; touch two"
        )
    )
    with pytest.raises(RetryLater, match=r"^left: its process was killed, .*the same command"):
        update_all(StageGraph())
    said = capsys.readouterr().out
    assert "left: stopped; its output is in cache/stages/left.log" in said
    assert "[1/3] right: ran" in said
