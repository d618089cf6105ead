"""List a dataset as its params say: by folders, or by the layout in which a copy of it comes."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.labels import describe_classes
from densecl.datasets.manifests.layouts.class_lists import read_class_list, read_class_map
from densecl.datasets.manifests.layouts.kaggle import list_kaggle_val
from densecl.datasets.manifests.layouts.labelled_files import (
    LabelledFiles,
    name_as_in_folders,
)
from densecl.datasets.manifests.layouts.parquet import list_parquet
from densecl.datasets.manifests.layouts.webdataset import list_webdataset
from densecl.datasets.manifests.listing import (
    FolderLayout,
    Listing,
    Summary,
    check_root,
    list_classes,
    list_dataset,
)
from densecl.datasets.storage.filenames import check_utf8_names, to_printable
from densecl.datasets.storage.image_root import open_image_root
from densecl.datasets.storage.remote_root import locate_source
from densecl.datasets.storage.skipped_files import describe_untrained
from densecl.errors import DataError

Lister = Callable[[DatasetParams], LabelledFiles]


def check_source(source: DatasetParams) -> Summary:
    """What a dataset holds; DataError if its images, or what labels them, cannot be listed. Nothing
    is decoded.
    """
    if source.class_list is not None:
        read_class_list(Path(source.class_list))
    source = locate_source(source)
    if (lister := _find_lister(source)) is not None:
        found = lister(source)
        classes = {name for _, name in found.images}
        return Summary(len(found.images), len(classes), found.skipped)
    summary = check_root(
        Path(source.root),
        _get_folder_layout(source),
        source.devkit,
        recursive=source.recursive,
        follow_links=source.follow_links,
        class_map=None if source.class_map is None else read_class_map(Path(source.class_map)),
    )
    if source.class_map is not None:
        _map_folders(source)
    return summary


def list_source(
    source: DatasetParams, classes: Sequence[str], *, is_published: bool = False
) -> Listing:
    """As `list_dataset`, in any layout."""
    source = locate_source(source)
    if (lister := _find_lister(source)) is not None:
        return _select_trained(Path(source.root), lister(source), classes)
    mapped = _map_folders(source) if source.class_map is not None else None
    return list_dataset(
        Path(source.root),
        _get_folder_layout(source),
        classes,
        source.devkit,
        is_published=is_published,
        recursive=source.recursive,
        follow_links=source.follow_links,
        class_map=mapped,
    )


def list_train_classes(source: DatasetParams) -> list[str]:
    """[C] sorted classes of the training dataset; the index of a name is its label."""
    source = locate_source(source)
    if (lister := _find_lister(source)) is not None:
        names = sorted({name for _, name in lister(source).images})
        check_utf8_names(source.root, names)
        return names
    if source.class_map is not None:
        check_source(source)
        return sorted(set(_map_folders(source).values()))
    return list_classes(
        Path(source.root), recursive=source.recursive, follow_links=source.follow_links
    )


def _find_lister(source: DatasetParams) -> Lister | None:
    """What lists a layout whose images are labelled one by one; None for class folders."""
    if source.layout == "kaggle" and not open_image_root(Path(source.root)).list_folders():
        return list_kaggle_val
    return {"parquet": list_parquet, "webdataset": list_webdataset}.get(source.layout)


def _get_folder_layout(source: DatasetParams) -> FolderLayout:
    match source.layout:
        case "kaggle":
            return "wnid"
        case "wnid" | "index" | "groups" | "devkit" as layout:
            return layout
        case other:
            raise ValueError(other)


def _map_folders(source: DatasetParams) -> dict[str, str]:
    """Class of each folder of the dataset that its class_map names; DataError if it names none."""
    path, root = Path(source.class_map or ""), Path(source.root)
    folders, classes = open_image_root(root).list_folders(), read_class_map(path)
    mapped = {folder: classes[folder] for folder in folders if folder in classes}
    if not mapped:
        raise DataError(
            f"{to_printable(path)}: found folders {to_printable(', '.join(list(classes)[:3]))}, "
            f"..., none of which {to_printable(root)} has "
            f"({to_printable(', '.join(folders[:3]))}, ...); correct class_map"
        )
    return mapped


def _select_trained(root: Path, found: LabelledFiles, classes: Sequence[str]) -> Listing:
    """The images of classes of the training set; the others are counted."""
    labels = {name: label for label, name in enumerate(classes)}
    images = [(path, labels[name]) for path, name in found.images if name in labels]
    untrained = Counter(name for _, name in found.images if name not in labels)
    if not images:
        raise DataError(
            f"{to_printable(root)}: found {len(untrained)} classes "
            f"({to_printable(', '.join(sorted(untrained)[:3]))}, ...), none of them of the "
            f"{describe_classes(classes)}; correct the root, or, where labels are integers, name "
            "their classes in class_list"
        )
    check_utf8_names(root, [path for path, _ in images])
    skipped = found.skipped + Counter({describe_untrained(len(untrained)): untrained.total()})
    names = name_as_in_folders(found)
    return Listing(sorted(images), +skipped, found.notes, names)
