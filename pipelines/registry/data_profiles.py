"""The data of the registry's versions, as small profiles attached to them, and how far the current
images are from those of the champion and of the first version.

Changes from one candidate to the next may each be small; these do not move with every candidate.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densecl.artifacts import write_json
from densecl.config.params import Params
from densecl.errors import DenseclError
from pipelines.gate.drift import compute_changes
from pipelines.gate.profile import (
    DataProfile,
    ReferenceProfile,
    build_profile,
    measure_reference_drift,
)
from pipelines.registry import mlflow_client, registry
from pipelines.registry.mlflow_client import CHAMPION
from pipelines.schemas import RegisteredVersion, SourceChanges

PROFILE = "data_profile.json"


def attach_profile(params: Params, registered: RegisteredVersion) -> None:
    """Attach the profile of the current manifests to the version."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / PROFILE
        write_json(file, build_profile(params))
        registry.attach_file(registered.name, registered.version, file)


def detect_changes(params: Params) -> SourceChanges:
    """Changes since the last judged candidate, with the drift from the champion's data and from the
    first baseline; without the latter and with a warning if the registry cannot be read.
    """
    changes = compute_changes(params)
    try:
        references = list(_read_references(params.retraining.registry))
    except (DenseclError, OSError, ValidationError) as error:
        reason = " ".join(str(error).split())
        print(f"warning: drift from the champion's data is unknown: {reason}", file=sys.stderr)
        return changes
    drifts = tuple(measure_reference_drift(params, references))
    return changes.model_copy(update={"references": drifts})


def _read_references(name: str) -> Iterator[ReferenceProfile]:
    """The profiles of the oldest version that has one and of the champion."""
    with mlflow_client.open_store() as client:
        champion = mlflow_client.find_by_alias(client, name, CHAMPION)
        versions = mlflow_client.list_versions(name)
        found = ((v, profile) for v in versions if (profile := _read_profile(client, v)))
        first, profile = next(found, (None, None))
        if first is None or profile is None:
            return
        is_champion = champion is not None and champion.version == first.version
        reference = "champion's data, the first baseline" if is_champion else "first baseline"
        yield ReferenceProfile(reference, str(first.version), profile)
        if champion is None or is_champion:
            return
        if profile := _read_profile(client, champion):
            yield ReferenceProfile("champion's data", str(champion.version), profile)


def _read_profile(client: Any, version: Any) -> DataProfile | None:
    text = mlflow_client.read_attachment(client, version, PROFILE)
    return DataProfile.model_validate_json(text) if text else None
