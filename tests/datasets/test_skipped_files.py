"""Nothing is dropped without a count: rows of the manifest and skipped files add up to the files on
disk, in folders and in archives.
"""

import contextlib
import io
import shutil
import string
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from densecl import paths
from densecl.artifacts import DatasetPlan, SkippedFiles, read_json, write_json
from densecl.config.params import DatasetParams
from densecl.datasets.manifests.listing import check_root, list_dataset
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.errors import DataError
from steps import prepare
from tests.conftest import draw_set

A, B, C = "n01440764", "n01443537", "n01484850"  # ImageNet-1k's first three
UNKNOWN = "n99999999"  # no synset


def write(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def count_files(root: Path) -> int:
    """Files on disk; a link to a folder counts as one."""
    return sum(path.is_file() or path.is_symlink() for path in root.rglob("*"))


FILES = {
    f"{A}/1.JPEG": "",
    f"{A}/2.jpg": "",
    f"{B}/1.PNG": "",
    f"{A}/3.psd": "extension .psd",
    f"{A}/4.EPS": "extension .eps",
    f"{A}/5.svg": "extension .svg",
    f"{B}/6.mp4": "extension .mp4",
    f"{B}/7.psd": "extension .psd",
    f"{B}/list": "no extension",
    f"{B}/8.JPEG~": "extension .jpeg~",
    f"{A}/more/1.jpg": "in subfolders",
    f"{A}/more/deep/2.txt": "in subfolders",
    f"{A}/more/.cache/3.jpg": "hidden",
    f"{A}/.4.jpg": "hidden",
    f"{B}/._1.PNG": "hidden",
    f"{A}/.cache/5.jpg": "hidden",
    f".ipynb_checkpoints/{A}/6.jpg": "hidden",
    ".DS_Store": "hidden",
    "README.txt": "not in a class folder",
    "loose.jpg": "not in a class folder",
    f"{C}/1.JPEG": "of 1 class that the train set does not have",
    f"{C}/2.JPEG": "of 1 class that the train set does not have",
    f"{C}/3.pdf": "extension .pdf",
    f"{A}/Thumbs.db": "system file",
    f"{B}/DESKTOP.INI": "system file",
    f"{A}/@eaDir/1.JPEG/SYNOPHOTO_THUMB_M.jpg": "system file",
    f"{B}/sub/@eaDir/2.jpg": "system file",
    f"__MACOSX/{A}/._1.JPEG": "hidden",
    f"__MACOSX/{A}/1.JPEG": "system file",
    "lost+found/#1.jpg": "system file",
    f"@eaDir/{A}/3.jpg": "system file",
    **{f"{name}/4.jpg": "system file" for name in ("@Recycle", "#snapshot", "__pycache__")},
    f"{A}/.ipynb_checkpoints/1-checkpoint.JPEG": "hidden",
}
EXPECTED = Counter(reason for reason in FILES.values() if reason)


@pytest.mark.parametrize("form", ["folder", "tar", "zip", "gztar"])
def test_each_file_is_used_or_counted_by_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "set", list(FILES))
    if form != "folder":
        root = Path(shutil.make_archive("packed", form, "set"))
    listing = list_dataset(root, "wnid", [A, B])
    assert listing.images == [(f"{A}/1.JPEG", 0), (f"{A}/2.jpg", 0), (f"{B}/1.PNG", 1)]
    assert listing.skipped == EXPECTED
    assert len(listing.images) + listing.skipped.total() == len(FILES)


def test_files_beside_the_folder_of_classes_in_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"imagenet-a/{A}/1.jpg", f"imagenet-a/{B}/1.jpg", "README.txt", "docs/x.pdf"]
    names += [f"__MACOSX/imagenet-a/{A}/._1.jpg", "imagenet-a/list.csv"]
    write(tmp_path / "all", names)
    archive = Path(shutil.make_archive("all", "zip", "all"))
    listing = list_dataset(archive, "wnid", [A, B])
    assert len(listing.images) == 2
    assert listing.skipped == {"not in a class folder": 3, "hidden": 1}
    inside = list_dataset(archive / "imagenet-a", "wnid", [A, B])  # the rest is not below its root
    assert inside.images == listing.images
    assert inside.skipped == {"not in a class folder": 1}


def test_members_that_a_later_one_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open("twice.tar", "w") as tar:
        for name in (f"{A}/1.jpg", f"{A}/2.jpg", f"{A}/1.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    listing = list_dataset(Path("twice.tar"), "wnid", [A])
    assert listing.images == [(f"{A}/1.jpg", 0), (f"{A}/2.jpg", 0)]
    assert listing.skipped == {"replaced by a later member of the same name": 1}


def test_links_to_folders_are_not_entered_and_count_as_one(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg", f"{B}/1.jpg", f"{A}/sub/2.jpg"])
    (root / A / "link").symlink_to(root / B)
    (root / A / "sub" / "link").symlink_to(root / B)
    listing = list_dataset(root, "wnid", [A, B])
    assert listing.skipped == {"in subfolders": 3}
    assert len(listing.images) + listing.skipped.total() == count_files(root)


def test_a_class_folder_without_an_image_says_what_it_holds(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg", f"{B}/1.psd", f"{B}/2.psd", f"{B}/x/3.jpg"])
    with pytest.raises(
        DataError,
        match=rf"{B}: empty class folder: found no image file and 1 folders; .*other files in it: 3"
        r" \(extension \.psd: 2; in subfolders: 1\); fill it or remove it",
    ):
        check_root(root, "wnid")


def test_untrained_classes_are_left_out_but_unknown_names_and_no_class_at_all_are_errors(
    tmp_path: Path,
) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg", f"{B}/1.jpg", f"{C}/1.jpg", f"{C}/2.jpg"])
    listing = list_dataset(root, "wnid", [B])
    assert listing.images == [(f"{B}/1.jpg", 0)]
    assert listing.skipped == {"of 2 classes that the train set does not have": 3}
    with pytest.raises(DataError, match="found 3 classes, none of them of the 2 classes of the"):
        list_dataset(root, "wnid", ["cat", "dog"])
    write(root, [f"{UNKNOWN}/1.jpg"])
    with pytest.raises(DataError, match=f"found folder '{UNKNOWN}', expected one of the 1 classes"):
        list_dataset(root, "wnid", [B])


NAMES = st.text(string.ascii_lowercase + "._ ", min_size=1, max_size=5).filter(
    lambda name: name.strip(".") and not name.endswith(".")
)
SUFFIXES = st.sampled_from(["", ".jpg", ".JPEG", ".png", ".bmp", ".txt", ".tar.gz", ".webp"])
TREES = st.sets(
    st.tuples(
        st.sampled_from([A, B, C, ".hidden", ""]),
        st.lists(st.sampled_from(["sub", ".sub", "x"]), max_size=2),
        NAMES,
        SUFFIXES,
    ).map(lambda parts: "/".join([p for p in (parts[0], *parts[1]) if p] + [parts[2] + parts[3]])),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_rows_and_counts_add_up_to_the_files_on_disk(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    # No folder in the root but class folders and hidden ones, and no name that is both.
    usable = {name for name in names if name.split("/")[0] in (A, B, C) or name[0] == "."}
    usable |= {name for name in names if "/" not in name}
    folders = {parent for name in usable for parent in map(str, Path(name).parents)}
    root = write(
        tmp_path_factory.mktemp("tree"),
        [*(usable - folders), *(f"{folder}/always.jpg" for folder in (A, B, C))],
    )
    listing = list_dataset(root, "wnid", [A, B])
    assert len(listing.images) + listing.skipped.total() == count_files(root)
    archive = Path(shutil.make_archive(str(root), "tar", root))
    with contextlib.chdir(archive.parent):
        assert list_dataset(archive, "wnid", [A, B]) == listing


def test_a_line_lists_the_frequent_reasons_and_sums_the_others() -> None:
    assert describe_skipped({}) == "none"
    assert describe_skipped({"hidden": 1, "extension .bmp": 1200}) == (
        "1,201 (extension .bmp: 1,200; hidden: 1)"
    )
    many = {f"extension .{number:03d}": 1 for number in range(20)}
    assert describe_skipped(many).endswith("; extension .007: 1; 12 other reasons: 12)")
    assert describe_skipped(many).startswith("20 (")


def test_prepare_says_it_in_its_line_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_set(Path("train"), 2, folders=(A, B))
    draw_set(Path("set"), 2, folders=(A, B, C))
    write(Path("set"), [f"{A}/3.psd", f"{A}/more/1.jpg", f"{B}/broken.jpg", ".DS_Store"])
    dataset = DatasetParams(root="set", tracked_by="set")
    plan = DatasetPlan(
        name="s",
        dataset=dataset,
        train=DatasetParams(root="train", tracked_by="train"),
        preprocess=None,
        protocol="folder",
        classes=(),
        optional=False,
    )
    write_json(paths.plan_file("s"), plan)
    prepare.main("s")
    assert capsys.readouterr().out == (
        "5 files of 2 classes in set; skipped 5 (of 1 class that the train set does not have: 2; "
        "extension .psd: 1; hidden: 1; in subfolders: 1); with a problem 1 (not "
        "an image: 1)\n"
    )
    counts = read_json(SkippedFiles, paths.skipped_file("s"))
    assert sum(counts.skipped.values()) + 5 == count_files(Path("set"))
