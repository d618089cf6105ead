"""Parts of jobs on other machines, without any: the commit that travels, the settings, the states,
and the messages.
"""

import os
import pickle
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.config.cluster_params import ClusterParams, KindParams
from densecl.errors import DataError, DenseclError
from densecl.runtime.launch import NODES_ENV, count_nodes, launch_agents
from pipelines.engines import queues, status
from pipelines.engines.cluster_jobs import format_state, get_job_file, read_jobs
from pipelines.engines.executor import JobState
from pipelines.engines.job import JobResult, JobSpec, NodeJob
from pipelines.engines.snapshot import create_commit, pack_commit, resolve_commit
from pipelines.schemas import ClusterJob
from pipelines.stages import transfer
from tests.pipelines.project_factory import ENVIRONMENT, ROOT, call


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "repository"
    (place / "densecl").mkdir(parents=True)
    (place / "densecl/code.py").write_text("one = 1\n")
    (place / ".gitignore").write_text("/ignored\n")
    (place / ".dvc").mkdir()
    (place / ".dvc/config").write_text("[core]\n")
    (place / "ignored").write_text("not to travel\n")
    call(place, "git", "init", "-q", "-b", "main")
    call(place, "git", "add", "-A")
    call(place, "git", "commit", "-qm", "start")
    monkeypatch.chdir(place)
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    return place


def build_spec(repository: Path, commit: str, scratch: str | None) -> JobSpec:
    return JobSpec(
        ("train@none-0",),
        commit,
        "",
        {"dvc.lock": "stages: {}\n"},
        "[core]\n",
        str(repository),
        "a",
        "token",
        "",
        "",
        scratch,
        None,
    )


def test_a_clean_tree_travels_as_head_and_a_changed_one_as_a_commit_of_no_branch(repository):
    head = call(repository, "git", "rev-parse", "HEAD").strip()
    assert create_commit() == head
    (repository / "densecl/code.py").write_text("one = 2\n")
    (repository / "densecl/new.py").write_text("new = 1\n")
    (repository / "notes.txt").write_text("of nobody's business\n")
    before = call(repository, "git", "status", "--porcelain")
    commit = create_commit()
    assert commit not in {head, ""}
    assert create_commit() == commit  # the same files, the same hash
    assert call(repository, "git", "branch", "--all", "--contains", commit) == ""
    assert call(repository, "git", "status", "--porcelain") == before
    files = call(repository, "git", "ls-tree", "-r", "--name-only", commit).split()
    assert files == [".dvc/config", ".gitignore", "densecl/code.py", "densecl/new.py"]
    assert resolve_commit(commit[:10]) == commit
    with pytest.raises(DenseclError, match="--commit nothing: found no such commit here"):
        resolve_commit("nothing")


def test_an_edit_of_the_same_size_in_the_second_of_the_commit_travels(repository):
    """Git takes files as unchanged that are older than its index."""
    code, index = repository / "densecl/code.py", repository / ".git/index"
    call(repository, "git", "config", "core.trustctime", "false")
    second = 10**9
    os.utime(code, (second, second))
    call(repository, "git", "add", "densecl/code.py")
    os.utime(index, (second, second))
    code.write_text("one = 2\n")
    os.utime(code, (second, second))
    assert call(repository, "git", "show", f"{create_commit()}:densecl/code.py") == "one = 2\n"


def test_a_clone_has_the_files_of_the_commit_and_nothing_else(repository, tmp_path):
    (repository / "densecl/code.py").write_text("one = 2\n")
    commit = create_commit()
    spec = build_spec(repository, commit, str(tmp_path / "$WHERE"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHERE", "scratch")
        node_job = NodeJob(spec)
    assert not node_job.sees_project
    assert node_job.scratch.parent == tmp_path / "scratch"
    node_job._lay_clone(pack_commit(commit), node_job.clone)
    assert (node_job.clone / "densecl/code.py").read_text() == "one = 2\n"
    assert not (node_job.clone / "ignored").exists()
    assert call(node_job.clone, "git", "rev-list", "HEAD").strip() == commit
    config = node_job.clone / ".dvc/config.local"
    assert config.stat().st_mode & 0o077 == 0
    assert config.read_text() == f'[cache]\n    dir = "{node_job.scratch}/cache"\n[core]\n'


def test_only_clones_that_no_job_of_this_node_holds_are_removed(tmp_path, monkeypatch):
    spec = build_spec(tmp_path, "", str(tmp_path))
    running, dead, new = (NodeJob(spec) for _ in range(3))
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    elsewhere = NodeJob(spec)
    for job in (running, dead, elsewhere):
        job.clone.mkdir(parents=True)
    for job in (dead, elsewhere):
        Path(f"{job.clone}.lock").touch()
    with running._hold_clone():
        new._remove_dead_clones()
        assert [job.clone.exists() for job in (running, dead, elsewhere)] == [True, False, True]
    assert list(new.clones.iterdir()) == []


@pytest.mark.parametrize("key", ["scratch", "checkpoints"])
@pytest.mark.parametrize("folder", ["$UNSET/scratch", "/a/$UNSET", "relative"])
def test_a_folder_that_a_node_cannot_resolve_is_an_error(key, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = build_spec(tmp_path, "", str(tmp_path))._replace(**{key: folder})
    result = NodeJob(spec).run(b"")
    assert result.status == 2
    assert f"cluster.{key}: found {folder}, expected a full path of $VARIABLES" in result.error
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_that_somebody_else_may_have_filled_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    job = NodeJob(build_spec(tmp_path, "", None))
    assert job._find_fault() == ""
    assert job.scratch.stat().st_mode & 0o777 == 0o700
    job.scratch.chmod(0o770)
    assert "found drwxrwx--- of user" in job.run(b"").error
    assert NodeJob(build_spec(tmp_path, "", str(tmp_path)))._find_fault() == ""  # the user's choice
    job.scratch.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: job.scratch.stat().st_uid + 1)
        assert "remove it or set cluster.scratch" in job._find_fault()
    job.scratch.rename(tmp_path / "elsewhere")
    job.scratch.symlink_to(tmp_path / "elsewhere")
    assert "found lrwxrwxrwx of user" in job._find_fault()
    job.scratch.unlink()
    job.scratch.touch()
    assert "cluster.scratch: [Errno 17] File exists" in job._find_fault()


def test_kinds_of_stages_ask_for_what_the_section_does_not_say():
    settings = ClusterParams(
        partition="gpu",
        gpus=1,
        kinds={"train": KindParams(gpus=8, time=60), "evaluate": KindParams(join=True)},
    )
    train, evaluate = settings.resolve_job("train"), settings.resolve_job("evaluate")
    assert (train.partition, train.gpus, train.time) == ("gpu", 8, 60)
    assert (evaluate.partition, evaluate.gpus, evaluate.time) == ("gpu", 1, None)
    scan = settings.resolve_job("scan")  # decodes images: on no GPU, unless it is told so
    assert (scan.partition, scan.gpus, scan.nodes) == ("gpu", 0, 1)
    told = ClusterParams(gpus=1, nodes=2, kinds={"scan": {"gpus": 1}}).resolve_job("scan")
    assert (told.gpus, told.nodes) == (1, 1)
    assert settings.is_joined("evaluate")
    assert not settings.is_joined("train")
    with pytest.raises(ValidationError, match="kinds"):
        ClusterParams(kinds={"report": {}})


def test_states_in_words_and_seconds_of_squeue():
    assert format_state(JobState("running", "n1", 35.2)) == "running on n1, 35 s"
    assert format_state(JobState("queued", reason="Priority")) == "queued (Priority)"
    pytest.importorskip("submitit", reason="no submitit: `make extras` installs it")
    from pipelines.engines.slurm import parse_elapsed

    assert [parse_elapsed(t) for t in ("0:07", "3:04", "2:00:01", "1-02:03:04", "INVALID")] == [
        7,
        184,
        7201,
        93784,
        0,
    ]


def test_only_a_job_of_several_nodes_starts_processes_on_others(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")  # as in an allocation of the user's
    assert count_nodes() == 1
    pytest.importorskip("submitit", reason="no submitit: `make extras` installs it")
    from pipelines.engines import slurm

    monkeypatch.setenv(NODES_ENV, "3")  # set back afterwards
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "pack").touch()
    done = JobResult(0, "", "n1", 1.0, {}, "")
    monkeypatch.setattr(NodeJob, "run", lambda *_: done)
    monkeypatch.setattr(slurm.signal, "signal", lambda *_: None)
    task = slurm.SlurmTask(build_spec(tmp_path, "", None), str(tmp_path / "pack"), 2)
    assert task() == done
    assert count_nodes() == 2


SRUN = """#!/bin/sh
# As srun: of an agent whose rank found an error, and of one that lost it, the higher status.
echo "$@" > options
python -c "from densecl.runtime.launch import _record_error
_record_error(75)
_record_error(2)
_record_error(1)"
exit 75
"""


def test_an_error_of_one_node_is_no_reason_to_try_again(tmp_path, monkeypatch):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        launch_agents(2, ["-m", "steps"])
    assert ended.value.code == 2
    assert "--cpus-per-task=3" in Path("options").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"srun", "options"}


def test_outs_that_a_remote_refuses_are_pushed_again(monkeypatch, capsys):
    monkeypatch.setattr(transfer, "PUSH_DELAYS", (0, 0))
    failures = [OSError("full"), OSError("full")]
    pushed = []

    def push(targets, run_cache):
        assert run_cache
        if failures:
            raise failures.pop()
        pushed.extend(targets)

    stage = SimpleNamespace(outs=[SimpleNamespace(def_path="models", use_cache=True)])
    graph = SimpleNamespace(repo=SimpleNamespace(push=push), stages={"train@none-0": stage})
    transfer._push_outs(graph, "train@none-0")
    assert pushed == ["models"]
    assert capsys.readouterr().err.count("warning: pushing train@none-0: full; again in 0 s") == 2
    failures[:] = [OSError("full")] * 3
    with pytest.raises(OSError, match="full"):
        transfer._push_outs(graph, "train@none-0")


def test_a_slurm_job_has_no_result_of_an_older_one_and_its_keys_are_nobodys(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="no submitit: `make extras` installs it")
    from pipelines.engines import slurm

    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    for name, text in (("srun", ""), ("scancel", ""), ("sbatch", "echo Submitted batch job 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    settings = ClusterParams(engine="slurm")
    queue, params = slurm.SlurmQueue(settings), settings.resolve_job("train")
    spec = build_spec(tmp_path, "commit", None)
    result = JobResult(0, "", "n1", 1.0, {}, "")
    for _ in range(2):  # the second by a controller that counts from 1 again
        assert queue.submit(spec, b"pack", params, alone=False) == "1"
        assert queue.fetch_result("1") is None
        folder = Path("cache/cluster/slurm/1").resolve()
        (folder / "1_0_result.pkl").write_bytes(pickle.dumps(("success", result)))
        assert queue.fetch_result("1") == result
    assert Path("cache/cluster").stat().st_mode & 0o777 == 0o700
    (folder / "1_0_log.out").touch()
    queue.cancel(["1"])
    assert queue.fetch_result("1") is None
    assert {path.suffix for path in folder.iterdir()} == {".sh", ".out"}


def test_a_missing_extra_is_named(monkeypatch):
    for name in ("submitit", "submitit.core", "submitit.core.utils", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    for engine in ("slurm", "ray"):
        monkeypatch.delitem(sys.modules, f"pipelines.engines.{engine}", raising=False)
        with pytest.raises(DenseclError, match=f"engine {engine}: found no package .*make extras"):
            queues.open_queue(engine, ClusterParams())
    assert queues.open_queue("local", ClusterParams()) is None


def test_records_of_jobs_and_a_stage_without_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status.print_status()
    assert capsys.readouterr().out == "no job of this project is known to be on other machines\n"
    job = ClusterJob(
        id="7", engine="slurm", stages=("train@none-0",), key="k", log="l", submitted=0.0
    )
    write_json(get_job_file(job), job)
    assert read_jobs() == [job] == [read_json(ClusterJob, get_job_file(job))]
    with pytest.raises(
        DenseclError, match="report: found no job of it, expected one of train@none"
    ):
        status.cancel_jobs(["report"])


def test_a_record_that_vanishes_while_all_are_read_is_left_out(tmp_path, monkeypatch):
    """Another thread's, whose job has ended; a record that holds something else stays an error."""
    monkeypatch.chdir(tmp_path)
    record = paths.CLUSTER_JOBS / "train@none-0.json"
    monkeypatch.setattr(Path, "glob", lambda *_: [record])
    assert read_jobs() == []
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(DataError, match="expected a ClusterJob"):
        read_jobs()


@pytest.mark.parametrize("command", ["run", "comparison", "worker", "status", "cancel"])
def test_help_needs_neither_torch_nor_an_extra(command):
    code = (
        "import sys\nfor name in ('torch', 'ray', 'submitit', 'zenml'): sys.modules[name] = None\n"
        f"from pipelines.__main__ import main\nmain(['{command}', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
