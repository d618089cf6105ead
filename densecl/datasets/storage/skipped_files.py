"""Files of a dataset that are no rows of its manifest, by reason: rows and counts add up to the
files below its root.
"""

from collections.abc import Mapping

from densecl.datasets.storage.filenames import HEIF_EXTENSIONS, get_suffix, to_printable

NOT_IN_CLASS_FOLDER = "not in a class folder"
IN_SUBFOLDERS = "in subfolders"
REPLACED = "replaced by a later member of the same name"  # of an archive, as unpacking would
MAX_REASONS = 8  # that a line of text lists


def describe_extension(name: str) -> str:
    """The reason for a file that is no image by its extension nor by its content."""
    suffix = get_suffix(name)
    if suffix in HEIF_EXTENSIONS:  # read where the extra is installed
        return f"extension {suffix} without the extra heif"
    return f"extension {to_printable(suffix)}" if suffix else "no extension"


def describe_untrained(classes: int) -> str:
    return f"of {classes} class{'' if classes == 1 else 'es'} that the train set does not have"


def describe_ungrouped(folders: int) -> str:
    return f"in {folders} folder{'' if folders == 1 else 's'} that no group is named by"


def describe_unmapped(folders: int) -> str:
    return f"in {folders} folder{'' if folders == 1 else 's'} that class_map does not name"


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Number of files, and the reasons, most frequent first; "none" if there are none."""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    listed, others = ordered[:MAX_REASONS], ordered[MAX_REASONS:]
    parts = [f"{reason}: {count:,}" for reason, count in listed]
    if others:
        parts.append(f"{len(others)} other reasons: {sum(count for _, count in others):,}")
    return f"{sum(skipped.values()):,} ({'; '.join(parts)})" if parts else "none"
