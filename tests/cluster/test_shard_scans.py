"""The shards of a dataset in a store are scanned by one job each: the manifests and the lock file
are those of `dvc repro`, no shard is fetched here, and an interrupted command goes on.
"""

import re
import signal
from pathlib import Path

import pytest
import yaml

from densecl.errors import RetryLater
from pipelines.engines import queues
from pipelines.engines.cluster_jobs import read_jobs
from pipelines.engines.job import JobSpec
from pipelines.engines.run import update_stages
from pipelines.runtime.signals import SIGNAL_FORWARDER
from tests.cluster.shard_project import make_shard_project, read_manifests
from tests.cluster.small_project import DVC, set_params
from tests.cluster.subprocess_queue import SubprocessQueue
from tests.pipelines.project_factory import ENVIRONMENT, call

ANOTHER = "of another folder"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's
]


class RemoteQueue(SubprocessQueue):
    """Nodes that do not see the project's folder. Ctrl-C comes with the first job."""

    def submit(self, spec: JobSpec, *arguments: object) -> str:
        if not self.specs:
            SIGNAL_FORWARDER.received = signal.SIGINT
        return super().submit(spec._replace(token=ANOTHER), *arguments)


def read_lock(place: Path) -> dict[str, object]:
    stages = yaml.safe_load((place / "dvc.lock").read_text())["stages"]
    return {"order": list(stages), **stages}


def test_jobs_scan_the_shards_that_prepare_reads(tmp_path, monkeypatch, capfd):
    store = tmp_path / "store"
    alone = make_shard_project(tmp_path / "alone/densecl", store)
    call(alone, *DVC, "repro", "--quiet", "validate")
    place = make_shard_project(tmp_path / "jobs/densecl", store)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # scratch of jobs
    monkeypatch.chdir(place)
    queue = RemoteQueue(tmp_path / "queue")
    monkeypatch.setattr(queues, "open_queue", lambda *_: queue)
    monkeypatch.setattr(SIGNAL_FORWARDER, "install_handlers", lambda: None)
    monkeypatch.setattr(SIGNAL_FORWARDER, "received", 0)
    # Here jobs are children; on a cluster they are not.
    monkeypatch.setattr(SIGNAL_FORWARDER, "terminate_children", lambda: None)
    with pytest.raises(RetryLater, match="left running as slurm job"):
        update_stages(("validate",), 2, "slurm")
    said = capfd.readouterr().out
    assert "scan@imagenet-train-" in said
    left = {job.stages for job in read_jobs()}
    assert left
    SIGNAL_FORWARDER.received = 0
    update_stages(("validate",), 2, "slurm")
    said = capfd.readouterr().out
    expected = [(f"scan@imagenet-train-{number}-of-4",) for number in range(1, 5)]
    assert sorted(spec.names for spec in queue.specs) == expected
    assert left <= set(expected)
    assert read_jobs() == []
    assert read_manifests(place) == read_manifests(alone)
    assert read_lock(place) == read_lock(alone)
    assert call(place, *DVC, "status", "--quiet", "validate") == ""
    assert [path.name for path in Path("cache/shards/roots").rglob("*.tar") if path.exists()] == [
        "imagenet-00000.tar"
    ]
    for number in range(1, 5):
        log = Path(f"cache/stages/scan@imagenet-train-{number}-of-4.log").read_text()
        assert re.search(r"imagenet-train: \d\d images scanned, 0 known already", log)
    datasets = yaml.safe_load(Path("params.yaml").read_text())["datasets"]
    datasets["imagenet-train"]["split"] = "train"  # as it is: `prepare` runs again
    set_params(place, datasets=datasets)
    update_stages(("validate",), 2, "slurm")
    assert "prepare@imagenet-train: ran" in capfd.readouterr().out
    assert len(queue.specs) == 4
    assert read_manifests(place) == read_manifests(alone)
