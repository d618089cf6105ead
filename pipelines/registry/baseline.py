"""The next baseline beside the one that counts, until the registry has what was judged: a kill
between the two leaves no champion that is judged against itself, and no candidate that is taken for
judged.
"""

from __future__ import annotations

import shutil

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import Params
from densecl.runtime.atomic_files import create_atomic_folder
from pipelines.gate.drift import write_baseline
from pipelines.registry import registry
from pipelines.schemas import RegisteredVersion, SourceChanges

NEXT = paths.BASELINE_NEXT
VERSION_FILE = "version.json"


def write_next_baseline(
    params: Params, changes: SourceChanges, registered: RegisteredVersion
) -> None:
    """What `resolve_next_baseline` makes the baseline; before the alias `champion` moves."""
    with create_atomic_folder(NEXT) as folder:
        write_baseline(params, changes, folder=folder)
        write_text(folder / VERSION_FILE, registered.model_dump_json())


def resolve_next_baseline() -> None:
    """The proposed baseline counts, if the registry has come as far: the version is champion where
    it was to be one. Else it is dropped, and the candidate is judged again. Nothing where nothing
    is proposed.
    """
    version_file = NEXT / VERSION_FILE
    if version_file.exists():
        registered = RegisteredVersion.model_validate_json(version_file.read_text(encoding="utf-8"))
        if (
            not registered.promoted
            or registry.get_champion(registered.name).version == registered.version
        ):
            _copy_baseline()
        version_file.unlink()  # first: what is left without it never counts
    shutil.rmtree(NEXT, ignore_errors=True)


def _copy_baseline() -> None:
    """Copies, so that a kill in their midst is made good by doing it again; the plan comes last."""
    files = sorted(NEXT.glob("*.parquet"))
    for outdated in set(paths.BASELINE.glob("*.parquet")) - {
        paths.BASELINE / file.name for file in files
    }:
        outdated.unlink()
    for file in [*files, NEXT / paths.BASELINE_PLAN.name]:
        partial = paths.BASELINE / f"{file.name}.partial"
        shutil.copyfile(file, partial)
        partial.replace(paths.BASELINE / file.name)
