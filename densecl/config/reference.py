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
from densecl.config.params import TRAIN_SET, DenseContrast, GlobalContrast, Params


class Key(NamedTuple):
    """One line of the page."""

    name: str  # dotted
    allowed: str
    default: str
    meaning: str


def page(flags: Mapping[str, str]) -> str:
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
    sections: dict[str, list[Key]] = {}
    for key in entries():
        section = key.name.split(".")[0] if "." in key.name else ""
        sections.setdefault(section, []).append(key)
    notes = {
        name: _schema()["$defs"].get(_model(field), {})
        for name, field in _schema()["properties"].items()
    }
    for section, several in sections.items():
        if section:
            parts.append(f"## {section}")
            parts += [text] if (text := notes[section].get("description")) else []
        parts.append("\n".join(_table(several, flags)))
    return "\n\n".join(parts) + "\n"


def entries() -> Iterator[Key]:
    """Every leaf of the schema, in its order: whole sections follow the single keys."""
    found = list(_walk(_schema(), "Params", "", None))
    return iter([k for k in found if "." not in k.name] + [k for k in found if "." in k.name])


@cache
def _schema() -> dict[str, Any]:
    return Params.model_json_schema(by_alias=True)


def _table(several: list[Key], flags: Mapping[str, str]) -> Iterator[str]:
    yield "| key | allowed | default | meaning | flag |"
    yield "|---|---|---|---|---|"
    for key in several:
        flag = f"`{flags[key.name]}`" if key.name in flags else ""
        yield (
            "| "
            + " | ".join(c.replace("|", "\\|") for c in (f"`{key.name}`", *key[1:], flag))
            + " |"
        )


def _walk(
    schema: Mapping[str, Any], model: str, prefix: str, whole: Mapping[str, Any] | None
) -> Iterator[Key]:
    """Leaves below a model; `whole` is what the model as a whole is by default, where its parent
    states that.
    """
    for name, field in schema["properties"].items():
        inner, by_set = _model(field), "additionalProperties" in field
        if not inner or by_set:
            allowed = "a mapping" if inner else _allowed(field)
            yield Key(
                f"{prefix}{name}",
                allowed,
                _default(field, name, whole, prefix),
                meaning(model, name),
            )
        if inner:
            below = f"{prefix}{name}.<set>." if by_set else f"{prefix}{name}."
            yield from _walk(
                _schema()["$defs"][inner],
                inner,
                below,
                (whole or {}).get(name, field.get("default")),
            )


def _model(field: Mapping[str, Any]) -> str:
    """The model that a field holds, itself or by set; empty where it holds none."""
    target = field.get("additionalProperties")
    ref = (target if isinstance(target, dict) else field).get("$ref", "")
    return str(ref).rpartition("/")[2]


def _allowed(field: Mapping[str, Any]) -> str:
    """In words what JSON Schema says of one value."""
    if "anyOf" in field:
        return " or ".join(_allowed(each) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    kind = field["type"]
    if "prefixItems" in field:
        return f"[low, high], each a {_allowed(field['prefixItems'][0])}"
    if kind == "array":
        return (
            f"a "
            f"list{', not empty, of' if field.get('minItems') else ' of'} "
            f"{_allowed(field['items'])}"
        )
    if kind == "object":
        inner = field["additionalProperties"]
        return "a mapping" + (f" to {_allowed(inner)}" if isinstance(inner, dict) else "")
    names = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true`, `false`",
        "null": "`null`",
    }
    pattern = f" like `{field['pattern']}`" if "pattern" in field else ""
    return names[kind] + pattern + _bounds(field)


def _bounds(field: Mapping[str, Any]) -> str:
    if {"minimum", "maximum"} <= set(field):
        return f" from {field['minimum']:g} to {field['maximum']:g}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(
        f"{',' * bool(i)} {sign} {field[name]:g}"
        for i, (name, sign) in enumerate((n, s) for n, s in signs.items() if n in field)
    )


def _default(
    field: Mapping[str, Any], name: str, whole: Mapping[str, Any] | None, path: str
) -> str:
    """The default; two where it differs once the section is written without this key."""
    own = f"`{_value(field['default'])}`" if "default" in field else "**required**"
    if whole is None or name not in whole:
        return own
    first = f"`{_value(whole[name])}`"
    return (
        first if first == own else f"{first}; {own} where `{path.rstrip('.')}` is given without it"
    )


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("e-0", "e-")
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def meaning(model: str, name: str) -> str:
    """MEANINGS and the comment of a field, which a base class may hold; empty where there is
    neither.
    """
    kinds = [kind.__name__ for kind in getattr(params, model).__mro__]
    field = next(
        (n for n, info in getattr(params, model).model_fields.items() if info.alias == name), name
    )
    said = [
        found
        for source in (MEANINGS, comments())
        if (found := next((source[f"{k}.{field}"] for k in kinds if f"{k}.{field}" in source), ""))
    ]
    only = (
        "mode dense only"
        if field in set(DenseContrast.model_fields) - set(GlobalContrast.model_fields)
        else ""
    )
    return "; ".join([*said, only] if only else said).replace("None:", "null:")


@cache
def comments() -> dict[str, str]:
    """The comment on the lines of each field of params.py, by class and field."""
    source = inspect.getsource(params)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for kind in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for node in kind.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                said = [
                    lines[n]
                    for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    if n in lines
                ]
                if said := [text for text in said if not text.startswith(("fmt:", "noqa"))]:
                    found[f"{kind.name}.{node.target.id}"] = " ".join(said)
    return found
