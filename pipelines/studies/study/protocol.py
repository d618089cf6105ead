"""What a study fixes before its runs, and what was decided afterwards."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import Artifact, read_json, write_json
from densecl.config.base import StrictModel
from densecl.config.flatten import flatten
from densecl.config.yaml_loader import load_yaml
from densecl.pages.formatting import clip_list
from densecl.runtime.git import run_git
from pipelines.studies.study.study_file import StudyFile

CODE_PATHS = (*paths.CODE_FOLDERS, "pipelines", "dvc.yaml")  # whose changes can change a result
SHOWN_KEYS = 12  # of a file that changed


class CodeState(StrictModel):
    """The code at a moment of the study."""

    time: str  # UTC
    commit: str | None
    changed: tuple[str, ...]  # files of the code that differ from the commit

    def describe(self) -> str:
        """`2026-11-28T03:00:00+00:00 (UTC), at commit 1f8ca8d…, with uncommitted changes in …`."""
        where = f"at commit {self.commit}" if self.commit else "at no known commit"
        files = clip_list(self.changed, SHOWN_KEYS)
        return f"{self.time} (UTC), {where}" + (
            f", with uncommitted changes in {files}" * bool(files)
        )


class FixedFile(StrictModel):
    path: str  # from the project's folder, where it is below it
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class Protocol(Artifact):
    """The files of a study as they were before its first run."""

    start: CodeState
    files: dict[str, FixedFile]  # by role: study, params, ablations
    existed: tuple[str, ...]  # results that were there already

    @property
    def expected(self) -> dict[str, str]:
        """By claim, as it was stated before the runs."""
        return dict(_load_mapping(self.files["study"].text).get("expected") or {})


class StudyEnd(Artifact):
    """Where the last run of a study ended."""

    end: CodeState


def fix_protocol(path: Path, study: StudyFile) -> Protocol:
    """Write the protocol of a study, or read that of a study that is resumed."""
    place = paths.study_protocol(path.stem)
    if not place.exists():
        results = (paths.sweep_folder(path.stem), paths.COMPARISON)
        protocol = Protocol(
            start=read_code_state(),
            files=read_files(path, study),
            existed=tuple(str(result) for result in results if result.exists()),
        )
        write_json(place, protocol)
    return read_json(Protocol, place)


def read_code_state() -> CodeState:
    """Of now; without git no commit."""
    status = run_git("status", "--porcelain", "--", *CODE_PATHS)
    return CodeState(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=run_git("rev-parse", "HEAD").strip() or None,
        changed=tuple(line[3:] for line in status.splitlines()),
    )


def read_files(path: Path, study: StudyFile) -> dict[str, FixedFile]:
    """By role; the same however their paths are written."""
    named = {"study": path, "params": Path(study.params)}
    if study.ablations:
        named["ablations"] = Path(study.ablations)
    return {
        role: FixedFile(path=_shorten_path(file), text=file.read_bytes().decode())
        for role, file in named.items()
    }


def _shorten_path(path: Path) -> str:
    here, full = Path().resolve(), path.resolve()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)


def list_deviations(
    path: Path, study: StudyFile, protocol: Protocol, end: CodeState | None = None
) -> list[str]:
    """What is not as the protocol fixed it, in sentences; found by comparing, not by trust."""
    found = [*study.decided_later]
    if protocol.existed:
        found.append(
            f"Results were there before the protocol was fixed: {', '.join(protocol.existed)}."
        )
    now = read_files(path, study)
    for role in ("study", "params", "ablations"):
        before, after = protocol.files.get(role), now.get(role)
        if before == after:
            continue
        if before is None or after is None:
            file, how = (after, "was added") if after else (before, "is used no more")
            found.append(f"{file.path if file else role} {how} after the protocol was fixed.")
        elif changed := _list_changes(before, after):
            keys = clip_list(changed, SHOWN_KEYS)
            found.append(f"{after.path} was changed after the protocol was fixed: {keys}.")
    if end and (changed := list_changed_code(protocol.start, end)):
        files = clip_list(changed, SHOWN_KEYS)
        found.append(f"The code was not that of one commit from start to end: {files}.")
    return found


def _list_changes(before: FixedFile, after: FixedFile) -> list[str]:
    """Keys with other values, and what else differs; not the sentences of decided_later."""
    old, new = (flatten(_load_mapping(file.text)) for file in (before, after))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if not changed and before.text != after.text:
        return ["comments only"]
    return [key for key in changed if key != "decided_later"]


def _load_mapping(text: str) -> Mapping[str, Any]:
    values = load_yaml(text)
    return values if isinstance(values, Mapping) else {}


def list_changed_code(start: CodeState, end: CodeState) -> list[str]:
    """Files of the code that differ between the commits, or differ from one of them."""
    committed = ""
    if start.commit and end.commit and start.commit != end.commit:
        committed = run_git("diff", "--name-only", start.commit, end.commit, "--", *CODE_PATHS)
    return sorted({*committed.splitlines(), *start.changed, *end.changed})
