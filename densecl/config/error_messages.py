"""Validation errors of pydantic as messages, one line per error."""

import difflib
import reprlib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def format_errors(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One message per error: the key as written in the file, what was found, what is allowed."""
    items = error.errors(include_url=False)
    # A sequence with refused items is also reported as too short: report the items only.
    parents = {item["loc"][:-1] for item in items}
    return [
        _format_error(item, model)
        for item in items
        if item["type"] != "too_short" or item["loc"] not in parents
    ]


def _format_error(item: Any, model: type[BaseModel]) -> str:
    path = [
        ascii(part)[1:-1] if isinstance(part, str) and not part.isprintable() else str(part)
        for part in item["loc"]
    ]
    key = ".".join(path)
    found = " ".join(reprlib.repr(item["input"])[:80].split())  # never the whole of a huge value
    if item["type"] == "extra_forbidden":
        allowed = list_field_names(_find_section_model(model, path[:-1]))
        suggestions = difflib.get_close_matches(path[-1], allowed, 1)
        return (
            f"{key}: unknown key; "
            + (f"did you mean {suggestions[0]}? " if suggestions else "")
            + f"allowed: {', '.join(allowed)}"
        )
    if item["type"] == "missing":
        # The input is the section that lacks the key.
        root = item["input"].get("root") if isinstance(item["input"], dict) else None
        if path[-1] == "tracked_by" and isinstance(root, str):
            return (
                f"{key}: missing; expected the path whose content DVC watches: add tracked_by: "
                f"{root}, or a version file that you edit when the images change"
            )
        return f"{key}: missing; it has no default"
    if item["type"] == "value_error":
        # A rule over several keys states its own finding.
        reason = str(item["ctx"]["error"])
        return f"{key}: {reason}" if key else reason
    return f"{key}: found {found}; {item['msg'][0].lower()}{item['msg'][1:]}"


def list_field_names(model: type[BaseModel]) -> list[str]:
    """Names of the keys as written in the file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _find_section_model(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The model behind a key path; the names of datasets in it are skipped."""
    for part in path:
        annotation = next(
            (f.annotation for name, f in model.model_fields.items() if part == (f.alias or name)),
            None,  # the name of a dataset
        )
        model = next(
            (
                candidate
                for candidate in (annotation, *get_args(annotation))
                if isinstance(candidate, type) and issubclass(candidate, BaseModel)
            ),
            model,
        )
    return model
