"""The next baseline beside the one that counts, until the registry has what was judged: a kill
between the two leaves no champion that is judged against itself, and no candidate that is taken for
judged.
"""

from __future__ import annotations

import shutil

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import Params
from densecl.runtime.atomic_files import whole_folder
from pipelines.gate.drift import remember
from pipelines.registry import registry
from pipelines.schemas import Changes, Registered

NEXT = paths.BASELINE_NEXT
NOTE = "version.json"


def propose(params: Params, seen: Changes, made: Registered) -> None:
    """What `settle` makes the baseline; before the alias `champion` moves."""
    with whole_folder(NEXT) as place:
        remember(params, seen, place=place)
        write_text(place / NOTE, made.model_dump_json())


def settle() -> None:
    """The proposed baseline counts, if the registry has come as far: the version is champion where
    it was to be one. Else it is dropped, and the candidate is judged again. Nothing where nothing
    is proposed.
    """
    note = NEXT / NOTE
    if note.exists():
        made = Registered.model_validate_json(note.read_text(encoding="utf-8"))
        if not made.promoted or registry.champion(made.name).version == made.version:
            _take()
        note.unlink()  # first: what is left without it never counts
    shutil.rmtree(NEXT, ignore_errors=True)


def _take() -> None:
    """Copies, so that a kill in their midst is made good by doing it again; the plan comes last."""
    files = sorted(NEXT.glob("*.parquet"))
    for old in set(paths.BASELINE.glob("*.parquet")) - {
        paths.BASELINE / file.name for file in files
    }:
        old.unlink()
    for file in [*files, NEXT / paths.BASELINE_PLAN.name]:
        partial = paths.BASELINE / f"{file.name}.partial"
        shutil.copyfile(file, partial)
        partial.replace(paths.BASELINE / file.name)
