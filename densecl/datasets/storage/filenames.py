"""Rules for file names, on disk and in archives."""

from densecl.errors import DataError

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp")


def is_image_name(name: str) -> bool:
    """True for an image extension in any case; hidden files (.DS_Store, ._*) are skipped."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def to_printable(name: object) -> str:
    """Escape unprintable characters, so that an error is one line and hides nothing."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def check_utf8_names(folder: object, names: list[str]) -> None:
    """Raise DataError for the first name below `folder` that is not UTF-8, which a manifest cannot
    store.
    """
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            path = to_printable(f"{folder}/{name}")
            raise DataError(f"{path}: the name holds bytes that are not UTF-8; rename it") from None
