"""Find the shards of a dataset in a folder, by the names that Hugging Face, timm and
clip-benchmark give them.
"""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.layouts.class_lists import split_lines
from densecl.datasets.storage.filenames import CLASS_FILES, INFO_FILES, to_printable
from densecl.datasets.storage.folder_root import FolderRoot
from densecl.datasets.storage.image_root import read_file
from densecl.datasets.storage.json_text import load_json
from densecl.datasets.storage.shard_cache import read_source
from densecl.datasets.storage.skipped_files import describe_extension
from densecl.errors import DataError

OTHER_SPLIT = "shards of another split"
# train-00000-of-00294.parquet, train-00000-of-00002-3ea0a3b9d8b0b2c3.parquet (older), train_12.tar,
# imagenet1k-train-0000.tar; 12.tar is of no split
SHARD_NAME = re.compile(r"(?P<split>.*?)[-_.]?\d+(?:-of-\d+(?:-[0-9a-f]{8,})?)?")
CLIP_BENCHMARK_SPLITS = ("train", "val", "test")


def find_shards(source: DatasetParams, suffix: str) -> tuple[list[Path], Counter[str]]:
    """The shards of the source's split, and the other files below its root by reason.

    The root is a shard, or a folder with shards. DataError if there is none, if there are shards of
    several splits and `split` names none of them, or for a link or a file as of `FolderRoot`.
    """
    root, split = Path(source.root), source.split
    if root.is_file():
        return [root], Counter()
    if not root.is_dir():
        raise DataError(
            f"{to_printable(root)}: no such folder or file; expected *{suffix}; correct the root"
        )
    if remote := read_source(root):
        files, skipped = sorted(remote.by_name), Counter(remote.index.left_out)
    else:
        files, skipped = FolderRoot(root, True, source.follow_links).list_files()
    splits = dict[str, list[Path]]()
    for path in map(Path, files):
        if path.name.lower().endswith(suffix):
            splits.setdefault(_name_split(path), []).append(root / path)
        else:
            skipped[describe_extension(path.name)] += 1
    chosen = _choose_split(root, list(splits), suffix, split)
    skipped[OTHER_SPLIT] += sum(len(paths) for name, paths in splits.items() if name != chosen)
    return splits[chosen], +skipped


def _name_split(path: Path) -> str:
    """The part of a shard's path that all shards of its split share."""
    match = SHARD_NAME.fullmatch(path.stem)
    stem = match["split"] if match else path.stem
    return (path.parent / stem).as_posix() if stem else path.parent.as_posix()


def _choose_split(root: Path, found: list[str], suffix: str, split: str | None) -> str:
    if not found:
        raise DataError(f"{to_printable(root)}: found no *{suffix}; correct the root or the layout")
    # `train` is data/train, imagenet1k-train or train itself.
    named = [name for name in found if split and split in re.split(r"[-_./]", name)]
    if len(found) == 1 and split is None:
        return found[0]
    if len(named) == 1:
        return named[0]
    raise DataError(
        f"{to_printable(root)}: found shards of {to_printable(', '.join(found)[:200])}, expected "
        f"one of them to be named by split (found {split}); set split of this dataset, or a root "
        "that holds one of them"
    )


class SplitInfo(BaseModel):
    """The shards of a split and their numbers of images, as timm describes them."""

    filenames: list[str] = []
    shard_lengths: list[int] = []


class ShardInfo(BaseModel):
    """The splits of the shards, and the names of the classes in the order of the labels (None:
    unknown).
    """

    splits: dict[str, SplitInfo] = {}
    class_names: list[str] | None = None


def read_info(root: Path) -> tuple[ShardInfo, list[str]]:
    """timm's description of the shards and clip-benchmark's names of the classes, where they lie
    beside the shards, and notes on them. clip-benchmark's may also lie beside its folder of the
    split.
    """
    folders = [root, root.parent] if root.is_file() else [root]  # a shard, or a folder of them
    info, file, notes = ShardInfo(), "", list[str]()
    if (found := _read_first(folders, INFO_FILES, load_json)) is not None:
        file, content = found
        try:
            info = ShardInfo.model_validate(content)
        except ValidationError:
            notes.append(f"warning: {file} is not as timm writes it; it was not used")
    names = _read_first(folders, CLASS_FILES, split_lines)
    if names is None and info.class_names is None and root.name in CLIP_BENCHMARK_SPLITS:
        names = _read_first([root.parent], CLASS_FILES[:1], split_lines)
    if names is not None:
        file, info.class_names = names
    if info.class_names is not None:
        notes.append(f"names of classes are those of {file}")
    return info, notes


def _read_first(
    folders: list[Path], names: tuple[str, ...], parse: Callable[[str], Any]
) -> tuple[str, Any] | None:
    """Path and content of the first file that exists."""
    for path in (folder / name for folder in folders for name in names):
        with suppress(FileNotFoundError, NotADirectoryError):
            content = read_file(path)
            try:
                return to_printable(path), parse(content.decode("utf-8-sig"))
            except ValueError:
                raise DataError(
                    f"{to_printable(path)}: not readable as UTF-8 or JSON; download it again"
                ) from None
    return None
