"""Files of a dataset that are no rows of its manifest, by reason: rows and counts add up to the
files below its root.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from densecl.datasets.storage.filenames import to_printable

HIDDEN = "hidden"  # their name, or that of a folder around them, begins with a dot
NOT_IN_CLASS_FOLDER = "not in a class folder"
IN_SUBFOLDERS = "in subfolders"
REPLACED = "replaced by a later member of the same name"  # of an archive, as unpacking would
MAX_REASONS = 8  # that a line of text lists


def describe_extension(name: str) -> str:
    """The reason for a file whose extension is none of an image that is read."""
    suffix = PurePosixPath(name).suffix.lower()
    return f"extension {to_printable(suffix)}" if suffix else "no extension"


def describe_untrained(classes: int) -> str:
    return f"of {classes} class{'' if classes == 1 else 'es'} that the train set does not have"


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Number of files, and the reasons, most frequent first; "none" if there are none."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    listed, others = ordered[:MAX_REASONS], ordered[MAX_REASONS:]
    parts = [f"{reason}: {count:,}" for reason, count in listed]
    if others:
        parts.append(f"{len(others)} other reasons: {sum(count for _, count in others):,}")
    return f"{sum(skipped.values()):,} ({'; '.join(parts)})" if parts else "none"
