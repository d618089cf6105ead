"""Rules for file names, on disk and in archives."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import filterfalse
from pathlib import PurePosixPath

from densecl.errors import DataError

WNID = re.compile(r"n\d{8}")  # of WordNet, as ImageNet names classes
HIDDEN = "hidden"  # their name, or that of a folder around them, begins with a dot
SYSTEM = "system file"  # likewise, one of SYSTEM_NAMES
HEIF_EXTENSIONS = (".heic", ".heif", ".hif")
# Files of these names are images whatever they hold: one that cannot be decoded has a problem.
EXTENSIONS = (
    *(".jpeg", ".jpg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ico"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
    *(HEIF_EXTENSIONS if find_spec("pillow_heif") else ()),
)
# What describes shards, beside them: timm's and clip-benchmark's.
INFO_FILES, CLASS_FILES = ("_info.json", "info.json"), ("classnames.txt", "classes.txt")
# What operating systems, disk stations and editors leave in folders of images.
SYSTEM_NAMES = {
    *("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "__pycache__"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}


def is_image_name(name: str) -> bool:
    """True for an image extension in any case, unless the file is hidden or of the system."""
    return name.lower().endswith(EXTENSIONS) and not find_litter([name])


def find_litter(parts: Iterable[str]) -> str:
    """The reason not to use a path, by its parts: HIDDEN (.DS_Store, ._*), SYSTEM or ""."""
    names = list(parts)
    if any(name.startswith(".") for name in names):
        return HIDDEN
    return SYSTEM if any(name.lower() in SYSTEM_NAMES for name in names) else ""


def get_suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def to_printable(name: object) -> str:
    """Escape unprintable characters, so that an error is one line and hides nothing."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def check_utf8_names(folder: object, names: list[str]) -> None:
    """Raise DataError for the first name below `folder` that is not UTF-8, which a manifest cannot
    store.
    """
    if (name := next(filterfalse(is_utf8, names), None)) is not None:
        path = to_printable(f"{folder}/{name}")
        raise DataError(f"{path}: the name holds bytes that are not UTF-8; rename it")


def is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
