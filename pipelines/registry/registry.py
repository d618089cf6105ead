"""Judged models as versions in MLflow's registry; the alias `champion` names the one in use.

A version holds copies of the model's files, so it outlives DVC's cache, and their sha256, so damage
is found.
"""

import getpass
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from densecl import paths
from densecl.artifacts import write_text
from densecl.errors import DenseclError
from densecl.runtime.atomic_files import create_atomic_folder
from pipelines.registry import champions, mlflow_client
from pipelines.registry.mlflow_client import CANDIDATE, CHAMPION, FILES, RegistryError
from pipelines.schemas import Champion, GateVerdict, Promotion, RegisteredVersion

JUDGED_ON_TAG = "validation_images"  # hash of the validation images that a version was judged on


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
            if verdict.validation:
                own_tags[JUDGED_ON_TAG] = verdict.validation
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


def fetch_model(name: str, version: str, mode: str) -> None:
    """Write a version's registered files to the model folder of `champion` or `anchor`;
    RegistryError if they are corrupt.
    """
    target = paths.model_folder(mode, 0)
    with mlflow_client.open_store() as client:
        found = mlflow_client.find_version(client, name, version)
        if all(
            mlflow_client.hash_file(target / file) == found.tags[f"sha256.{file}"] for file in FILES
        ):
            return
        with (
            mlflow_client.fetch_verified_files(client, found) as source,
            create_atomic_folder(target) as folder,
        ):
            for file in FILES:
                shutil.copyfile(source / file, folder / file)


def is_same_model(first: Path, second: Path) -> bool:
    """True if two model folders hold the same weights, byte for byte, and configs that differ at
    most in the fingerprint, which also changes with code that changes nothing.
    """
    weights, config = FILES
    if mlflow_client.hash_file(first / weights) != mlflow_client.hash_file(second / weights):
        return False
    configs = (json.loads((f / config).read_text(encoding="utf-8")) for f in (first, second))
    one, other = (values | {"fingerprint": ""} for values in configs)
    return bool(one == other)


def count_candidates(name: str, folder: Path, validation: str | None) -> int:
    """Models tried on the same validation images, with the one in `folder`; the same files count
    once.
    """
    weights = {mlflow_client.hash_file(folder / FILES[0])}
    for tags in list_version_tags(name).values() if validation else ():
        if tags.get(JUDGED_ON_TAG) == validation:
            weights.add(tags[f"sha256.{FILES[0]}"])
    return len(weights)


def promote_version(name: str, version: str, who: str, why: str, by_hand: bool = False) -> str:
    """Make `version` the champion and record who, why and when in its tags; return its number.

    By hand, it becomes the anchor too, also if it is champion already.
    """
    with mlflow_client.open_store() as client:
        chosen = mlflow_client.find_version(client, name, version)
        current = mlflow_client.find_by_alias(client, name, CHAMPION)
        former = champions.list_champions(client, name, current)
        if current is not None and current.version == chosen.version:
            if not by_hand:
                return str(chosen.version)
            former.pop()
        entry = champions.format_entry(chosen, by_hand)
        promotion = Promotion(version=str(chosen.version), who=who, why=why, by_hand=by_hand)
        champions.make_champion(client, chosen, [*former, entry], promotion)
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
        former = champions.list_champions(client, name, current)[:-1]
        for length in range(len(former), 0, -1):
            number = champions.get_number(former[length - 1])
            version = mlflow_client.find_version(client, name, number)
            if any(
                version.tags[f"sha256.{file}"] != current.tags[f"sha256.{file}"] for file in FILES
            ):
                promotion = Promotion(
                    version=number, who=who, why=why, rolled_back=str(current.version)
                )
                champions.make_champion(client, version, former[:length], promotion)
                return number
    raise RegistryError(
        f"{name}: nothing to roll back to: no champion before version {current.version} is known; "
        f"`python -m pipelines promote VERSION` makes another version champion"
    )
