"""Two-phase update of the drift baseline. A proposed baseline replaces the current one only after
the registry has the judged version, so that a kill in between has no effect.
"""

import shutil

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.config.params import Params
from densecl.errors import DataError
from densecl.runtime.atomic_files import create_atomic_folder
from pipelines.gate.drift import write_baseline
from pipelines.registry import registry
from pipelines.schemas import RegisteredVersion, SourceChanges

VERSION_FILE = paths.BASELINE_NEXT / "version.json"


def write_next_baseline(
    params: Params, changes: SourceChanges, registered: RegisteredVersion
) -> None:
    """Propose the next baseline, before the alias `champion` moves."""
    with create_atomic_folder(paths.BASELINE_NEXT) as folder:
        write_baseline(params, changes, folder)
        write_json(folder / VERSION_FILE.name, registered)


def resolve_next_baseline() -> None:
    """Accept the proposed baseline if the registry has the version (and its alias); otherwise drop
    it, and the candidate is judged again.
    """
    accept_next_baseline()
    if VERSION_FILE.exists():
        shutil.rmtree(paths.BASELINE_NEXT)


def accept_next_baseline() -> None:
    """Only the first half of `resolve_next_baseline`."""
    if not VERSION_FILE.exists():
        return
    registered = _read_proposal()
    champion = registry.get_champion(registered.name).version
    if not registered.promoted or champion == registered.version:
        shutil.rmtree(paths.BASELINE, ignore_errors=True)
        paths.BASELINE_NEXT.rename(paths.BASELINE)


def _read_proposal() -> RegisteredVersion:
    """The version that the proposal belongs to; DenseclError if it is not whole, so that it does
    not replace a baseline that is.
    """
    try:
        registered = read_json(RegisteredVersion, VERSION_FILE)
        has_manifests = any(paths.BASELINE_NEXT.glob("*.parquet"))
        if not has_manifests or not (paths.BASELINE_NEXT / paths.BASELINE_PLAN.name).is_file():
            raise DataError(f"{paths.BASELINE_NEXT}: found no manifest or no plan")
    except DataError as error:
        raise DataError(
            f"{str(error).partition('; ')[0]}; remove {paths.BASELINE_NEXT}: the changes are then "
            f"counted from {paths.BASELINE}"
        ) from None
    return registered
