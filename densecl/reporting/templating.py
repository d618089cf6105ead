"""Templates whose values cannot become markup: autoescaped HTML, and Markdown with its signs escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from densecl.reporting.numbers import files_of

TEMPLATES = Path(__file__).parent / "templates"


def environment(name: str) -> Any:
    """For the template of that name; `script` and `script_hash` are the one script a page's policy lets run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    html = name.endswith(".html")
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,  # noqa: S701 - the text for pull requests is made harmless by _markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if html else _markdown,
    )
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals |= {"script": Markup(script), "script_hash": f"sha256-{digest}"}  # noqa: S704 - our own file
    made.filters["files"] = files_of
    return made


def _markdown(value: object) -> object:
    """Text that cannot become markup in a pull request, also inside a table; what a macro made stays as it is."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", value.replace("\n", " "))
