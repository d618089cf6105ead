"""Display names of datasets."""

from collections.abc import Mapping
from typing import Any


def get_title(params: Mapping[str, Any], dataset: str) -> str:
    """`datasets.<dataset>.title` of params as a mapping; the name itself where there is none.

    On one printable line: a title is shown in terminals and messages too.
    """
    settings = params.get("datasets") or {}
    entry = settings.get(dataset) if isinstance(settings, Mapping) else None
    title = entry.get("title") if isinstance(entry, Mapping) else None
    return show_title(title, dataset)


def show_title(title: object, dataset: str) -> str:
    """As `get_title`, of the title itself."""
    if not isinstance(title, str):
        return dataset
    return " ".join("".join(c if c.isprintable() else " " for c in title).split()) or dataset
