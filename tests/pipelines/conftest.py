"""A tiny registered model, and a registry of its own for each test."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from densecl.monitoring.mlflow_store import import_mlflow
from pipelines.schemas import Criterion, GateVerdict
from tests.conftest import WNIDS, write_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MLflow's about its own type hints
    import mlflow.pyfunc  # noqa: F401 - imported here, where its warnings are ignored

SMALL = Path(__file__).parents[1] / "small.yaml"
MODEL_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
PRETRAINED = {
    "input_size": [3, 32, 32],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes a second to make its tables: once for all tests."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        import_mlflow().MlflowClient().search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A project's folder, current, with an empty store of its own."""
    place = tmp_path / "project"
    place.mkdir()
    shutil.copyfile(empty_store, place / "mlflow.db")
    shutil.copyfile(SMALL, place / "params.yaml")
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    return place


@pytest.fixture
def client(project: Path) -> MlflowClient:
    found: MlflowClient = import_mlflow().MlflowClient()
    return found


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "seed-0"
    write_model(folder, list(WNIDS), MODEL_ARGS)
    return folder


@pytest.fixture
def trained(project: Path, written: Path) -> Callable[[str], Path]:
    """Lays a model under models/dense/seed-0 whose files differ with the fingerprint."""

    def lay(fingerprint: str) -> Path:
        folder = project / "models/dense/seed-0"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(written, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {
            "mode": "dense",
            "seed": 0,
            "fingerprint": fingerprint,
            "pretrained_cfg": PRETRAINED,
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return lay


def verdict(promoted: bool = True, champion: str | None = None) -> GateVerdict:
    held = Criterion(
        name="val",
        dataset="imagenet",
        value=0.02,
        low=-0.005,
        high=0.045,
        bound=-0.01,
        images=400,
        passed=promoted,
        said="val is +2.0 points (-0.5 to +4.5); above -1.0 was asked for",
    )
    said = "promoted: val is no worse" if promoted else "rejected: imagenet-a falls"
    return GateVerdict(
        promoted=promoted, champion=champion, mode="dense", seed=0, criteria=(held,), said=said
    )
