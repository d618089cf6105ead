"""Templates whose values cannot become markup: autoescaped HTML, and Markdown with its signs escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def environment(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = name.endswith(".html")
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=html,  # noqa: S701 - the text for pull requests is made harmless by _markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if html else _markdown,
    )


def _markdown(value: object) -> object:
    """Text that cannot become markup in a pull request, also inside a table; what a macro made stays as it is."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", value.replace("\n", " "))
