"""Judged models as versions in MLflow's registry; the alias `champion` names the one in use.

A version holds copies of the model's files, so it outlives DVC's cache, and their sha256, so damage
is found. Former champions are a stack, the registered model's tag `champions`: `promote` puts a
version on top, `rollback` takes one off.
"""

import getpass
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import load_params
from densecl.errors import DenseclError
from densecl.runtime.atomic_files import create_atomic_folder
from densecl.runtime.locks import hold_lock
from pipelines.registry import mlflow_client
from pipelines.registry.mlflow_client import CANDIDATE, CHAMPION, FILES, RegistryError
from pipelines.schemas import Champion, GateVerdict, RegisteredVersion

CHAMPIONS_TAG = "champions"  # tag of the registered model: versions, the oldest champion first


def get_champion(name: str) -> Champion:
    """The champion's version; None before the first champion."""
    with mlflow_client.open_store() as client:
        version = mlflow_client.find_by_alias(client, name, CHAMPION)
    return Champion(version=str(version.version) if version is not None else None)


def resolve_version(name: str, version: str) -> tuple[str, dict[str, str]]:
    """Number and tags of a version, given by number, `v` and number, or alias."""
    with mlflow_client.open_store() as client:
        match = mlflow_client.find_version(client, name, version)
    return str(match.version), dict(match.tags)


def list_version_tags(name: str) -> dict[str, dict[str, str]]:
    """Tags of every version by number, oldest first."""
    with mlflow_client.open_store():
        return {str(v.version): dict(v.tags) for v in mlflow_client.list_versions(name)}


def register_model(
    name: str, folder: Path, verdict: GateVerdict, tags: Mapping[str, str]
) -> RegisteredVersion:
    """Register the model in `folder` as a version with copies of its files, and the alias
    `candidate`.

    The same files with the same verdict are the same version, so a step that was killed can be done
    again.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digests = {f"sha256.{file}": mlflow_client.hash_file(folder / file) for file in FILES}
    verdict_json = verdict.model_dump_json()
    identity = hashlib.sha256(
        json.dumps([digests, verdict_json], sort_keys=True).encode()
    ).hexdigest()
    with mlflow_client.open_store() as client:
        made = mlflow_client.list_versions(name, f" and tags.identity='{identity}'")
        if made:
            version = str(made[-1].version)
            for key, value in tags.items():  # of the run that got this far
                client.set_model_version_tag(name, version, key, value)
        else:
            own_tags = {
                "mode": config["mode"],
                "seed": str(config["seed"]),
                "fingerprint": config["fingerprint"],
                "identity": identity,
                "verdict": "promoted" if verdict.promoted else "rejected",
                "said": verdict.said,
                "judged": verdict_json,
            }
            version = mlflow_client.create_version(
                client, name, folder, dict(tags) | digests | own_tags
            )
        client.set_registered_model_alias(name, CANDIDATE, version)
    return RegisteredVersion(name=name, version=version, promoted=verdict.promoted)


def attach_file(name: str, version: str, file: Path) -> None:
    """Attach a copy of the file to the version."""
    with mlflow_client.open_store() as client:
        model_version = mlflow_client.find_version(client, name, version)
        client.log_model_artifact(model_version.source.removeprefix("models:/"), str(file))


def fetch_card(name: str, version: str) -> None:
    """Write the version's card to models/card.md; without a card, remove the file.

    An unreadable card is a warning: the version is champion already.
    """
    text = None
    try:
        with mlflow_client.open_store() as client:
            found = mlflow_client.find_version(client, name, version)
            text = mlflow_client.read_attachment(client, found, paths.MODEL_CARD.name)
    except (DenseclError, OSError) as error:
        print(f"warning: {paths.MODEL_CARD}: {error}", file=sys.stderr)
    if text is None:
        paths.MODEL_CARD.unlink(missing_ok=True)
    else:
        write_text(paths.MODEL_CARD, text)


def fetch_champion(name: str, champion: Champion) -> None:
    """Write the champion's registered files to models/champion/seed-0; RegistryError if they are
    corrupt.
    """
    target = paths.model_folder(paths.CHAMPION, 0)
    with mlflow_client.open_store() as client:
        version = mlflow_client.find_version(client, name, champion.version or CHAMPION)
        if all(
            mlflow_client.hash_file(target / file) == version.tags[f"sha256.{file}"]
            for file in FILES
        ):
            return
        with (
            mlflow_client.fetch_verified_files(client, version) as source,
            create_atomic_folder(target) as folder,
        ):
            for file in FILES:
                shutil.copyfile(source / file, folder / file)


def promote_version(name: str, version: str, who: str, why: str) -> str:
    """Make `version` the champion and record who, why and when in its tags; return its number."""
    with mlflow_client.open_store() as client:
        chosen = mlflow_client.find_version(client, name, version)
        current = mlflow_client.find_by_alias(client, name, CHAMPION)
        if current is None or current.version != chosen.version:
            _make_champion(client, chosen, _list_champions(client, name, current), who, why)
    return str(chosen.version)


def promote_candidate(registered: RegisteredVersion, verdict: GateVerdict) -> None:
    """Make an accepted candidate the champion, if the champion is still the one that it was
    compared with.
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
    """Make the previous champion with other files the champion again; return its number. Repeated
    calls go further back.
    """
    with mlflow_client.open_store() as client:
        current = mlflow_client.find_by_alias(client, name, CHAMPION)
        if current is None:
            raise RegistryError(
                f"{name}: there is no champion yet; `python -m pipelines promote VERSION` makes a "
                f"version champion"
            )
        former = _list_champions(client, name, current)[:-1]
        while former:
            version = mlflow_client.find_version(client, name, former.pop())
            if any(
                version.tags[f"sha256.{file}"] != current.tags[f"sha256.{file}"] for file in FILES
            ):
                reason = f"rollback from version {current.version}: {why}"
                _make_champion(client, version, former, who, reason)
                _record_action(client, current, "rolled_back", who, why)
                return str(version.version)
    raise RegistryError(
        f"{name}: nothing to roll back to: no champion before version {current.version} is known; "
        f"`python -m pipelines promote VERSION` makes another version champion"
    )


def main_promote(version: str, why: str, who: str | None = None) -> None:
    """`python -m pipelines promote VERSION --why TEXT`."""
    name = load_params(paths.PARAMS).retraining.registry
    # A retraining at work would judge against one champion and replace another.
    with hold_lock(paths.RETRAINING_LOCK):
        before = get_champion(name).version
        now = promote_version(name, version, who or getpass.getuser(), why)
        fetch_card(name, now)
    print(f"{name}: version {now} is champion; before: {before or 'none'}")


def main_rollback(why: str, who: str | None = None) -> None:
    """`python -m pipelines rollback --why TEXT`."""
    name = load_params(paths.PARAMS).retraining.registry
    with hold_lock(paths.RETRAINING_LOCK):
        before = get_champion(name).version
        now = rollback_champion(name, who or getpass.getuser(), why)
        fetch_card(name, now)
    print(f"{name}: version {now} is champion again; rolled back: {before}")


def _make_champion(client: Any, version: Any, champions: list[str], who: str, why: str) -> None:
    """Add a version to the history of champions; RegistryError if its files are corrupt. The alias
    moves last, so that a kill leaves the old champion.
    """
    with mlflow_client.fetch_verified_files(client, version):
        _record_action(client, version, "promoted", who, why)
    stack = " ".join([*champions, str(version.version)])
    client.set_registered_model_tag(version.name, CHAMPIONS_TAG, stack)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)


def _list_champions(client: Any, name: str, current: Any) -> list[str]:
    """Champions up to the current one, oldest first.

    The alias decides. Entries after it were left by an interrupted promotion or rollback; an alias
    that was moved by hand, in MLflow's interface, adds one champion.
    """
    versions = (client.get_registered_model(name).tags.get(CHAMPIONS_TAG) or "").split()
    if current is None:
        return versions
    number = str(current.version)
    if number not in versions:
        return [*versions, number]
    return versions[: len(versions) - versions[::-1].index(number)]


def _record_action(client: Any, version: Any, action: str, who: str, why: str) -> None:
    """Tags of the newest promotion or rollback, and one line each in the tag `history`."""
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    line = f"{when} {action.replace('_', ' ')} by {who}: {' '.join(why.split())}"
    tags = {
        f"{action}_by": who,
        f"{action}_why": why,
        f"{action}_at": when,
        "history": "\n".join(filter(None, [version.tags.get("history"), line])),
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
