"""YAML 1.2, as DVC reads it: 1e-5 is a number, 032 is 32, `off` and 1:30 are text, and a duplicate
key is an error.

What DVC would read otherwise is refused. DVC takes ruamel's parser in C where that is installed,
which ignores `%YAML 1.1` (where 032 is 26) and a lone `!`; here it is the parser in Python, which
ends deep brackets with an error, not with the process.
"""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, Event

VERSION = (1, 2)


def load_yaml(text: str) -> Any:
    """The value of a YAML document; raises ValueError, with the line if it is known.

    Aliases are refused too: ten lines of them can expand to a billion values when validated.
    """
    try:
        reasons = [reason for event in _create_yaml().parse(text) if (reason := _refuse(event))]
        value = None if reasons else _create_yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise ValueError(f"{error.problem}{f' in line {mark.line + 1}' if mark else ''}") from None
    # Found by fuzzing: RecursionError of deep brackets, ValueError of a date of month 13,
    # AssertionError of %YAML 1.0.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from None
    if reasons:
        raise ValueError(reasons[0])
    return value


def _create_yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _refuse(event: Event) -> str:
    """Why a document with this event is refused; "" if it need not be."""
    line = event.start_mark.line + 1
    if isinstance(event, AliasEvent):
        return f"found alias *{event.anchor} in line {line}, expected plain values; write it out"
    if isinstance(event, DocumentStartEvent) and event.version not in (None, VERSION):
        version = ".".join(map(str, event.version))
        return f"found %YAML {version}, expected YAML 1.2, as DVC reads it; remove that line"
    if tag := getattr(event, "tag", None):
        return f"found tag {tag} in line {line}, expected plain values; write it without the tag"
    return ""
