"""Whatever a folder holds: images read and images counted as skipped are the files on disk."""

import contextlib
import io
import shutil
import string
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.sources import check_source, list_source
from densecl.datasets.storage.filenames import find_litter

A, B, C = "n01440764", "n01443537", "n01484850"  # ImageNet-1k's first three
FOLDERS = ["sub", "more", ".cache", "@eaDir", "__MACOSX", "lost+found", "x.y", "1.jpg.d"]
STEMS = st.text(string.ascii_letters + string.digits + "._ -()äß", min_size=1, max_size=6).filter(
    lambda name: name.strip(". ") and not name.endswith((".", " "))
)
NAMES = st.one_of(
    st.sampled_from(["Thumbs.db", "desktop.ini", "._1.jpg", ".DS_Store", "README", "1.JPEG~"]),
    st.tuples(
        STEMS,
        st.sampled_from(
            [
                *("", ".jpg", ".JPEG", ".jfif", ".png", ".bmp", ".TIF", ".gif", ".avif", ".jp2"),
                *(".txt", ".json", ".cls", ".heic", ".psd", ".eps", ".tar.gz", ".jpg_large"),
            ]
        ),
    ).map("".join),
)
CONTENTS = st.sampled_from(["text", "empty", "jpeg", "png", "gif", "tiff", "link", "linked folder"])
TREES = st.dictionaries(
    st.tuples(
        st.sampled_from([A, B, C, ".hidden", "@eaDir", ""]),
        st.lists(st.sampled_from(FOLDERS), max_size=2),
        NAMES,
    ).map(lambda parts: "/".join(filter(None, [parts[0], *parts[1], parts[2]]))),
    CONTENTS,
    max_size=25,
)


def encode(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(buffer, kind)
    return buffer.getvalue()


BYTES = {kind: encode(kind) for kind in ("jpeg", "png", "gif", "tiff")}
BYTES |= {"text": b"no image", "empty": b""}


def build(root: Path, tree: dict[str, str]) -> None:
    """Files and links of a drawn tree; a name that is a folder of another is left out."""
    target = root.parent / "targets" / "inner"
    target.mkdir(parents=True)
    (target / "1.jpg").write_bytes(BYTES["jpeg"])
    for folder in (A, B, C):
        (root / folder).mkdir(parents=True)
        (root / folder / "always.jpg").write_bytes(BYTES["jpeg"])
    for name, content in tree.items():
        path, top = root / name, name.split("/")[0]
        # In the root itself, folders are classes: no others but hidden and system ones.
        if "/" in name and top not in (A, B, C) and not find_litter([top]):
            continue
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                continue
            if content == "linked folder" and "/" in name and Path(name).suffix == "":
                path.symlink_to(target)
            elif content in ("link", "linked folder"):
                path.symlink_to(target / "1.jpg")
            else:
                path.write_bytes(BYTES[content])


def count_files(root: Path, recursive: bool) -> int:
    """Files on disk. A link to a folder counts as one, or, where it is entered, as its files."""
    count = 0
    for path in root.iterdir():
        if path.is_symlink() and path.is_dir():
            enters = recursive and not find_litter(path.relative_to(root).parts)
            count += 1 if not enters else len(list(path.iterdir()))
        elif path.is_dir():
            is_entered = recursive and not find_litter([path.name])
            count += count_files(path, is_entered)
        else:
            count += 1
    return count


@settings(max_examples=60, deadline=None)
@given(TREES, st.booleans())
def test_images_read_and_counted_are_the_files_on_disk(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, str], recursive: bool
) -> None:
    root = tmp_path_factory.mktemp("tree") / "set"
    build(root, tree)
    source = DatasetParams(root=str(root), tracked_by=str(root), recursive=recursive)
    on_disk = count_files(root, recursive)
    listing = list_source(source, [A, B])
    assert len(listing.images) + listing.skipped.total() == on_disk
    summary = check_source(source)  # before classes are known
    assert summary.images + summary.skipped.total() == on_disk
    assert all(not find_litter(path.split("/")) for path, _ in listing.images)
    # An archive of it, links resolved, is listed likewise.
    flat = root.parent / "flat"
    shutil.copytree(root, flat, symlinks=False)
    with contextlib.chdir(root.parent):
        archive = Path(shutil.make_archive("flat", "tar", flat))
        packed = DatasetParams(root=str(archive), tracked_by="x", recursive=recursive)
        flat_source = DatasetParams(root=str(flat), tracked_by="x", recursive=recursive)
        assert list_source(packed, [A, B]) == list_source(flat_source, [A, B])
