"""Whether the anchor still measures what it measured when it was chosen."""

import hashlib
import json
from pathlib import Path

from densecl import paths
from densecl.config.params import CONTROL_SET, Params
from densecl.datasets.storage.manifest import read_manifest, select_usable
from densecl.errors import DataError
from pipelines.schemas import Anchor, Champion


def hash_validation_images(root: Path = Path()) -> str | None:
    """sha256 over content and class of the usable validation images, in any order and under any
    name; None without a manifest.
    """
    try:
        images = select_usable(read_manifest(root / paths.manifest_file(CONTROL_SET)))
    except DataError:
        return None
    lines = sorted(images["sha256"] + " " + images["wnid"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_anchor_mismatch(
    params: Params, champion: Champion, root: Path, validation: str | None
) -> str:
    """The reason why candidates need another anchor, and what to do; "" if they do not.

    The classes are those of the models; `validation` is `hash_validation_images` of now.
    """
    anchor = champion.anchor
    if anchor is None:
        return ""
    mode = paths.CHAMPION if anchor.version == champion.version else paths.ANCHOR
    before = _read_classes(root / paths.model_folder(mode, 0))
    now = _read_classes(root / paths.model_folder(*params.candidate))
    reasons = []
    if before and now and before != now:
        new, removed = len(now - before), len(before - now)
        reasons.append(f"the classes changed ({new} new, {removed} removed)")
    if anchor.validation and validation and anchor.validation != validation:
        reasons.append("the validation images changed")
    if not reasons:
        return ""
    return f"{' and '.join(reasons)} since it became the anchor; {_advise(anchor)}"


def _advise(anchor: Anchor) -> str:
    """How to get another anchor."""
    if anchor.origin == "named in params":
        return (
            "name another version under retraining.anchor, or remove it there and take a version "
            "that you have checked: `python -m pipelines promote VERSION --why TEXT`"
        )
    return (
        "check this candidate yourself; `python -m pipelines promote candidate --why TEXT` makes "
        "it champion and anchor"
    )


def _read_classes(folder: Path) -> set[str]:
    """Classes of a model; empty where its file cannot be used, which its predictions report."""
    try:
        return set(json.loads((folder / "config.json").read_text(encoding="utf-8"))["classes"])
    except (OSError, ValueError, LookupError, TypeError):
        return set()
