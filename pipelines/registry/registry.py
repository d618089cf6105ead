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
from densecl.runtime.atomic_files import whole_folder
from pipelines.registry import mlflow_client
from pipelines.registry.mlflow_client import CANDIDATE, CHAMPION, FILES, RegistryError
from pipelines.runtime.project_lock import alone
from pipelines.schemas import Champion, Registered, Verdict

CHAMPIONS = "champions"  # tag of the registered model: versions, the oldest champion first
REMEMBERED = 500  # former champions; a tag holds 5,000 characters


def champion(name: str) -> Champion:
    """The version that the alias names; version None where there is no champion yet."""
    with mlflow_client.store() as client:
        found = mlflow_client.aliased(client, name, CHAMPION)
    if found is None:
        return Champion(version=None)
    return Champion(
        version=str(found.version), mode=found.tags["mode"], seed=int(found.tags["seed"])
    )


def tags(name: str, version: str) -> dict[str, str]:
    """What is written on a version, given by number, `v` and number, or alias: mode, seed,
    fingerprint, sha256 of each file, verdict and what it said, what `register` was given, who
    promoted it or rolled it back, why and when.
    """
    return numbered(name, version)[1]


def numbered(name: str, version: str) -> tuple[str, dict[str, str]]:
    """Number and tags of a version given by number, `v` and number, or alias."""
    with mlflow_client.store() as client:
        found = mlflow_client.find(client, name, version)
    return str(found.version), dict(found.tags)


def listed(name: str) -> dict[str, dict[str, str]]:
    """Tags of every version by number, the oldest first; empty where nothing is registered."""
    with mlflow_client.store() as client:
        return {str(v.version): dict(v.tags) for v in mlflow_client.every(client, name)}


def register(name: str, folder: Path, verdict: Verdict, tags: Mapping[str, str]) -> Registered:
    """The model in `folder` as a version with copies of its files, and the alias `candidate` on it.

    The same files with the same verdict are the same version, so a step that was killed can be done
    again.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digests = {f"sha256.{file}": mlflow_client.sha256(folder / file) for file in FILES}
    told = verdict.model_dump_json()
    identity = hashlib.sha256(json.dumps([digests, told], sort_keys=True).encode()).hexdigest()
    written = (
        dict(tags)
        | digests
        | {
            "mode": config["mode"],
            "seed": str(config["seed"]),
            "fingerprint": config["fingerprint"],
            "identity": identity,
            "verdict": "promoted" if verdict.promoted else "kept",
            "said": verdict.said,
            "judged": told,
        }
    )
    with mlflow_client.store() as client:
        version = mlflow_client.same(client, name, identity)
        if version is None:
            version = mlflow_client.create(client, name, folder, written)
        else:
            for key, value in tags.items():  # of the run that got this far
                client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, CANDIDATE, version)
    return Registered(name=name, version=version, promoted=verdict.promoted)


def attach(name: str, version: str, file: Path) -> None:
    """Put a copy of the file beside the version's model."""
    with mlflow_client.store() as client:
        found = mlflow_client.find(client, name, version)
        client.log_model_artifact(found.source.removeprefix("models:/"), str(file))


def lay_out_card(name: str, version: str) -> bool:
    """models/card.md is the version's card, and True; no card stands there where the version has
    none.
    """
    with mlflow_client.store() as client:
        text = mlflow_client.attached(
            client, mlflow_client.find(client, name, version), paths.CARD.name
        )
    if text is None:
        paths.CARD.unlink(missing_ok=True)
        return False
    write_text(paths.CARD, text)
    return True


def lay_out(name: str, champion: Champion) -> None:
    """models/champion/seed-0 holds the files that were registered, byte for byte; RegistryError
    where they are damaged.
    """
    target = paths.model(paths.CHAMPION, 0)
    if champion.version is None:
        raise _no_champion(name)
    with mlflow_client.store() as client:
        found = mlflow_client.find(client, name, champion.version)
        if all(
            mlflow_client.digest(target / file) == found.tags[f"sha256.{file}"] for file in FILES
        ):
            return
        with mlflow_client.checked(client, found) as source, whole_folder(target) as folder:
            for file in FILES:
                shutil.copyfile(source / file, folder / file)


def promote(name: str, version: str, who: str, why: str) -> str:
    """`version` is champion, and who, why and when stand in its tags; its number. A champion stays
    as it is.
    """
    with mlflow_client.store() as client:
        found = mlflow_client.find(client, name, version)
        current = mlflow_client.aliased(client, name, CHAMPION)
        if current is not None and current.version == found.version:
            return str(found.version)
        with mlflow_client.checked(client, found):
            pass
        _write(client, found, "promoted", who, why)
        _remember(client, name, [*_champions(client, name, current), str(found.version)])
        client.set_registered_model_alias(
            name, CHAMPION, found.version
        )  # last: a kill before leaves the old champion
    return str(found.version)


def promote_judged(made: Registered, verdict: Verdict) -> None:
    """A candidate that the gate let pass takes the place of the champion that it was judged
    against, and of no other.
    """
    now = champion(made.name).version
    if now not in (
        verdict.champion,
        made.version,
    ):  # made.version: a kill came after the alias had moved
        raise RegistryError(
            f"{made.name}: the champion is version {now or 'none'}, but version {made.version} "
            f"was judged against "
            f"{verdict.champion or 'none'}: `python -m pipelines retraining` judges it against "
            f"the one of now"
        )
    promote(made.name, made.version, getpass.getuser(), f"the gate: {verdict.said}")


def rollback(name: str, who: str, why: str) -> str:
    """The champion before the current one, of other files, is champion again; its number. A second
    one goes further back.
    """
    with mlflow_client.store() as client:
        current = mlflow_client.aliased(client, name, CHAMPION)
        if current is None:
            raise _no_champion(name)
        before = _champions(client, name, current)[:-1]
        while before and _alike(mlflow_client.find(client, name, before[-1]), current):
            before = before[:-1]
        if not before:
            raise RegistryError(
                f"{name}: nothing to roll back to: no champion before version {current.version} "
                f"is known; "
                "`python -m pipelines promote VERSION` makes another version champion"
            )
        found = mlflow_client.find(client, name, before[-1])
        with mlflow_client.checked(client, found):
            pass
        _write(client, current, "rolled_back", who, why)
        _write(client, found, "promoted", who, f"rollback from version {current.version}: {why}")
        client.set_registered_model_alias(name, CHAMPION, found.version)
        _remember(client, name, before)
    return str(found.version)


def _alike(one: Any, other: Any) -> bool:
    """Whether two versions hold the same files, as where only the evaluation had changed."""
    return all(one.tags[f"sha256.{file}"] == other.tags[f"sha256.{file}"] for file in FILES)


def main_promote(version: str, why: str, who: str | None = None) -> None:
    """`python -m pipelines promote VERSION --why TEXT`."""
    name = load_params(paths.PARAMS).retraining.registry
    with alone():  # a retraining at work would judge against one champion and replace another
        before = champion(name).version
        now = promote(name, version, who or getpass.getuser(), why)
        _tell_champion(name, now, f"; before: {before}" if before not in (None, now) else "")


def main_rollback(why: str, who: str | None = None) -> None:
    """`python -m pipelines rollback --why TEXT`."""
    name = load_params(paths.PARAMS).retraining.registry
    with alone():
        before = champion(name).version
        now = rollback(name, who or getpass.getuser(), why)
        _tell_champion(name, now, f" again; rolled back: {before}")


def _tell_champion(name: str, version: str, how: str) -> None:
    """And its card in place of the former champion's."""
    print(f"{name}: version {version} is champion{how}")
    stood = paths.CARD.exists()
    if not lay_out_card(name, version) and stood:
        print(f"version {version} has no card; {paths.CARD} is gone: it described another one")


def _no_champion(name: str) -> RegistryError:
    return RegistryError(
        f"{name}: there is no champion yet; `python -m pipelines promote VERSION` makes a version "
        f"champion"
    )


def _champions(client: Any, name: str, current: Any) -> list[str]:
    """Champions up to the current one, the oldest first.

    The alias is what counts. Behind it lies what an interrupted promotion or rollback left; an
    alias that was moved by hand, in MLflow's own page, is one champion more.
    """
    known = (client.get_registered_model(name).tags.get(CHAMPIONS) or "").split()
    if current is None:
        return known
    place = str(current.version)
    if place not in known:
        return [*known, place]
    return known[: len(known) - known[::-1].index(place)]


def _remember(client: Any, name: str, champions: list[str]) -> None:
    client.set_registered_model_tag(name, CHAMPIONS, " ".join(champions[-REMEMBERED:]))


def _write(client: Any, version: Any, what: str, who: str, why: str) -> None:
    """Tags of the newest promotion or rollback, and a line in the tag `history` for each."""
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    before = version.tags.get("history")
    line = f"{when} {what.replace('_', ' ')} by {who}: {' '.join(why.split())}"
    written = {
        f"{what}_by": who,
        f"{what}_why": why,
        f"{what}_at": when,
        "history": f"{before}\n{line}" if before else line,
    }
    for key, value in written.items():
        client.set_model_version_tag(version.name, version.version, key, value)
