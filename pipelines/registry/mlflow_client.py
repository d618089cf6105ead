"""Versions of a registered model in MLflow: how one is made, found, and read without trusting its
files.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from densecl.errors import DenseclError, Stopped
from densecl.monitoring.mlflow_store import connected
from pipelines.runtime import error_translation

FILES = ("model.safetensors", "config.json")
ALIASES = (CANDIDATE, CHAMPION) = ("candidate", "champion")
EXPERIMENT = "densecl-registry"  # of MLflow: decides where the registry's files lie
REQUIREMENTS = ("torch", "torchvision", "timm", "pillow", "safetensors", "numpy", "pandas")


class RegistryError(DenseclError):
    """What is asked of the registry is not there, or its files are damaged."""


class Refused(RegistryError, Stopped):
    """The disk or another process stands in the way: nobody's mistake."""


@contextmanager
def store() -> Iterator[Any]:
    """MLflow's client; what MLflow refuses is one line that names the store."""
    mlflow = connected()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield mlflow.MlflowClient()
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        where = mlflow.get_tracking_uri()
        text = str(error).partition("\n")[0][:300]
        if refused := error_translation.sqlite(
            f"MLflow at {where}", text, "put it back from a backup, with mlruns/"
        ):
            raise (Refused if isinstance(refused, Stopped) else RegistryError)(
                str(refused)
            ) from None
        raise RegistryError(
            f"MLflow at {where}: {text}; check MLFLOW_TRACKING_URI and that the store answers"
        ) from None


def _found(call: Any, *arguments: str) -> Any:
    """What MLflow has of that name; None where it has none."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*arguments)
    except MlflowException as error:
        # INVALID_PARAMETER_VALUE: MLflow's answer to an alias that was never set
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def aliased(client: Any, name: str, alias: str) -> Any:
    """The version that an alias names; None where it names none."""
    found = _found(client.get_model_version_by_alias, name, alias)
    return _ours(found) if found is not None else None


def find(client: Any, name: str, version: str) -> Any:
    """A version by number, `v` and number, or alias; RegistryError says which there are."""
    plain = version.removeprefix("v")
    if version in ALIASES:
        found = aliased(client, name, version)
    else:
        found = _found(client.get_model_version, name, plain) if plain.isdecimal() else None
    if found is not None:
        return _ours(found)
    known = ", ".join(str(v.version) for v in every(client, name))
    there = (
        f"there are {known}"
        if known
        else "nothing is registered yet: `python -m pipelines retraining`"
    )
    raise RegistryError(
        f"{name}: found no version {version}, expected a number, {' or '.join(ALIASES)}; {there}"
    )


def every(client: Any, name: str, where: str = "") -> list[Any]:
    """All versions, the oldest first."""
    asked, token = f"name='{name}'{where}", None
    found: list[Any] = []
    while True:
        page = client.search_model_versions(asked, page_token=token)
        found, token = [*found, *page], page.token
        if not token:
            return sorted(found, key=lambda each: int(each.version))


def same(client: Any, name: str, identity: str) -> str | None:
    """The version of that identity."""
    found = every(client, name, f" and tags.identity='{identity}'")
    return str(found[-1].version) if found else None


def runs(experiment: str, fingerprint: str) -> list[tuple[str, dict[str, str]]]:
    """Id and tags of the training runs of a fingerprint, the newest first."""
    with store() as client:
        found = client.get_experiment_by_name(experiment)
        runs = (
            client.search_runs([found.experiment_id], f"tags.fingerprint = '{fingerprint}'")
            if found
            else []
        )
        return [(run.info.run_id, dict(run.data.tags)) for run in runs]


def run_tags(run: str) -> dict[str, str] | None:
    """Tags of a run by its id; None where the store has no such run."""
    with store() as client:
        found = _found(client.get_run, run)
    return dict(found.data.tags) if found is not None else None


def _ours(version: Any) -> Any:
    if "identity" not in version.tags:
        raise RegistryError(
            f"{version.name}: version {version.version} has no tag identity: it was not "
            f"registered by a retraining; "
            "name another version, or set retraining.registry to a name of its own"
        )
    return version


def create(client: Any, name: str, folder: Path, written: dict[str, str]) -> str:
    """Files first, then the version with all its tags at once: a kill in between leaves no half
    version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's about its own type hints
        import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array

    answer: list[Any] = [
        ColSpec("string", "wnid"),
        ColSpec("long", "index"),
        ColSpec("double", "probability"),
        ColSpec(Array("string"), "top5_wnid"),
        ColSpec(Array("double"), "top5_probability"),
    ]
    mlflow.set_experiment(experiment_id=_experiment(client))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*input example was not provided", category=UserWarning
        )
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={file: str(folder / file) for file in FILES},
            signature=ModelSignature(Schema([ColSpec("binary", "image")]), Schema(answer)),
            pip_requirements=[
                f"{each}=={installed(each).partition('+')[0]}" for each in REQUIREMENTS
            ],
        )
    if _found(client.get_registered_model, name) is None:
        client.create_registered_model(name)
    made = client.create_model_version(
        name, logged.model_uri, tags=written, model_id=logged.model_id
    )
    return str(made.version)


def _experiment(client: Any) -> str:
    """Id of the registry's experiment. MLflow keeps absolute paths: one whose files lie elsewhere,
    since the project was moved or copied, makes room.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if found is not None and (place := _local(found.artifact_location)) and _elsewhere(place):
        client.rename_experiment(found.experiment_id, f"{EXPERIMENT} in {place}")
        found = None
    if found is not None:
        return str(found.experiment_id)
    made = str(client.create_experiment(EXPERIMENT))
    if place := _local(client.get_experiment(made).artifact_location):
        place.mkdir(parents=True, exist_ok=True)
    return made


def _elsewhere(place: Path) -> bool:
    """Whether a folder of files is gone, or is the mlruns of another project than this one, whose
    store is used.
    """
    import mlflow

    store, here = mlflow.get_tracking_uri().removeprefix("sqlite:///"), Path.cwd()
    copied = (
        Path(store).absolute().parent == here
        and place.parent.name == "mlruns"
        and place.parent.parent != here
    )
    return copied or not place.exists()


def _local(uri: str) -> Path | None:
    parts = urlparse(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


@contextmanager
def checked(client: Any, version: Any) -> Iterator[Path]:
    """A folder with the version's files, for as long as the block lasts, equal to what was
    registered.
    """
    with tempfile.TemporaryDirectory() as copies:
        folder = _fetched(
            client.get_model_version_download_uri(version.name, version.version),
            "artifacts",
            copies,
        )
        for file in FILES:
            found, expected = digest(folder / file), version.tags[f"sha256.{file}"]
            if found != expected:
                raise RegistryError(
                    f"{folder / file}: "
                    f"{f'found sha256 {found[:12]}' if found else 'no such file'}, expected "
                    f"{expected[:12]} "
                    f"of version {version.version} of {version.name}: put the folder back from a "
                    f"backup, or make another "
                    "version champion: `python -m pipelines promote VERSION`"
                )
        yield folder


def attached(client: Any, version: Any, file: str) -> str | None:
    """Text of a file that lies beside the version's model; None where there is none."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as copies:
        try:
            place = _fetched(
                client.get_model_version_download_uri(version.name, version.version), file, copies
            )
            return place.read_text(encoding="utf-8") if place.is_file() else None
        except (
            MlflowException,
            OSError,
        ):  # what a store of files elsewhere says of one that it does not have
            return None


def _fetched(uri: str, below: str, copies: str) -> Path:
    """Where a file or folder of a version lies, copied to `copies` if it lies elsewhere than on
    this machine.
    """
    place = _local(uri)
    if place is None:
        import mlflow

        return Path(mlflow.artifacts.download_artifacts(f"{uri}/{below}", dst_path=copies))
    if not place.exists() and "mlruns" in place.parts:
        # The project was moved, and mlruns with it; the sha256 of the files tell that they are the
        # same.
        moved = Path(*place.parts[len(place.parts) - place.parts[::-1].index("mlruns") - 1 :])
        place = moved if moved.exists() else place
    return place / below


def digest(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
