"""The next baseline beside the one that counts, until the registry has what was judged: a kill
between the two leaves no champion that is judged against itself, and no candidate that is taken for
judged.
"""

from __future__ import annotations

import shutil

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.config.params import Params
from densecl.runtime.atomic_files import create_atomic_folder
from pipelines.gate.drift import write_baseline
from pipelines.registry import registry
from pipelines.schemas import RegisteredVersion, SourceChanges

VERSION_FILE = paths.BASELINE_NEXT / "version.json"


def write_next_baseline(
    params: Params, changes: SourceChanges, registered: RegisteredVersion
) -> None:
    """What `resolve_next_baseline` makes the baseline; before the alias `champion` moves."""
    with create_atomic_folder(paths.BASELINE_NEXT) as folder:
        write_baseline(params, changes, folder)
        write_json(folder / VERSION_FILE.name, registered)


def resolve_next_baseline() -> None:
    """The proposed baseline counts, if the registry has come as far: the version is champion where
    it was to be one. Else it is dropped, and the candidate is judged again. Nothing where nothing
    is proposed.
    """
    if not VERSION_FILE.exists():
        return
    registered = read_json(RegisteredVersion, VERSION_FILE)
    champion = registry.get_champion(registered.name).version
    if not registered.promoted or champion == registered.version:
        shutil.rmtree(paths.BASELINE, ignore_errors=True)
        paths.BASELINE_NEXT.rename(paths.BASELINE)
    shutil.rmtree(paths.BASELINE_NEXT, ignore_errors=True)
