"""`python -m pipelines COMMAND ...`: the comparison and the retraining as tracked pipelines, and what belongs to them."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from densecl import command

# Command -> what it is for, the function that does it, its arguments.
COMMANDS: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "comparison": ("the whole comparison, as `dvc repro`, a tracked step a stage", "driver.compare", {}),
    "retraining": ("train a candidate on what changed, and promote it if it beats the champion", "driver.retrain", {
        "--dry-run": {"action": "store_true", "help": "print what changed, and stop"},
        "--force": {"action": "store_true", "help": "judge a candidate also where nothing changed"},
    }),
    "replay": ("continue the newest run where it stopped", "driver.replay", {}),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake, 75 stopped and to be gone on with (docs/failures.md)."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (purpose, _, options) in COMMANDS.items():
        each = commands.add_parser(name, help=purpose, description=purpose)
        for option, how in options.items():
            each.add_argument(option, **how)
    given = vars(parser.parse_args(arguments))
    module, _, function = COMMANDS[given.pop("command")][1].partition(".")
    return command.status(lambda: getattr(importlib.import_module(f"pipelines.{module}"), function)(**given))


if __name__ == "__main__":
    command.leave(main())
