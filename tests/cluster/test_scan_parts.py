"""What the engine asks of jobs that scan shards, and what it does where they fail. Nodes are folders
of this machine.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json, write_json
from densecl.config.cluster_params import ClusterParams
from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.sources import list_source
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.pack import pack_images
from densecl.datasets.storage.manifest import read_missing_reason
from densecl.datasets.storage.remote_root import update_index
from densecl.errors import DenseclError, RetryLater
from pipelines.engines import shard_scans
from pipelines.engines.cluster_jobs import JobRequest, get_job_file
from pipelines.engines.executor import LeftRunning
from pipelines.engines.job import JobResult, JobSpec
from pipelines.engines.shard_scans import ShardScans, list_blocks
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import ClusterJob
from steps import prepare
from tests.conftest import WNIDS, draw_set

ROOT = Path(__file__).parents[2]
STAGES = ("prepare@imagenet-train", "prepare@imagenet-r")


class Nodes:
    """As ClusterJobs. Without `known`, what a shard's files will hold by name, each job runs
    `python -m steps scan` in a folder of its own.
    """

    def __init__(self, known: dict[str, bytes] | None = None) -> None:
        self.known, self.queue, self.name = known, self, "slurm"
        self.lock = threading.Lock()
        self.names, self.keys, self.dropped = list[str](), list[str](), list[str]()

    def drop(self, jobs: Iterable[ClusterJob]) -> None:
        self.dropped += [job.id for job in jobs]

    def run(self, request: JobRequest) -> JobResult:
        publication = request.publish("a commit")
        with self.lock:
            self.names += request.names
            self.keys.append(publication.key)
        files = self.known
        if files is None:
            files = run_step(Path("nodes", request.names[0]), publication.spec)
        brought = {name: files[name] for name in publication.spec.results if name in files}
        result = JobResult(0, "", "n1", 1.0, {}, "", brought)
        request.keep(result)
        return result


def run_step(place: Path, spec: JobSpec) -> dict[str, bytes]:
    for file, text in spec.files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text)
    dataset = paths.get_scanned_dataset(spec.names[0])
    done = subprocess.run(
        [sys.executable, "-m", "steps", "scan", dataset],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DenseclError(done.stderr.strip().removeprefix("error: "))
    return {name: (place / name).read_bytes() for name in spec.results}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A train set of five shards and another set of two."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard_scans, "build_spec", build_spec)
    for name, per_class in (("imagenet-train", 5), ("imagenet-r", 2)):
        root = draw_set(Path("folders", name), per_class)
        local = DatasetParams(root=str(root), tracked_by=str(root))
        frame = scan_listing(name, root, list_source(local, WNIDS), WNIDS, 1).frame
        Path("store", name).mkdir(parents=True)
        pack_images(name, frame, WNIDS, root, Path("store", name), 3800)
    write_plans()
    return tmp_path


def build_spec(repo, names, commit, files, settings, results) -> JobSpec:
    texts = [path.as_posix() for path in results]
    return JobSpec(names, commit, "", files, "", "", "", "", "", "", None, None, tuple(texts))


def write_plans(*, optional: bool = False) -> None:
    sources = {
        stage.partition("@")[2]: DatasetParams(
            root=f"file://{Path('store').absolute()}/{stage.partition('@')[2]}",
            tracked_by=f"{stage}.json",
            layout="webdataset",
        )
        for stage in STAGES
    }
    for name, source in sources.items():
        update_index(source)
        plan = DatasetPlan(
            name=name,
            dataset=source,
            train=sources["imagenet-train"],
            preprocess=None,
            protocol="folder",
            classes=(),
            optional=optional,
        )
        write_json(paths.plan_file(name), plan)


def read_plan(name: str = "imagenet-train") -> DatasetPlan:
    return read_json(DatasetPlan, paths.plan_file(name))


def run_scans(nodes: Nodes, jobs: int = 256, stages: tuple[str, ...] = STAGES) -> None:
    scans = ShardScans(None, nodes, ClusterParams(jobs=jobs))
    try:
        for stage in stages:
            scans.run(stage)
    finally:
        scans.close()


def prepare_here() -> list[bytes]:
    for stage in STAGES:
        prepare.main(stage.partition("@")[2])
    return [paths.manifest_file(s.partition("@")[2]).read_bytes() for s in STAGES]


def read_known() -> dict[str, bytes]:
    """What is kept now by the names of the files."""
    files = [*paths.LISTINGS.iterdir(), *paths.SCANS.iterdir()]
    return {file.as_posix(): file.read_bytes() for file in files}


def list_fetched() -> list[str]:
    return sorted(p.name for p in Path("cache/shards/roots").rglob("*.tar") if p.exists())


@pytest.mark.parametrize(
    ("jobs", "real"), [(256, False), pytest.param(2, True, marks=pytest.mark.slow)]
)
def test_a_job_per_shard_or_per_block(place, jobs, real):
    expected, known = prepare_here(), read_known()
    shutil.rmtree("cache")
    nodes = Nodes(None if real else known)
    run_scans(nodes, jobs)
    assert read_known() == known
    counts = {"imagenet-train": min(jobs, 5), "imagenet-r": 2}
    assert sorted(nodes.names) == sorted(
        f"scan@{name}-{number}-of-{count}"
        for name, count in counts.items()
        for number in range(1, count + 1)
    )
    assert prepare_here() == expected
    assert list_fetched() == []
    run_scans(nodes, jobs)
    assert len(nodes.names) == sum(counts.values())


def test_only_blocks_with_something_new_are_scanned(place):
    prepare_here()
    nodes = Nodes(read_known())
    shutil.rmtree("cache")
    run_scans(nodes)
    files = [shard_scans.locate_files(read_plan(), shard) for shard in list_shards()]
    files[1][0].unlink()
    files[3][1].unlink()
    nodes.names.clear()
    keys = set(nodes.keys)
    nodes.keys.clear()
    run_scans(nodes)
    assert sorted(nodes.names) == ["scan@imagenet-train-2-of-5", "scan@imagenet-train-4-of-5"]
    assert set(nodes.keys) < keys  # by which a running job is found again
    files[0][1].unlink()
    nodes.names.clear()
    run_scans(nodes)  # a single one is scanned here
    assert nodes.names == []
    write_job("1", "scan@imagenet-train-1-of-5")
    run_scans(nodes)
    assert nodes.names == ["scan@imagenet-train-1-of-5"]  # unless its job is there


def write_job(number: str, name: str) -> None:
    job = ClusterJob(id=number, engine="slurm", stages=(name,), key="", log="", submitted=0.0)
    write_json(get_job_file(job), job)


def list_shards() -> list[Path]:
    return [shard for block in list_blocks(read_plan(), 256) for shard in block.shards]


def test_a_block_says_which_shards_are_new(place):
    (block,) = list_blocks(read_plan(), 1)
    assert block.name == "scan@imagenet-train-1-of-1"
    assert block.shards == block.unscanned
    sent = shard_scans.describe_block(read_plan(), block.shards[1:3])
    index = sent[paths.scan_index("imagenet-train").as_posix()]
    assert [f"imagenet-train-{number:05d}.tar" in index for number in range(5)] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert "_info.json" not in index


@pytest.mark.slow
@pytest.mark.parametrize("optional", [False, True])
def test_a_shard_that_cannot_be_listed(place, optional):
    """An optional dataset is left to its stage, which writes the reason into the manifest."""
    shard = place / "store/imagenet-r/imagenet-r-00001.tar"
    shard.write_bytes(b"x" * 3000)
    for file in (shard.with_name("index.json"), Path("prepare@imagenet-r.json")):
        file.unlink()
    write_plans(optional=optional)
    prepare.main("imagenet-train")
    if optional:
        run_scans(Nodes())
        prepare.main("imagenet-r")
        assert "damaged" in read_missing_reason(paths.manifest_file("imagenet-r"))
        return
    found = r"^prepare@imagenet-r: .*00001\.tar: damaged or cut .*; the job's output is in cache/st"
    with pytest.raises(DenseclError, match=found) as caught:
        run_scans(Nodes())
    assert "\n" not in str(caught.value)


def test_a_job_whose_shards_are_scanned_is_forgotten(place):
    """As of a node that sees this folder: it ended after the command that waited for it."""
    prepare_here()
    for number, name in enumerate(
        ("scan@imagenet-r-1-of-2", "scan@imagenet-r-2-of-3", "scan@imagenet-1-of-2", "train@r-0")
    ):
        write_job(str(number), name)
    nodes = Nodes()
    run_scans(nodes)
    assert nodes.names == []
    assert sorted(nodes.dropped) == ["0", "1"]


def test_a_node_with_other_packages_is_named(place):
    prepare_here()
    nodes = Nodes({name: kept for name, kept in read_known().items() if "scans" not in name})
    shutil.rmtree("cache")
    with pytest.raises(RetryLater, match=r"ended well on n1, but there is no scan of imagenet-tra"):
        run_scans(nodes)


def test_what_a_job_that_fails_has_scanned_is_kept_and_not_asked_for_again(place):
    expected, known = prepare_here(), read_known()
    shutil.rmtree("cache")

    class Stopped(Nodes):
        """The first attempt of each job ends after its first shard."""

        def run(self, request: JobRequest) -> JobResult:
            self.asked = getattr(self, "asked", [])
            for count in (2, 99):  # a listing and a scan
                spec = request.publish("a commit").spec
                self.asked.append(spec.files[paths.scan_index("imagenet-train").as_posix()])
                files = {name: known[name] for name in spec.results[-count:]}
                result = JobResult(75 if count == 2 else 0, "", "n1", 1.0, {}, "", files)
                request.keep(result)
            return result

    nodes = Stopped()
    run_scans(nodes, jobs=1, stages=STAGES[:1])
    counts = [text.count('"sha256"') for text in nodes.asked]
    assert counts == [5, 4]
    assert read_known().keys() <= known.keys()
    assert prepare_here() == expected


def test_a_damaged_file_that_a_job_brings_is_not_kept(place):
    prepare_here()
    nodes = Nodes({name: kept[:-1] for name, kept in read_known().items()})
    shutil.rmtree("cache")
    with pytest.raises(RetryLater, match="there is no scan of imagenet-train-"):
        run_scans(nodes)
    assert not paths.SCANS.exists()


def test_a_fault_of_the_cluster_is_said_also_of_an_optional_dataset(place, capsys):
    write_plans(optional=True)

    class Faulty(Nodes):
        def run(self, request: JobRequest) -> JobResult:
            raise DenseclError("sbatch: found no partition gpu")

    run_scans(Faulty())
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 2
    for line in said:
        assert line.startswith("warning: prepare@imagenet-")
        assert "sbatch: found no partition gpu; the job's output is in cache/stages/scan@" in line


def test_jobs_that_are_left_running_are_told_in_one_line(place, monkeypatch):
    nodes = Nodes()

    def leave(request: JobRequest) -> JobResult:
        nodes.names.append(request.names[0])
        raise LeftRunning(f"{request.names[0]}: left running")

    monkeypatch.setattr(nodes, "run", leave)
    with pytest.raises(LeftRunning, match=r"^scan@imagenet-train-\d-of-5: left running"):
        run_scans(nodes)
    nodes.names.clear()
    monkeypatch.setattr(SIGNAL_FORWARDER, "received", 2)
    with pytest.raises(RetryLater, match="SIGINT: stopped"):
        run_scans(nodes)
    assert nodes.names == []  # none is begun after a signal
