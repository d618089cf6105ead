"""Class of each folder: by its name (layout wnid) or its integer (layout index), never by the order
of folders.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from densecl.datasets.imagenet import IMAGENET1K_WNIDS, load_class_descriptions, read_lines
from densecl.datasets.storage.filenames import WNID, to_printable
from densecl.errors import DataError

IMAGENET_INDICES = "folder numbers are ImageNet-1k's class indices"
TRAIN_POSITIONS = "folder numbers are positions in the sorted class list of the train set"


def label_by_name(root: Path, folders: Iterable[str], classes: Sequence[str]) -> dict[str, int]:
    """Label of each folder whose class is in `classes`. A folder of another synset of ImageNet has
    none; DataError for any other name.
    """
    label_of_class = {name: label for label, name in enumerate(classes)}
    labels = {}
    for folder in folders:
        if folder in label_of_class:
            labels[folder] = label_of_class[folder]
        elif folder not in load_class_descriptions():
            hint = "; integer folders need layout: index" if folder.isdecimal() else ""
            raise DataError(
                f"{to_printable(root / folder)}: found folder '{to_printable(folder)}', expected "
                f"one of the {describe_classes(classes)}; rename or remove it{hint}"
            )
    return labels


def label_by_map(
    root: Path, class_map: Mapping[str, str], classes: Sequence[str]
) -> dict[str, int]:
    """Label of each folder whose class, by the map, is in `classes`; another synset of ImageNet has
    none. DataError for any other class.
    """
    label_of_class = {name: label for label, name in enumerate(classes)}
    for folder, name in class_map.items():
        if name not in label_of_class and name not in load_class_descriptions():
            raise DataError(
                f"{to_printable(root / folder)}: class_map says class '{to_printable(name)}', "
                f"expected one of the {describe_classes(classes)}; correct class_map"
            )
    return {
        folder: label_of_class[name] for folder, name in class_map.items() if name in label_of_class
    }


def label_by_group(root: Path, folders: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    """Label of each folder that is a group; a dataset may have others. DataError if none is."""
    label_of_group = {name: label for label, name in enumerate(groups)}
    labels = {name: label_of_group[name] for name in folders if name in label_of_group}
    if not labels:
        raise DataError(
            f"{to_printable(root)}: found folders {to_printable(', '.join(folders[:3]))}, ..., "
            f"expected some of the {len(groups)} groups of classes "
            f"({to_printable(', '.join(groups[:3]))}, ...); rename the folders, list your groups "
            f"in evaluate.class_groups, or, for folders named by wnid, set layout: wnid"
        )
    return labels


def label_by_index(
    root: Path, folders: Iterable[str], classes: Sequence[str], *, is_published: bool
) -> tuple[dict[str, int], str]:
    """Label of each folder whose class is in `classes`, and what the integers mean.

    DataError: as `resolve_index`, `parse_index`; an integer out of range; two folders of one class.
    """
    names, meaning = resolve_index(root, classes, is_published=is_published)
    label_of_class = {name: label for label, name in enumerate(classes)}
    labels, first_folders = {}, dict[int, str]()
    for folder in folders:
        index = parse_index(root / folder)
        if index >= len(names):
            raise DataError(
                f"{to_printable(root / folder)}: found index {index}, expected 0 to "
                f"{len(names) - 1} (the {describe_classes(classes)}; {meaning}); rename or remove "
                f"the folder"
            )
        # A train set whose own folders are integers: sorted as text, its tenth class is not "10".
        if label_of_class.get(folder, index) != index:
            raise DataError(
                f"{to_printable(root / folder)}: found '{folder}', which the train set has as the "
                f"name of class {label_of_class[folder]}, expected an index; set layout: wnid"
            )
        if index in first_folders:
            raise DataError(
                f"{to_printable(root)}: folders {first_folders[index]!r} and {folder!r} are both "
                f"class {index}; keep one of them"
            )
        first_folders[index] = folder
        if names[index] in label_of_class:
            labels[folder] = label_of_class[names[index]]
    return labels, meaning


def resolve_index(
    root: Path, classes: Sequence[str], *, is_published: bool
) -> tuple[Sequence[str], str]:
    """Class name of each integer, and what the integers mean.

    They are ImageNet-1k's class indices if the train set has any of its classes, or else positions
    in the train set's class list. DataError for a published dataset if class names are no wnids.
    """
    imagenet = sorted(read_lines(IMAGENET1K_WNIDS))
    if not set(classes).isdisjoint(imagenet):
        return imagenet, IMAGENET_INDICES
    other = next((name for name in classes if not WNID.fullmatch(name)), None)
    if is_published and other is not None:
        raise DataError(
            f"{to_printable(root)}: its folders are named by ImageNet-1k's class indices, which "
            f"no class of the train set can be found by: found class '{to_printable(other)}', "
            f"expected wnids; rename the train set's folders to wnids, or, if the integers are "
            f"positions in its sorted class list, set evaluate.protocol of this dataset to folder "
            f"and its layout to index"
        )
    return classes, TRAIN_POSITIONS


def parse_index(folder: Path) -> int:
    if not (folder.name.isascii() and folder.name.isdecimal()):
        raise DataError(
            f"{to_printable(folder)}: found folder '{to_printable(folder.name)}', expected an "
            f"integer (layout index); rename it, or set layout: wnid"
        )
    return int(folder.name)


def describe_classes(classes: Sequence[str]) -> str:
    names = [*classes[:3], *(["..."] if len(classes) > 3 else [])]
    return to_printable(f"{len(classes)} classes of the train set ({', '.join(names)})")
