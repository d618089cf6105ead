"""Parts of the engine for Ray, without a cluster: its actor, and what asks it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest

from densecl.config.cluster_params import ClusterParams, KindParams
from densecl.errors import DenseclError
from pipelines.engines import job
from pipelines.engines.job import JobResult, JobSpec

ray = pytest.importorskip("ray", reason="no ray: `make extras` installs it")
ray_keeper = pytest.importorskip("pipelines.engines.ray_keeper")
ray_engine = pytest.importorskip("pipelines.engines.ray")


@pytest.fixture
def keeper(monkeypatch) -> Any:
    """The actor, in this process; Ray's answers are a test's."""
    fake = Mock(exceptions=ray.exceptions, put=lambda value: value)
    fake.wait.return_value = (["task"], [])
    monkeypatch.setattr(ray_keeper, "ray", fake)
    made = ray_keeper.TaskKeeper()
    made.tasks["7-1"] = "task"
    made.started["7-1"] = ("10.0.0.2", 0.0)
    return made


def wrap(cause: BaseException) -> Exception:
    """What `ray.get` raises where a task raised `cause`."""
    error = ray.exceptions.RayTaskError("run_task", "", cause, "", 1, "10.0.0.2")
    wrapped: Exception = error.as_instanceof_cause()
    return wrapped


def test_an_exception_of_a_task_is_an_error_and_a_lost_task_leaves_no_result(keeper):
    ray_keeper.ray.get.side_effect = wrap(PermissionError(13, "Permission denied", "/scratch"))
    result = JobResult(*keeper.fetch_result("7-1"))
    assert (result.status, result.node) == (2, "10.0.0.2")
    assert result.error.endswith("PermissionError: [Errno 13] Permission denied: '/scratch'")
    for error in (
        ray.exceptions.TaskCancelledError(),
        ray.exceptions.WorkerCrashedError(),
        wrap(ray.exceptions.ObjectLostError("00", None, "")),
    ):
        ray_keeper.ray.get.side_effect = error
        assert keeper.fetch_result("7-1") is None


def test_a_keeper_that_was_restarted_is_sent_the_files_again(keeper, monkeypatch):
    queue = ray_engine.RayQueue(ClusterParams())
    monkeypatch.setattr(queue, "_ask", lambda name, *values: getattr(keeper, name)(*values))
    spec = JobSpec(("train@none-0",), "c0ffee", *[""] * 10)
    for _ in range(2):
        assert queue.submit(spec, b"pack", ClusterParams().resolve_job("train"), alone=False)
        assert keeper.packs.pop("c0ffee") == b"pack"  # as after a restart


def test_the_first_job_may_be_one_that_takes_a_whole_node(monkeypatch):
    """Ray names no nodes before a connection, and `cost` may be submitted first."""
    queue, order, options = ray_engine.RayQueue(ClusterParams()), Mock(), {}
    monkeypatch.setattr(queue, "_connect", lambda: order.connect() and Mock())
    monkeypatch.setattr(ray_engine.ray, "nodes", order.nodes)
    nodes = [{"Alive": True, "Resources": {"CPU": n}} for n in (2, 8)]
    order.nodes.return_value = [*nodes, {"Alive": False, "Resources": {"CPU": 64}}]
    monkeypatch.setattr(queue, "_ask", lambda _, *sent: options.update(sent[2]) or "7-1")
    spec = JobSpec(("cost",), "c0ffee", *[""] * 10)
    queue.submit(spec, b"pack", ClusterParams().resolve_job("cost"), alone=True)
    assert [call[0] for call in order.mock_calls] == ["connect", "nodes"]
    assert options["num_cpus"] == 8


def test_other_code_has_a_keeper_of_its_own_and_older_tasks_are_cancelled(tmp_path, monkeypatch):
    fake, older = Mock(exceptions=ray.exceptions), Mock()
    monkeypatch.setattr(ray_engine, "ray", fake)
    monkeypatch.chdir(tmp_path)
    names: list[str] = []
    for code in ("one", "one", "other"):
        (tmp_path / "job.py").write_text(code)
        monkeypatch.setattr(job, "__file__", str(tmp_path / "job.py"))
        fake.util.list_named_actors.return_value = [*set(names), "keeper of /elsewhere, code 0"]
        fake.get_actor.side_effect = dict.fromkeys(names, older).__getitem__
        queue = ray_engine.RayQueue(ClusterParams())
        queue.cancel(["7-1"])
        names.append(fake.remote.return_value.options.call_args.kwargs["name"])
    assert names[0] == names[1] != names[2]
    assert [call.args for call in older.cancel.remote.call_args_list] == [(["7-1"],)]


def test_threads_connect_once(monkeypatch):
    """As those of jobs that one command attaches to."""
    made: list[object] = []

    def connect() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    queue = ray_engine.RayQueue(ClusterParams())
    monkeypatch.setattr(queue, "_connect", connect)
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: queue.keeper, range(4)))
    assert found == set(made)
    assert len(made) == 1


def test_keys_of_slurm_are_named_and_several_nodes_refused(capsys):
    settings = ClusterParams(
        partition="gpu", gpus=1, kinds={"train": KindParams(nodes=2), "cost": KindParams(time=30)}
    )
    queue = ray_engine.RayQueue(settings)
    for _ in range(2):
        assert "num_gpus=1" in queue.explain("cost", settings.resolve_job("cost"), alone=False)
    assert capsys.readouterr().err == (
        "warning: engine ray: does not read cluster.partition, cluster.kinds.cost.time\n"
    )
    with pytest.raises(DenseclError, match="train@none-0: found nodes: 2, expected 1, as a task"):
        queue.explain("train@none-0", settings.resolve_job("train"), alone=False)
    plain = ClusterParams(gpus=8, cpus=16)
    ray_engine.RayQueue(plain).explain("cost", plain.resolve_job("cost"), alone=False)
    assert capsys.readouterr().err == ""
