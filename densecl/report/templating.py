"""Templates whose values cannot become markup: autoescaped HTML, and Markdown that a pull request
shows as it is.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

from densecl.report.formatting import files_of

TEMPLATES = Path(__file__).parent / "templates"
FOLDERS = (TEMPLATES, Path(__file__).parents[1] / "compare" / "templates")


def environment(name: str) -> Any:
    """For the template of that name; `script` and `script_hash` are the one script a page's policy
    lets run.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    page = name.endswith(".html")
    made = Environment(
        loader=FileSystemLoader(FOLDERS),
        autoescape=page,  # noqa: S701 - the text for pull requests is made harmless below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=allowed if page else harmless,
    )
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals |= {"script": Markup(script), "script_hash": f"sha256-{digest}"}  # noqa: S704 - our own file
    made.filters["files"] = files_of
    return made


def allowed(value: object) -> object:
    """The value; in text, control characters, which no HTML may hold, as Python writes them."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], value)


def harmless(value: object) -> object:
    """Text that a pull request shows as it is: no markup, no link, no mention, also inside a
    table.
    """
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = re.sub(
        r"([\\`*_\[\]|~$])", r"\\\1", html.escape(re.sub(r"\s+", " ", value), quote=False)
    )
    # A word joiner, which has no width, keeps text from becoming a mention, an issue or a link.
    return re.sub(r"(?i)(?<=[@#])|(?=://)|(?<=www)(?=\.)", "\u2060", text)
