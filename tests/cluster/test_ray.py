"""A real Ray: the lock file of `dvc repro`; a training whose node is killed, and whose command was
interrupted, ends in the same bits.
"""

import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.cluster.long_training import MODEL, prepare_training, run_here, wait_until
from tests.cluster.shard_project import make_shard_project, read_manifests
from tests.cluster.small_project import DVC, read_stable_lock, repeat_project, set_params
from tests.pipelines.project_factory import ENVIRONMENT, call, pipelines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux"),
]
pytest.importorskip("ray", reason="no ray: `make extras` installs it")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes of one core."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "OMP_NUM_THREADS", "DVC_NO_ANALYTICS", "MLFLOW_DISABLE_TELEMETRY"):
            patch.setenv(name, ENVIRONMENT[name])
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def test_two_nodes_leave_the_lock_file_of_dvc_repro(finished, cluster, tmp_path):
    place = repeat_project(finished, tmp_path / "densecl")
    scratch = str(tmp_path / "scratch")
    set_params(place, cluster={"address": cluster.address, "scratch": scratch})
    said = pipelines(place, "run", "--engine", "ray")
    assert read_stable_lock(place) == read_stable_lock(finished)
    assert call(place, *DVC, "status", "--quiet") == ""
    assert (place / MODEL).read_bytes() == (finished / MODEL).read_bytes()
    assert "train@none-0: ray job" in said


def test_the_shards_of_a_store_are_scanned_by_jobs(cluster, tmp_path):
    store = tmp_path / "store"
    alone = make_shard_project(tmp_path / "alone/densecl", store)
    call(alone, *DVC, "repro", "--quiet", "validate")
    place = make_shard_project(tmp_path / "jobs/densecl", store)
    scratch = str(tmp_path / "scratch")
    set_params(place, cluster={"address": cluster.address, "scratch": scratch})
    said = pipelines(place, "run", "--engine", "ray")
    assert "prepare@imagenet-train: shards are scanned by ray, 4 jobs, " in said
    for number in range(1, 5):
        log = (place / f"cache/stages/scan@imagenet-train-{number}-of-4.log").read_text()
        assert re.search(r"imagenet-train: \d\d images scanned, 0 known already", log)
    assert read_manifests(place) == read_manifests(alone)
    assert call(place, *DVC, "status", "--quiet") == ""


def test_an_interrupted_command_and_a_dead_node_change_no_bit(cluster, tmp_path):
    scratch = str(tmp_path / "scratch")
    job = prepare_training(tmp_path, "ray", address=cluster.address, scratch=scratch)
    command = job.start()
    job.wait_for_steps()
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 75
    assert "left running as ray job" in job.log.read_text()
    assert ", running on " in pipelines(job.place, "status")
    command = job.start()
    wait_until(lambda: job.log.read_text().count("running on") == 2)
    worker = find_worker(str(job.place))
    node = next(n for n in cluster.worker_nodes if is_below(worker, n))
    cluster.remove_node(node, allow_graceful=False)
    assert command.wait(200) == 0, job.log.read_text()
    assert len(set(re.findall(r"ray job (\S+?)[,;]", job.log.read_text()))) == 1
    assert (job.place / MODEL).read_bytes() == run_here(job.place)


def find_worker(project: str) -> psutil.Process:
    """The process of the job's stages."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
                if command[1:4] == ["-m", "pipelines", "worker"] and (
                    process.environ().get("DENSECL_PROJECT") == project
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return bool(found)

    wait_until(look)
    return found[0]


def is_below(process: psutil.Process, node: Any) -> bool:
    """True if a process is one of the node's."""
    own = {info.process.pid for group in node.all_processes.values() for info in group}
    return not own.isdisjoint(parent.pid for parent in process.parents())
