"""One Slurm, one S3 and one finished project for all tests of jobs on other machines."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cluster.slurm import SlurmCluster, find_obstacle
from tests.cluster.small_project import DVC, make_project
from tests.pipelines import project_factory
from tests.pipelines.project_factory import call
from tests.s3_server import KEYS, serve_s3


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dvc repro` makes of the small project; made once for all of pytest's processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    place = folder / "sequential" / "densecl"
    with FileLock(folder / "sequential.lock"):
        if not (place / "reports/report.md").exists():
            call(make_project(place), *DVC, "repro", "--quiet")
    return place


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """Two nodes; skipped where no Slurm can be started."""
    pytest.importorskip("submitit", reason="no submitit: `make extras` installs it")
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    folder = Path(tempfile.mkdtemp(prefix="densecl-slurm-"))  # of a short path, for its sockets
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        environment = {name: cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
        path = project_factory.ENVIRONMENT["PATH"]
        project_factory.ENVIRONMENT.update(environment | {"PATH": f"{path}:/usr/sbin"})
        os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
        yield cluster
    finally:
        cluster.stop()
        os.environ.pop("SLURM_CONF", None)
        project_factory.ENVIRONMENT.pop("SLURM_CONF", None)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Address of an S3 server with a bucket named `bucket`."""
    with serve_s3("bucket") as address:
        project_factory.ENVIRONMENT.update(KEYS)
        yield address
        for name in KEYS:
            del project_factory.ENVIRONMENT[name]
