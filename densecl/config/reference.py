"""`docs/params.md` from the schema: every key of params.yaml with its type, default, bounds and
meaning.

A meaning is the entry of MEANINGS, if there is one, then the comment beside the field in params.py.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from densecl.config import params
from densecl.config.meanings import MEANINGS
from densecl.config.params import TRAIN_SET, DenseContrastParams, GlobalContrastParams, Params


class ParamEntry(NamedTuple):
    """One line of the page."""

    name: str  # dotted
    allowed: str
    default: str
    meaning: str


def render_params_page(flags: Mapping[str, str]) -> str:
    """Markdown; `flags` are those of train.py by the key that they set."""
    parts = [
        "# Every key of params.yaml",
        "Written by `python -m steps params` from `densecl/config/params.py`; do not edit. "
        "`<set>` is the name of a set.\n"
        "An unknown key, a wrong type, a value out of bounds or one that contradicts another is "
        "an error that names its key:\n"
        "`python -m steps plan` checks the file. A flag is that of `train.py`, which sets the key "
        "for one run. `datasets` must\n"
        f"hold {TRAIN_SET}.",
    ]
    sections: dict[str, list[ParamEntry]] = {}
    for entry in iter_entries():
        section = entry.name.split(".")[0] if "." in entry.name else ""
        sections.setdefault(section, []).append(entry)
    notes = {
        name: _build_schema()["$defs"].get(_find_model_name(field), {})
        for name, field in _build_schema()["properties"].items()
    }
    for section, section_entries in sections.items():
        if section:
            parts.append(f"## {section}")
            parts += [text] if (text := notes[section].get("description")) else []
        parts.append("\n".join(_render_table(section_entries, flags)))
    return "\n\n".join(parts) + "\n"


def iter_entries() -> Iterator[ParamEntry]:
    """Every leaf of the schema, in its order: whole sections follow the single keys."""
    leaves = list(_iter_leaves(_build_schema(), "Params", "", None))
    return iter([k for k in leaves if "." not in k.name] + [k for k in leaves if "." in k.name])


@cache
def _build_schema() -> dict[str, Any]:
    return Params.model_json_schema(by_alias=True)


def _render_table(section_entries: list[ParamEntry], flags: Mapping[str, str]) -> Iterator[str]:
    yield "| key | allowed | default | meaning | flag |"
    yield "|---|---|---|---|---|"
    for entry in section_entries:
        flag = f"`{flags[entry.name]}`" if entry.name in flags else ""
        yield (
            "| "
            + " | ".join(c.replace("|", "\\|") for c in (f"`{entry.name}`", *entry[1:], flag))
            + " |"
        )


def _iter_leaves(
    schema: Mapping[str, Any], model: str, prefix: str, section_default: Mapping[str, Any] | None
) -> Iterator[ParamEntry]:
    """Leaves below a model; `section_default` is what the model as a whole is by default, where its
    parent states that.
    """
    for name, field in schema["properties"].items():
        model_name, by_set = _find_model_name(field), "additionalProperties" in field
        if not model_name or by_set:
            allowed = "a mapping" if model_name else _describe_allowed(field)
            yield ParamEntry(
                f"{prefix}{name}",
                allowed,
                _format_default(field, name, section_default, prefix),
                describe_field(model, name),
            )
        if model_name:
            child_prefix = f"{prefix}{name}.<set>." if by_set else f"{prefix}{name}."
            yield from _iter_leaves(
                _build_schema()["$defs"][model_name],
                model_name,
                child_prefix,
                (section_default or {}).get(name, field.get("default")),
            )


def _find_model_name(field: Mapping[str, Any]) -> str:
    """The model that a field holds, itself or by set; empty where it holds none."""
    target = field.get("additionalProperties")
    ref = (target if isinstance(target, dict) else field).get("$ref", "")
    return str(ref).rpartition("/")[2]


def _describe_allowed(field: Mapping[str, Any]) -> str:
    """In words what JSON Schema says of one value."""
    if "anyOf" in field:
        return " or ".join(_describe_allowed(option) for option in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{option}`" for option in field["enum"])
    json_type = field["type"]
    if "prefixItems" in field:
        return f"[low, high], each a {_describe_allowed(field['prefixItems'][0])}"
    if json_type == "array":
        return (
            f"a "
            f"list{', not empty, of' if field.get('minItems') else ' of'} "
            f"{_describe_allowed(field['items'])}"
        )
    if json_type == "object":
        value_schema = field["additionalProperties"]
        return "a mapping" + (
            f" to {_describe_allowed(value_schema)}" if isinstance(value_schema, dict) else ""
        )
    names = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true`, `false`",
        "null": "`null`",
    }
    pattern = f" like `{field['pattern']}`" if "pattern" in field else ""
    return names[json_type] + pattern + _format_bounds(field)


def _format_bounds(field: Mapping[str, Any]) -> str:
    if {"minimum", "maximum"} <= set(field):
        return f" from {field['minimum']:g} to {field['maximum']:g}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(
        f"{',' * bool(i)} {sign} {field[name]:g}"
        for i, (name, sign) in enumerate((n, s) for n, s in signs.items() if n in field)
    )


def _format_default(
    field: Mapping[str, Any], name: str, section_default: Mapping[str, Any] | None, path: str
) -> str:
    """The default; two where it differs once the section is written without this key."""
    own_default = f"`{_format_value(field['default'])}`" if "default" in field else "**required**"
    if section_default is None or name not in section_default:
        return own_default
    whole_default = f"`{_format_value(section_default[name])}`"
    return (
        whole_default
        if whole_default == own_default
        else f"{whole_default}; {own_default} where `{path.rstrip('.')}` is given without it"
    )


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("e-0", "e-")
    if isinstance(value, list):
        return f"[{', '.join(_format_value(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def describe_field(model: str, name: str) -> str:
    """MEANINGS and the comment of a field, which a base class may hold; empty where there is
    neither.
    """
    class_names = [kind.__name__ for kind in getattr(params, model).__mro__]
    field = next(
        (n for n, info in getattr(params, model).model_fields.items() if info.alias == name), name
    )
    texts = [
        text
        for source in (MEANINGS, read_field_comments())
        if (
            text := next(
                (source[f"{k}.{field}"] for k in class_names if f"{k}.{field}" in source), ""
            )
        )
    ]
    restriction = (
        "mode dense only"
        if field in set(DenseContrastParams.model_fields) - set(GlobalContrastParams.model_fields)
        else ""
    )
    return "; ".join([*texts, restriction] if restriction else texts).replace("None:", "null:")


@cache
def read_field_comments() -> dict[str, str]:
    """The comment on the lines of each field of params.py, by class and field."""
    source = inspect.getsource(params)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    comments = {}
    for class_node in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for node in class_node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                texts = [
                    lines[n]
                    for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    if n in lines
                ]
                if texts := [text for text in texts if not text.startswith(("fmt:", "noqa"))]:
                    comments[f"{class_node.name}.{node.target.id}"] = " ".join(texts)
    return comments
