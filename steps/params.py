"""Write the page of every key of params.yaml."""

from __future__ import annotations

import sys

from pydantic import BaseModel

from densecl import paths
from densecl.artifacts import write_text
from densecl.config import reference
from densecl.config.params import Params
from train import build_parser

KEYS_OF_FLAGS = {"cl_mode": "modes", "seed": "seeds"}
SECTIONS = ("network", "contrast", "train")  # whose keys the flags are named after


def main() -> None:
    write_text(paths.PARAMS_PAGE, reference.render_params_page(list_flags()))
    sys.stdout.write(f"{paths.PARAMS_PAGE}\n")


def list_flags() -> dict[str, str]:
    """Flags of train.py by the key that they set."""
    flags = {}
    for action in build_parser()._actions:
        owners = [name for name in SECTIONS if action.dest in _section(name).model_fields]
        key = KEYS_OF_FLAGS.get(action.dest) or (f"{owners[0]}.{action.dest}" if owners else "")
        if key:
            flags[key] = action.option_strings[-1]
    return flags


def _section(name: str) -> type[BaseModel]:
    section = Params.model_fields[name].annotation
    assert isinstance(section, type)  # noqa: S101 - every section is a model
    return section
