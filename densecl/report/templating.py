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

from densecl.report.formatting import list_source_files

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE_FOLDERS = (TEMPLATES, Path(__file__).parents[1] / "compare" / "templates")


def create_environment(name: str) -> Any:
    """For the template of that name; `script` and `script_hash` are the one script a page's policy
    lets run.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    is_html = name.endswith(".html")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDERS),
        autoescape=is_html,  # noqa: S701 - `finalize` escapes Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escape_control_characters if is_html else escape_markdown,
    )
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": Markup(script), "script_hash": f"sha256-{digest}"}  # noqa: S704 - our own
    environment.filters["files"] = list_source_files
    return environment


def escape_control_characters(value: object) -> object:
    """The value; in text, control characters, which no HTML may hold, as Python writes them."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], value)


def escape_markdown(value: object) -> object:
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
