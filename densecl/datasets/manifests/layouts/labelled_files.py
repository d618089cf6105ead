"""Files that are labelled one by one, not by their folder; labels are checked before use."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from densecl.datasets.manifests.layouts.class_lists import read_class_list, resolve_label_names
from densecl.datasets.storage.filenames import WNID, to_printable
from densecl.errors import DataError

WNID_IN_NAME = re.compile(r"(?<![A-Za-z0-9])n\d{8}(?!\d)")
MAX_SHOWN = 5  # classes that a note names
RECODED = (
    "if its images were encoded anew, equal bytes show no image that is in the train set too: "
    "read the warnings of difference hashes"
)


class LabelledFiles(NamedTuple):
    """Path and class of each image, the other files by reason, and what a reader should know."""

    images: list[tuple[str, str]]
    skipped: Counter[str]
    notes: tuple[str, ...] = ()
    own_names: tuple[str, ...] = ()  # of each image before it was copied; "": not known


class Sample(NamedTuple):
    """An image with its label, and the names by which its source knows it."""

    path: str
    label: int
    names: str = ""
    own_name: str = ""
    class_name: str = ""  # that its source says beside the label


def name_classes(
    root: Path, samples: Sequence[Sample], names: Sequence[str] | None, class_list: str | None
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Path and class of each sample, and notes on how its labels are known and on their counts.

    `names` and `class_list`: as `resolve_label_names`; without both, wnids in the names of the
    files are the class list. DataError for a label without a class, and for a file whose name holds
    the wnid of another class or whose source says another.
    """
    wnids = _collect_wnids(samples)
    is_named = names is not None or class_list is not None
    if not is_named and len(wnids) == len({sample.label for sample in samples}):
        classes = {label: next(iter(found)) for label, found in wnids.items()}
        note = "labels are the wnids in the names of its files"
    else:
        resolved, note = resolve_label_names(root, names, class_list)
        classes = dict(enumerate(resolved))
    for sample in samples:
        if sample.label not in classes:
            raise DataError(
                f"{to_printable(root / sample.path)}: found label {sample.label}, expected 0 to "
                f"{len(classes) - 1}; is it an unlabelled split, or is class_list of another "
                "dataset?"
            )
    for label, found in wnids.items():
        _check_wnids(root, label, classes[label], found, is_named=is_named)
    _check_class_names(root, samples, classes)
    images = [(sample.path, classes[sample.label]) for sample in samples]
    notes = [note, describe_counts(name for _, name in images)]
    if class_list is not None and names is None:
        used = {sample.label for sample in samples}
        notes += _describe_unused([name for label, name in classes.items() if label not in used])
    return images, tuple(notes)


def use_names(
    root: Path, named: Sequence[tuple[Sample, str]], class_list: str | None
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """As `name_classes`, of labels that are the names of classes. DataError for a wnid on a file
    whose name holds others, and for a name that is no line of the class list.
    """
    for sample, name in named:
        others = [found for found in WNID_IN_NAME.findall(sample.names) if found != name]
        if others and WNID.fullmatch(name):
            raise DataError(
                f"{to_printable(root / sample.path)}: found label {name} on a file whose name "
                f"holds {others[0]}, expected the same; its labels or its files are mixed up"
            )
    if class_list is not None:
        listed = set(read_class_list(Path(class_list)))
        if unlisted := next((pair for pair in named if pair[1] not in listed), None):
            raise DataError(
                f"{to_printable(root / unlisted[0].path)}: found label "
                f"'{to_printable(unlisted[1])}', expected a line of {to_printable(class_list)}, "
                "since its labels are names; correct class_list, or remove it"
            )
    images = [(sample.path, name) for sample, name in named]
    return images, ("labels are names", describe_counts(name for _, name in images))


def name_as_in_folders(found: LabelledFiles) -> dict[str, str]:
    """The path that each image has in class folders, by its path here: its own name, below its
    class unless it has a folder. Empty if an image has none, or two have the same.

    Then a copy has the ids of the folders: its images are drawn, ordered and compared as theirs.
    """
    names = dict[str, str]()
    for (path, class_name), own in zip(found.images, found.own_names, strict=False):
        parts = own.split("/")
        if not own or not own.isprintable() or "" in parts or ".." in parts:
            return {}
        names[path] = own if parts[1:] else f"{class_name}/{own}"
    is_complete = len(set(names.values())) == len(found.images)
    return names if is_complete else {}


def describe_counts(classes: Iterable[str]) -> str:
    counts = Counter(classes).values()
    low, high = min(counts, default=0), max(counts, default=0)
    spread = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{spread} images per class of {len(counts):,}"


def _describe_unused(names: Sequence[str]) -> list[str]:
    """A note on the classes of a list that no label is of: a subset, or a list of other labels."""
    if not names:
        return []
    shown = to_printable(", ".join(names[:MAX_SHOWN])) + (", ..." if names[MAX_SHOWN:] else "")
    count = f"{len(names):,} class{'' if len(names) == 1 else 'es'} of class_list"
    return [f"without an image: {count} ({shown})"]


def _collect_wnids(samples: Sequence[Sample]) -> dict[int, dict[str, str]]:
    """Wnids that the names of a label's files hold, with the first file of each, of labels where
    they do.
    """
    wnids = dict[int, dict[str, str]]()
    for sample in samples:
        for wnid in WNID_IN_NAME.findall(sample.names):
            wnids.setdefault(sample.label, {}).setdefault(wnid, sample.path)
    return wnids


def _check_class_names(root: Path, samples: Sequence[Sample], classes: dict[int, str]) -> None:
    """DataError for a sample whose source says another class than its label. Names of another
    vocabulary, such as English ones of wnids, cannot be compared.
    """
    known = set(classes.values())
    for sample in samples:
        said, name = sample.class_name, classes[sample.label]
        if said in ("", name):
            continue
        if said in known or (WNID.fullmatch(said) and WNID.fullmatch(name)):
            raise DataError(
                f"{to_printable(root / sample.path)}: found class '{to_printable(said)}' beside "
                f"label {sample.label}, which is '{to_printable(name)}', expected the same; its "
                "labels are of another class list: correct class_list"
            )


def _check_wnids(
    root: Path, label: int, name: str, found: dict[str, str], *, is_named: bool
) -> None:
    """DataError if a label that is a wnid is on files of others; a named class may have several."""
    others = [wnid for wnid in found if wnid != name]
    if not others or not WNID.fullmatch(name):
        return
    if is_named:
        raise DataError(
            f"{to_printable(root)}: found label {label}, which is {name}, on files whose names "
            f"hold {others[0]}; its labels are of another class list: correct class_list"
        )
    raise DataError(
        f"{to_printable(root / found[others[0]])}: found {others[0]} in the name of a file of "
        f"label {label}, expected {name} as in {to_printable(found[name])}; its labels or its "
        "files are mixed up, or its classes hold several: name them in class_list"
    )
