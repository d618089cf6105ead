"""Write docs/params.md, the page of every key of params.yaml."""

from __future__ import annotations

import sys

from densecl import paths
from densecl.artifacts import write_text
from densecl.config import reference
from train import FLAGS, build_parser


def main() -> None:
    write_text(paths.PARAMS_PAGE, reference.render_params_page(list_flags()))
    sys.stdout.write(f"{paths.PARAMS_PAGE}\n")


def list_flags() -> dict[str, str]:
    """Flags of train.py, by the key that they set."""
    keys = {"cl_mode": "modes", "seed": "seeds"}
    keys |= {name: f"{section}.{name}" for section, names in FLAGS.items() for name in names}
    return {
        keys[action.dest]: action.option_strings[-1]
        for action in build_parser()._actions
        if action.dest in keys
    }
