"""Template environments with escaping: autoescaped HTML, and Markdown without markup from
values.
"""

import base64
import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from PIL.Image import Image


def create_environment(folder: Path, markdown: bool = False) -> Environment:
    """The environment of a folder's templates, HTML or Markdown; an undefined name is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=not markdown,  # noqa: S701 - `finalize` escapes Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escape_markdown if markdown else escape_control_characters,
    )


def escape_control_characters(value: object) -> object:
    """Replace control characters, which HTML may not contain, by their Python escapes."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], value)


def escape_markdown(value: object) -> object:
    """Escape text for a pull request, also inside tables: no markup, links or mentions. Numbers and
    Markup stay unchanged.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = re.sub(
        r"([\\`*_\[\]|~$])", r"\\\1", html.escape(re.sub(r"\s+", " ", value), quote=False)
    )
    # A word joiner, which has no width, keeps text from becoming a mention, an issue or a link.
    return re.sub(r"(?i)(?<=[@#])|(?=://)|(?<=www)(?=\.)", "\u2060", text)


def encode_thumbnail(image: "Image", side: int, file_format: str, **options: Any) -> str:
    """Shrink an image in place to at most `side` px and return it as a data URI."""
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, file_format, **options)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return f"data:image/{file_format.lower()};base64,{encoded}"
