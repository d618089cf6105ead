"""params.yaml while a study runs."""

import hashlib
import json
from pathlib import Path

from densecl import paths
from densecl.artifacts import write_text


def replace_params(name: str, text: str) -> None:
    """Make it params.yaml. What was there is kept as params-before.yaml, with a number if there is
    one already, unless this study wrote it.
    """
    folder = paths.study_folder(name)
    before = paths.PARAMS.read_text(encoding="utf-8") if paths.PARAMS.exists() else None
    if before == text:
        return
    own = folder / "written-params.json"  # sha256 of what the study wrote
    written: list[str] = json.loads(own.read_text()) if own.exists() else []
    if before is not None and _hash_text(before) not in written:
        _back_up(folder, before)
    if _hash_text(text) not in written:
        write_text(own, json.dumps([*written, _hash_text(text)], indent=1) + "\n")
    write_text(paths.PARAMS, text)


def _back_up(folder: Path, text: str) -> None:
    kept = sorted(folder.glob("params-before*.yaml"))
    if not any(file.read_text(encoding="utf-8") == text for file in kept):
        number = f"-{len(kept) + 1}" if kept else ""
        write_text(folder / f"params-before{number}.yaml", text)


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
