"""`python -m steps STAGE ...`: the stages of `dvc.yaml`, `compare` and `export`. Only the chosen
stage is imported.
"""

import argparse
import importlib
from typing import Any

from densecl.runtime import cli

STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "plan": ("check params.yaml and write what each unit reads", ()),
    "render": ("draw a built-in dataset", ("dataset",)),
    "prepare": ("write the manifest of a dataset", ("dataset",)),
    "validate": ("check all manifests; stop on critical failures", ()),
    "train": ("train one model", ("mode", "seed")),
    "evaluate": ("evaluate one model on all datasets", ("mode", "seed")),
    "cost": ("measure what a training step of each mode costs", ()),
    "report": ("compare the modes", ()),
    "compare": (
        "compare two experiments: git revisions, DVC experiments, workspace or report folders",
        ("a", "b", "--fail-if-worse", "--output"),
    ),
    "export": (
        "write a trained model with its heads and a torch.export program to exports/",
        ("mode", "seed"),
    ),
    "params": ("write docs/params.md, every key of params.yaml, from the schema", ()),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "seed": {"type": int},
    "--fail-if-worse": {"action": "store_true"},
    "--output": {"metavar": "FOLDER"},
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status as in `densecl.errors`."""
    parser = argparse.ArgumentParser(prog="python -m steps", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, (purpose, names) in STAGES.items():
        stage = stages.add_parser(name, help=purpose, description=purpose)
        for argument in names:
            stage.add_argument(argument, **OPTIONS.get(argument, {}))
    args = vars(parser.parse_args(arguments))
    return cli.run_command(
        lambda: importlib.import_module(f"steps.{args.pop('stage')}").main(**args)
    )


if __name__ == "__main__":
    cli.setup_process(stage=True)
    cli.exit_immediately(main())
