"""YAML 1.2, as DVC reads it: 1e-5 is a number, `off` is text, a duplicate key is an error."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent


def load_yaml(text: str) -> Any:
    """The value of a YAML document; raises ValueError, with the line if it is known.

    Aliases are refused: ten lines of them can expand to a billion values when validated.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        aliases = [event for event in yaml.parse(text) if isinstance(event, AliasEvent)]
        value = None if aliases else yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise ValueError(f"{error.problem}{f' in line {mark.line + 1}' if mark else ''}") from None
    # Found by fuzzing: RecursionError of deep brackets, ValueError of a date of month 13,
    # AttributeError of an empty !!timestamp.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from None
    if aliases:
        raise ValueError(
            f"found alias *{aliases[0].anchor} in line {aliases[0].start_mark.line + 1}, expected "
            "plain values; write the value out"
        )
    return value
