"""Versions of a registered model in MLflow: create, find, and read them with verified files."""

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

from densecl.errors import DenseclError
from densecl.monitoring import mlflow_store
from pipelines.runtime import error_translation

FILES = ("model.safetensors", "config.json")
ALIASES = (CANDIDATE, CHAMPION, ANCHOR) = ("candidate", "champion", "anchor")
REGISTRY_EXPERIMENT = "densecl-registry"  # of MLflow
REQUIREMENTS = ("torch", "torchvision", "timm", "pillow", "safetensors", "numpy", "pandas")


class RegistryError(DenseclError):
    """A version that does not exist, or files that are corrupt."""


@contextmanager
def open_store() -> Iterator[Any]:
    """An MLflow client; MLflow's errors become one line that names the store."""
    mlflow = mlflow_store.import_mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    uri = mlflow.get_tracking_uri()
    # MLflow would try again for two minutes.
    if uri == mlflow_store.TRACKING_URI and (problem := error_translation.find_long_root(uri)):
        raise problem
    try:
        yield mlflow.MlflowClient()
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        message = str(error).partition("\n")[0][:300]
        if translation := error_translation.translate_sqlite(
            f"MLflow at {uri}", message, "put it back from a backup, with mlruns/"
        ):
            raise translation from None
        raise RegistryError(
            f"MLflow at {uri}: {message}; check MLFLOW_TRACKING_URI and that the store answers"
        ) from None


def get_or_none(call: Any, *arguments: str) -> Any:
    """The result of a query, or None if MLflow has no such entry."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*arguments)
    except MlflowException as error:
        # INVALID_PARAMETER_VALUE: MLflow's answer to an alias that was never set
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def find_by_alias(client: Any, name: str, alias: str) -> Any:
    """The version of an alias, or None."""
    version = get_or_none(client.get_model_version_by_alias, name, alias)
    return _check_identity(version) if version is not None else None


def find_version(client: Any, name: str, version: str) -> Any:
    """A version by number, `v` and number, or alias; RegistryError lists the existing ones."""
    number = version.removeprefix("v")
    if version in ALIASES:
        match = find_by_alias(client, name, version)
    else:
        match = get_or_none(client.get_model_version, name, number) if number.isdecimal() else None
    if match is not None:
        return _check_identity(match)
    available = ", ".join(str(v.version) for v in list_versions(name))
    hint = (
        f"there are {available}"
        if available
        else "nothing is registered yet: `python -m pipelines retraining`"
    )
    raise RegistryError(
        f"{name}: found no version {version}, expected a number, {' or '.join(ALIASES)}; {hint}"
    )


def list_versions(name: str, extra_filter: str = "") -> list[Any]:
    """All versions, oldest first."""
    import mlflow

    versions = mlflow.search_model_versions(filter_string=f"name='{name}'{extra_filter}")
    return sorted(versions, key=lambda version: int(version.version))


def find_training_runs(fingerprint: str) -> list[tuple[str, dict[str, str]]]:
    """Ids and tags of the training runs with a fingerprint, newest first."""
    with open_store() as client:
        experiment = client.get_experiment_by_name(mlflow_store.TRAINING_EXPERIMENT)
        if experiment is None:
            return []
        runs = client.search_runs([experiment.experiment_id], f"tags.fingerprint = '{fingerprint}'")
    return [(run.info.run_id, run.data.tags) for run in runs]


def get_run_tags(run_id: str) -> dict[str, str] | None:
    """Tags of a run by its id, or None."""
    with open_store() as client:
        run = get_or_none(client.get_run, run_id)
    return dict(run.data.tags) if run is not None else None


def _check_identity(version: Any) -> Any:
    if "identity" not in version.tags:
        raise RegistryError(
            f"{version.name}: version {version.version} has no tag identity: it was not "
            f"registered by a retraining; "
            "name another version, or set retraining.registry to a name of its own"
        )
    return version


def create_version(client: Any, name: str, folder: Path, tags: dict[str, str]) -> str:
    """Upload the files, then create the version with all tags at once: a kill in between leaves no
    partial version.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array

    output_columns: list[Any] = [
        ColSpec("string", "wnid"),
        ColSpec("long", "index"),
        ColSpec("double", "probability"),
        ColSpec(Array("string"), "top5_wnid"),
        ColSpec(Array("double"), "top5_probability"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's about its own type hints and examples
        import mlflow.pyfunc

        # MLflow keeps an absolute path of an experiment's files: a moved or copied project has its
        # own.
        mlflow_store.activate_experiment(mlflow, f"{REGISTRY_EXPERIMENT} in {Path.cwd()}")
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={file: str(folder / file) for file in FILES},
            model_config={f"sha256.{file}": hash_file(folder / file) for file in FILES},
            signature=ModelSignature(Schema([ColSpec("binary", "image")]), Schema(output_columns)),
            pip_requirements=[
                f"{package}=={installed(package).partition('+')[0]}" for package in REQUIREMENTS
            ],
        )
    if get_or_none(client.get_registered_model, name) is None:
        client.create_registered_model(name)
    version = client.create_model_version(
        name, logged.model_uri, tags=tags, model_id=logged.model_id
    )
    return str(version.version)


@contextmanager
def open_files(client: Any, version: Any) -> Iterator[Path]:
    """The folder of a version, for as long as the block lasts: a copy if its store is elsewhere
    than on this machine.
    """
    uri = client.get_model_version_download_uri(version.name, version.version)
    if folder := _find_local_folder(uri):
        yield folder
        return
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        yield Path(mlflow.artifacts.download_artifacts(uri, dst_path=scratch))


def _find_local_folder(uri: str) -> Path | None:
    """The folder of an address on this machine; None for another store."""
    parts = urlparse(uri)
    if parts.scheme not in ("", "file"):
        return None
    # Without a scheme it is a path, in which #, ? and % are letters.
    path = Path(url2pathname(parts.path)) if parts.scheme else Path(uri)
    # The project may have been moved or copied, and mlruns with it.
    own = Path("mlruns", str(path).rpartition("/mlruns/")[2])
    return path if path.exists() and not own.exists() else own


@contextmanager
def fetch_verified_files(client: Any, version: Any) -> Iterator[Path]:
    """A temporary folder with the version's files, verified against the registered hashes."""
    with open_files(client, version) as root:
        folder = root / "artifacts"
        for file in FILES:
            actual, expected = hash_file(folder / file), version.tags[f"sha256.{file}"]
            if actual != expected:
                raise RegistryError(
                    f"{folder / file}: "
                    f"{f'found sha256 {actual[:12]}' if actual else 'no such file'}, expected "
                    f"{expected[:12]} "
                    f"of version {version.version} of {version.name}: put the folder back from a "
                    f"backup, or make another "
                    "version champion: `python -m pipelines promote VERSION`"
                )
        yield folder


def read_attachment(client: Any, version: Any, file: str) -> str | None:
    """Text of a file attached to the version, or None. Of another store only this file is read, not
    the model beside it.
    """
    uri = client.get_model_version_download_uri(version.name, version.version)
    if folder := _find_local_folder(uri):
        path = folder / file
        return path.read_text(encoding="utf-8") if path.is_file() else None
    import mlflow

    attached = {Path(entry.path).name for entry in mlflow.artifacts.list_artifacts(uri)}
    return str(mlflow.artifacts.load_text(f"{uri}/{file}")) if file in attached else None


def hash_file(path: Path) -> str:
    """sha256 of a file; "" if it does not exist."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
