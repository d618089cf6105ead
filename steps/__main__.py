"""`python -m steps STAGE ...`: the stages of `dvc.yaml`, `scan`, `compare`, `export` and `pack`.
Only the chosen stage is imported.
"""

import argparse
import importlib
from typing import Any

from densecl import paths
from densecl.artifacts import ReportPlan, read_json
from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DenseclError
from densecl.runtime import cli

STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "plan": ("check params.yaml and write what each unit reads", ()),
    "render": ("draw built-in images", ("name",)),
    "prepare": ("write the manifest of a dataset", ("dataset",)),
    "scan": ("look at the images of a dataset of shards in a store, for prepare", ("dataset",)),
    "prepare-transfer": ("list the images, masks and boxes of an entry of transfer", ("name",)),
    "validate": ("check all manifests; stop on critical failures", ()),
    "train": ("train one model", ("mode", "seed")),
    "evaluate": ("evaluate one model on all datasets", ("mode", "seed")),
    "evaluate-model": ("evaluate a model of evaluate.models on all datasets", ("name",)),
    "cost": ("measure what a training step of each mode costs", ()),
    "report": ("compare the modes", ()),
    "compare": (
        "compare two experiments: git revisions, DVC experiments, workspace or report folders",
        ("a", "b", "--fail-if-worse", "--margin", "--output"),
    ),
    "export": (
        "write a trained model to exports/: with its heads and a torch.export program, or in the "
        "format of another tool; with --backbone what detection frameworks need of it",
        ("mode", "seed", "--format", "--backbone"),
    ),
    "pack": ("write the images of a dataset as tars of webdataset", ("dataset", "folder")),
    "trial": ("train and score one trial of a sweep", ("sweep", "mode", "index")),
    "params": ("write docs/params.md, every key of params.yaml, from the schema", ()),
}

MODEL_STAGES = ("train", "evaluate")
# Where params name what these stages are called with.
SECTIONS = {
    "render": "render",
    "prepare": "datasets",
    "scan": "datasets",
    "prepare-transfer": "transfer",
    "evaluate-model": "evaluate.models",
}

OPTIONS: dict[str, dict[str, Any]] = {
    "seed": {"type": int},
    "index": {"type": int},
    "--fail-if-worse": {
        "action": "store_true",
        "help": "status 1 if B is worse, 2 if the two are not comparable",
    },
    "--margin": {
        "type": float,
        "help": "with --fail-if-worse: on every dataset a larger fall in top-1 must be ruled out "
        "(such as 0.01); without it, B must not be significantly worse",
    },
    "--format": {
        "choices": ("timm", "torch", "onnx", "hf"),
        "default": "torch",
        "help": "timm: a folder for timm.create_model; torch (default); onnx; hf: a folder for "
        "Hugging Face with a model card",
    },
    "--backbone": {"action": "store_true"},
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
    return cli.run_command(lambda: run_stage(**args))


def run_stage(stage: str, **arguments: Any) -> None:
    """Run a stage; DenseclError for a model or an entry that the plan does not name."""
    if (stage in MODEL_STAGES or stage in SECTIONS) and paths.plan_file("report").exists():
        plan = read_json(ReportPlan, paths.plan_file("report"))
        check = check_model if stage in MODEL_STAGES else check_entry
        check(plan, stage, *arguments.values())
    importlib.import_module(f"steps.{stage.replace('-', '_')}").main(**arguments)


def check_model(plan: ReportPlan, stage: str, mode: str, seed: int) -> None:
    """Raise DenseclError if params name no such mode or seed. Champion and anchor need none."""
    if mode not in paths.REGISTERED and (mode not in plan.modes or seed not in plan.seeds):
        modes, seeds = ", ".join(plan.modes), ", ".join(map(str, plan.seeds))
        raise DenseclError(
            f"{stage} {mode} {seed}: found no such model in the plan, expected a mode of {modes} "
            f"and a seed of {seeds}; name it in {paths.PARAMS}, then run `python -m steps plan`"
        )


def check_entry(plan: ReportPlan, stage: str, name: str) -> None:
    """Raise DenseclError if the section of params that a stage reads has no such entry."""
    entries = plan.params
    for key in SECTIONS[stage].split("."):
        entries = entries.get(key, {})
    if name not in entries:
        names = ", ".join(map(str, entries)) or "no name at all"
        raise DenseclError(
            f"{stage} {to_printable(name)}: found no such entry of {SECTIONS[stage]} in the plan, "
            f"expected {names}; name it in {paths.PARAMS}, then run `python -m steps plan`"
        )


if __name__ == "__main__":
    cli.setup_process(stage=True)
    cli.exit_immediately(main())
