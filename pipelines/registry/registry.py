"""Models that were judged, as versions in MLflow's registry; the alias `champion` names the one in
use.

A version holds copies of the model's files, so it outlives DVC's cache, and their sha256, so damage
is found. Former champions are a stack, the registered model's tag `champions`: `promote` puts a
version on top, `rollback` takes one off.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import load_params
from densecl.runtime.atomic_files import create_atomic_folder
from densecl.runtime.locks import hold_lock
from pipelines.registry import mlflow_client
from pipelines.registry.mlflow_client import CANDIDATE, CHAMPION, FILES, RegistryError
from pipelines.schemas import Champion, GateVerdict, RegisteredVersion

CHAMPIONS_TAG = "champions"  # tag of the registered model: versions, the oldest champion first
MAX_CHAMPIONS = 500  # former champions; a tag holds 5,000 characters


def get_champion(name: str) -> Champion:
    """The version that the alias names; version None where there is no champion yet."""
    with mlflow_client.open_store() as client:
        version = mlflow_client.find_by_alias(client, name, CHAMPION)
    if version is None:
        return Champion(version=None)
    return Champion(
        version=str(version.version), mode=version.tags["mode"], seed=int(version.tags["seed"])
    )


def get_tags(name: str, version: str) -> dict[str, str]:
    """What is written on a version, given by number, `v` and number, or alias: mode, seed,
    fingerprint, sha256 of each file, verdict and its text, what `register_model` was given, who
    promoted it or rolled it back, why and when.
    """
    return resolve_version(name, version)[1]


def resolve_version(name: str, version: str) -> tuple[str, dict[str, str]]:
    """Number and tags of a version given by number, `v` and number, or alias."""
    with mlflow_client.open_store() as client:
        match = mlflow_client.find_version(client, name, version)
    return str(match.version), dict(match.tags)


def list_version_tags(name: str) -> dict[str, dict[str, str]]:
    """Tags of every version by number, the oldest first; empty where nothing is registered."""
    with mlflow_client.open_store() as client:
        return {str(v.version): dict(v.tags) for v in mlflow_client.list_versions(client, name)}


def register_model(
    name: str, folder: Path, verdict: GateVerdict, tags: Mapping[str, str]
) -> RegisteredVersion:
    """The model in `folder` as a version with copies of its files, and the alias `candidate` on it.

    The same files with the same verdict are the same version, so a step that was killed can be done
    again.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digests = {f"sha256.{file}": mlflow_client.hash_file(folder / file) for file in FILES}
    verdict_json = verdict.model_dump_json()
    identity = hashlib.sha256(
        json.dumps([digests, verdict_json], sort_keys=True).encode()
    ).hexdigest()
    version_tags = (
        dict(tags)
        | digests
        | {
            "mode": config["mode"],
            "seed": str(config["seed"]),
            "fingerprint": config["fingerprint"],
            "identity": identity,
            "verdict": "promoted" if verdict.promoted else "rejected",
            "said": verdict.said,
            "judged": verdict_json,
        }
    )
    with mlflow_client.open_store() as client:
        version = mlflow_client.find_by_identity(client, name, identity)
        if version is None:
            version = mlflow_client.create_version(client, name, folder, version_tags)
        else:
            for key, value in tags.items():  # of the run that got this far
                client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, CANDIDATE, version)
    return RegisteredVersion(name=name, version=version, promoted=verdict.promoted)


def attach_file(name: str, version: str, file: Path) -> None:
    """Put a copy of the file beside the version's model."""
    with mlflow_client.open_store() as client:
        model_version = mlflow_client.find_version(client, name, version)
        client.log_model_artifact(model_version.source.removeprefix("models:/"), str(file))


def fetch_card(name: str, version: str) -> bool:
    """models/card.md is the version's card, and True; there is no card where the version has
    none.
    """
    with mlflow_client.open_store() as client:
        text = mlflow_client.read_attachment(
            client, mlflow_client.find_version(client, name, version), paths.MODEL_CARD.name
        )
    if text is None:
        paths.MODEL_CARD.unlink(missing_ok=True)
        return False
    write_text(paths.MODEL_CARD, text)
    return True


def fetch_champion(name: str, champion: Champion) -> None:
    """models/champion/seed-0 holds the files that were registered, byte for byte; RegistryError
    where they are damaged.
    """
    target = paths.model_folder(paths.CHAMPION, 0)
    if champion.version is None:
        raise _build_missing_champion_error(name)
    with mlflow_client.open_store() as client:
        model_version = mlflow_client.find_version(client, name, champion.version)
        if all(
            mlflow_client.hash_if_present(target / file) == model_version.tags[f"sha256.{file}"]
            for file in FILES
        ):
            return
        with (
            mlflow_client.fetch_verified_files(client, model_version) as source,
            create_atomic_folder(target) as folder,
        ):
            for file in FILES:
                shutil.copyfile(source / file, folder / file)


def promote_version(name: str, version: str, who: str, why: str) -> str:
    """`version` is champion, and who, why and when are in its tags; its number. A champion stays
    as it is.
    """
    with mlflow_client.open_store() as client:
        model_version = mlflow_client.find_version(client, name, version)
        current = mlflow_client.find_by_alias(client, name, CHAMPION)
        if current is not None and current.version == model_version.version:
            return str(model_version.version)
        with mlflow_client.fetch_verified_files(client, model_version):
            pass
        _record_action(client, model_version, "promoted", who, why)
        _write_champions(
            client, name, [*_list_champions(client, name, current), str(model_version.version)]
        )
        client.set_registered_model_alias(
            name, CHAMPION, model_version.version
        )  # last: a kill before leaves the old champion
    return str(model_version.version)


def promote_candidate(registered: RegisteredVersion, verdict: GateVerdict) -> None:
    """A candidate that the gate let pass takes the place of the champion that it was judged
    against, and of no other.
    """
    current = get_champion(registered.name).version
    if current not in (
        verdict.champion,
        registered.version,
    ):  # made.version: a kill came after the alias had moved
        raise RegistryError(
            f"{registered.name}: the champion is version {current or 'none'}, but version "
            f"{registered.version} "
            f"was judged against "
            f"{verdict.champion or 'none'}: `python -m pipelines retraining` judges it against "
            f"the one of now"
        )
    promote_version(
        registered.name, registered.version, getpass.getuser(), f"the gate: {verdict.said}"
    )


def rollback_champion(name: str, who: str, why: str) -> str:
    """The champion before the current one, of other files, is champion again; its number. A second
    one goes further back.
    """
    with mlflow_client.open_store() as client:
        current = mlflow_client.find_by_alias(client, name, CHAMPION)
        if current is None:
            raise _build_missing_champion_error(name)
        former = _list_champions(client, name, current)[:-1]
        while former and _has_same_files(
            mlflow_client.find_version(client, name, former[-1]), current
        ):
            former = former[:-1]
        if not former:
            raise RegistryError(
                f"{name}: nothing to roll back to: no champion before version {current.version} "
                f"is known; "
                "`python -m pipelines promote VERSION` makes another version champion"
            )
        model_version = mlflow_client.find_version(client, name, former[-1])
        with mlflow_client.fetch_verified_files(client, model_version):
            pass
        _record_action(client, current, "rolled_back", who, why)
        _record_action(
            client,
            model_version,
            "promoted",
            who,
            f"rollback from version {current.version}: {why}",
        )
        client.set_registered_model_alias(name, CHAMPION, model_version.version)
        _write_champions(client, name, former)
    return str(model_version.version)


def _has_same_files(first: Any, second: Any) -> bool:
    """Whether two versions hold the same files, as where only the evaluation had changed."""
    return all(first.tags[f"sha256.{file}"] == second.tags[f"sha256.{file}"] for file in FILES)


def main_promote(version: str, why: str, who: str | None = None) -> None:
    """`python -m pipelines promote VERSION --why TEXT`."""
    name = load_params(paths.PARAMS).retraining.registry
    with hold_lock(
        paths.RETRAINING_LOCK
    ):  # a retraining at work would judge against one champion and replace another
        before = get_champion(name).version
        now = promote_version(name, version, who or getpass.getuser(), why)
        _report_champion(name, now, f"; before: {before}" if before not in (None, now) else "")


def main_rollback(why: str, who: str | None = None) -> None:
    """`python -m pipelines rollback --why TEXT`."""
    name = load_params(paths.PARAMS).retraining.registry
    with hold_lock(paths.RETRAINING_LOCK):
        before = get_champion(name).version
        now = rollback_champion(name, who or getpass.getuser(), why)
        _report_champion(name, now, f" again; rolled back: {before}")


def _report_champion(name: str, version: str, suffix: str) -> None:
    """And its card in place of the former champion's."""
    print(f"{name}: version {version} is champion{suffix}")
    had_card = paths.MODEL_CARD.exists()
    if not fetch_card(name, version) and had_card:
        print(
            f"version {version} has no card; {paths.MODEL_CARD} is gone: it described another one"
        )


def _build_missing_champion_error(name: str) -> RegistryError:
    return RegistryError(
        f"{name}: there is no champion yet; `python -m pipelines promote VERSION` makes a version "
        f"champion"
    )


def _list_champions(client: Any, name: str, current: Any) -> list[str]:
    """Champions up to the current one, the oldest first.

    The alias is what counts. Behind it lies what an interrupted promotion or rollback left; an
    alias that was moved by hand, in MLflow's own page, is one champion more.
    """
    versions = (client.get_registered_model(name).tags.get(CHAMPIONS_TAG) or "").split()
    if current is None:
        return versions
    number = str(current.version)
    if number not in versions:
        return [*versions, number]
    return versions[: len(versions) - versions[::-1].index(number)]


def _write_champions(client: Any, name: str, champions: list[str]) -> None:
    client.set_registered_model_tag(name, CHAMPIONS_TAG, " ".join(champions[-MAX_CHAMPIONS:]))


def _record_action(client: Any, version: Any, action: str, who: str, why: str) -> None:
    """Tags of the newest promotion or rollback, and a line in the tag `history` for each."""
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    before = version.tags.get("history")
    line = f"{when} {action.replace('_', ' ')} by {who}: {' '.join(why.split())}"
    tags = {
        f"{action}_by": who,
        f"{action}_why": why,
        f"{action}_at": when,
        "history": f"{before}\n{line}" if before else line,
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
