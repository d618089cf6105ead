"""Class lists of datasets whose labels are integers or whose folders have other names than their
classes. A list is given or recognised; it is never assumed.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from densecl.datasets.imagenet import load_lemmas, read_lines
from densecl.datasets.manifests.layouts.csv_rows import iter_csv_rows
from densecl.datasets.storage.filenames import WNID, to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError

# timm's files of wnids in the order of the labels, which other projects follow.
KNOWN_LISTS = ("imagenet_synsets.txt", "imagenet_a_synsets.txt", "imagenet_r_synsets.txt")
# Of the names, in their places. OpenAI's English names, which clip-benchmark writes, share a word
# with 96 % of their synsets; a shuffled list with less than 1 %.
MIN_RECOGNISED = 0.95
MIN_SIMILAR = 0.5  # neither ImageNet's list nor surely another: someone must say which
MAP_COLUMNS = ["folder", "class"]


def read_class_list(path: Path) -> list[str]:
    """One class per line, in the order of the labels; DataError for empty or repeated names."""
    names = split_lines(_read_text(path))
    seen = dict[str, int]()
    for number, name in enumerate(names, 1):
        if not name or name in seen:
            found = f"'{to_printable(name)}' again, as in line {seen[name]}" if name else "nothing"
            raise DataError(
                f"{to_printable(path)}: line {number}: found {found}, expected the name of a class"
            )
        seen[name] = number
    if not names:
        raise DataError(f"{to_printable(path)}: found no line, expected one class per line")
    return names


def split_lines(text: str) -> list[str]:
    """Lines without spaces around them, and without the empty ones at the end."""
    return [line.strip() for line in text.rstrip().splitlines()]


def read_class_map(path: Path) -> dict[str, str]:
    """Class of each folder, from a CSV with the columns folder and class; several folders may be
    of one class. DataError names the line.
    """
    classes = dict[str, str]()
    for line, values in iter_csv_rows(path, _read_text(path), MAP_COLUMNS):
        folder, name = (value.strip() for value in values)
        if not folder or not name or classes.get(folder, name) != name:
            raise DataError(
                f"{to_printable(path)}: line {line}: found folder "
                f"'{to_printable(folder)}' and class '{to_printable(name)}', expected both, and "
                "one class per folder"
            )
        classes[folder] = name
    if not classes:
        raise DataError(f"{to_printable(path)}: found no row, expected one per folder")
    return classes


def resolve_label_names(
    root: Path, names: Sequence[str] | None, class_list: str | None
) -> tuple[Sequence[str], str]:
    """Class of each integer label, and how it is known.

    `names`: those that the dataset brings along, None if it has none. Names of ImageNet's classes
    in English become wnids. DataError if nothing says what the integers are, if the lengths of the
    given list and of the dataset's own differ, if both name a label by different wnids, or if only
    some names are ImageNet's.
    """
    if class_list is not None:
        given = read_class_list(Path(class_list))
        if names is not None and len(names) != len(given):
            raise DataError(
                f"{to_printable(class_list)}: found {len(given)} classes, expected "
                f"{len(names)}, as {to_printable(root)} names; correct class_list"
            )
        _check_order(root, names or given, given, class_list)
        return given, f"labels are lines of {Path(class_list).name}"
    if names is None:
        raise DataError(
            f"{to_printable(root)}: its labels are integers, and nothing says of which classes; "
            "name a file with one class per line, in the order of the labels, in class_list"
        )
    if (recognised := _recognise_imagenet(root, names)) is not None:
        return recognised
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError(
            f"{to_printable(root)}: found two classes named '{to_printable(twice)}', expected "
            "different names; name a file with one class per line in class_list"
        )
    return names, "labels are the names that the dataset brings along"


def _check_order(root: Path, names: Sequence[str], given: Sequence[str], class_list: str) -> None:
    """DataError if a wnid of the dataset's own is another one in the given list."""
    for label, (own, name) in enumerate(zip(names, given, strict=True)):
        if own != name and WNID.fullmatch(own) and WNID.fullmatch(name):
            raise DataError(
                f"{to_printable(class_list)}: line {label + 1}: found {name}, expected {own}, as "
                f"{to_printable(root)} names label {label}; correct class_list, or remove it"
            )


def _recognise_imagenet(root: Path, names: Sequence[str]) -> tuple[Sequence[str], str] | None:
    """The wnids of one of timm's lists that the names follow, and a note with the names that share
    no word with the synset in their place; None if they follow none. DataError for a list of which
    too many do not.
    """
    for file in KNOWN_LISTS:
        wnids = read_lines(file)
        if len(wnids) != len(names) or any(
            WNID.fullmatch(name) and name != wnid for name, wnid in zip(names, wnids, strict=True)
        ):
            continue
        others = _find_other_names(names, wnids)
        shown = to_printable(", ".join(others))
        if len(others) > (1 - MIN_SIMILAR) * len(names):
            continue
        if len(others) > (1 - MIN_RECOGNISED) * len(names):
            raise DataError(
                f"{to_printable(root)}: found {len(others)} of {len(names)} names that are not "
                f"those of {file} in their places ({shown[:80]}, ...), expected its classes or "
                "others; name a file with one class per line in class_list"
            )
        note = f"labels are ImageNet's: its names were recognised as {file}"
        return wnids, f"{note}, also {len(others)} in other words: {shown}" if others else note
    return None


def _find_other_names(names: Sequence[str], wnids: Sequence[str]) -> list[str]:
    """Names that share no word with the synset in their place."""
    lemmas = load_lemmas()
    return [
        name
        for name, wnid in zip(names, wnids, strict=True)
        if name != wnid and not _split_words(name) & _split_words(lemmas.get(wnid, ""))
    ]


def _split_words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.casefold()))


def _read_text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise DataError(f"{to_printable(path)}: {reason}; expected a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"{to_printable(path)}: found bytes that are not UTF-8") from None
