"""File names: image extensions, printing, encoding; the same on disk and inside an archive."""

from __future__ import annotations

from densecl.errors import DataError

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp")


def is_image_name(name: str) -> bool:
    """True for an image extension in any case; hidden files (.DS_Store, ._*) are skipped."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def to_printable(name: object) -> str:
    """The name with every unprintable character escaped, so that an error is one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def check_utf8_names(folder: object, names: list[str]) -> None:
    """DataError for the first name below `folder` that is not UTF-8: a manifest cannot hold it."""
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            path = to_printable(f"{folder}/{name}")
            raise DataError(f"{path}: the name holds bytes that are not UTF-8; rename it") from None
