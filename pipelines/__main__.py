"""`python -m pipelines COMMAND ...`: the comparison and the retraining as tracked pipelines, and
their tools.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from densecl import paths
from densecl.config.cluster_params import EngineName
from densecl.runtime import cli
from densecl.runtime.hardware import count_cores


def parse_jobs(text: str) -> int:
    """The value of `--jobs`; more than the cores are allowed."""
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"found {text}, expected a number of stages, 1 or more")
    if int(text) > (cores := count_cores()):
        print(f"warning: --jobs {text}: found {cores} cores, which they share", file=sys.stderr)
    return int(text)


Options = Mapping[str, Mapping[str, Any]]
JOBS_OPTION: Options = {
    "--jobs": {"type": parse_jobs, "help": "stages at a time; by default one per core"},
    "--engine": {
        "choices": get_args(EngineName),
        "help": "where trainings and evaluations run; cluster.engine of params.yaml by default",
    },
}
PLAN_OPTION: Options = {
    "--dry-run": {"action": "store_true", "help": "print what would run and where, and stop"},
}
REASON_OPTIONS: Options = {
    "--why": {"required": True, "help": "written on the version"},
    "--who": {"help": "your login by default"},
}
SCHEDULE_OPTIONS: Options = {
    "--cron": {
        "required": True,
        "help": "five fields, such as '0 3 * * 1'; six with seconds first",
    },
    "--timezone": {"help": "such as Europe/Paris; the machine's by default"},
}
# Command -> its purpose, function and arguments.
COMMANDS: dict[str, tuple[str, str, Options]] = {
    "run": (
        "the whole comparison, as `dvc repro`, with stages side by side",
        "engines.run.main",
        {**JOBS_OPTION, **PLAN_OPTION},
    ),
    "comparison": (
        "the whole comparison, as `dvc repro`, with one tracked step per stage",
        "runner.run_comparison",
        {**JOBS_OPTION, **PLAN_OPTION},
    ),
    "retraining": (
        "train a candidate on what changed, and promote it if it beats the champion",
        "runner.run_retraining",
        {
            "--dry-run": {"action": "store_true", "help": "print what changed, and stop"},
            "--force": {
                "action": "store_true",
                "help": "judge a candidate even if nothing changed",
            },
            **JOBS_OPTION,
        },
    ),
    "sweep": (
        "tune each mode by the same number of short trainings on a part of the training images",
        "studies.sweep.run.main",
        {
            "--budget": {
                "type": int,
                "required": True,
                "metavar": "N",
                "help": "trials of each mode; the first has the values of params.yaml",
            },
            "--name": {"default": "default", "help": "of the sweep and of presets/tuned-NAME.yaml"},
            "--jobs": {
                "type": parse_jobs,
                "help": "trials at a time on this machine; by default one per core",
            },
            "--engine": {
                "choices": get_args(EngineName),
                "help": "where trials run; cluster.engine of params.yaml by default",
            },
            "--take-over": {
                "action": "store_true",
                "help": "also run trials that another machine began and has not finished",
            },
            **PLAN_OPTION,
        },
    ),
    "ablate": (
        "add one-factor variants to params.yaml, run the comparison, and show what each changed",
        "studies.ablation.run.main",
        {
            "file": {
                "type": Path,
                "nargs": "?",
                "default": paths.ABLATION_FILE,
                "metavar": "FILE",
                "help": f"variants by factor; {paths.ABLATION_FILE} by default",
            },
            **JOBS_OPTION,
            **PLAN_OPTION,
        },
    ),
    "study": (
        "a whole study: tuning, seeds with the tuned values, ablations, and a write-up",
        "studies.study.run.main",
        {
            "file": {"type": Path, "metavar": "FILE", "help": "as those in studies/"},
            **JOBS_OPTION,
            "--dry-run": {
                "action": "store_true",
                "help": "print how many trainings it takes, and stop",
            },
            "--images-per-second": {
                "type": float,
                "metavar": "N",
                "help": "measured throughput of one training; the hours follow from it",
            },
        },
    ),
    "replay": ("resume the newest run", "runner.resume_run", JOBS_OPTION),
    "worker": (
        "bring stages up to date for another machine, and push what they leave",
        "engines.worker.main",
        {
            "stages": {"nargs": "+", "metavar": "STAGE"},
            "--commit": {
                "metavar": "SHA",
                "help": "work in a clone of this commit in cluster.scratch; by default in this "
                "folder",
            },
            "--lock": {
                "type": Path,
                "metavar": "FILE",
                "help": "the dvc.lock of that clone; this folder's by default",
            },
        },
    ),
    "status": ("jobs on other machines", "engines.status.print_status", {}),
    "cancel": (
        "end jobs on other machines; all of this project by default",
        "engines.status.cancel_jobs",
        {"stages": {"nargs": "*", "metavar": "STAGE"}},
    ),
    "schedule run": (
        "retrain at the times of a cron line, until stopped",
        "schedule.scheduler.run_schedule",
        SCHEDULE_OPTIONS,
    ),
    "promote": (
        "make a version the champion and the anchor of later candidates",
        "registry.commands.promote",
        {"version": {}, **REASON_OPTIONS},
    ),
    "rollback": (
        "make the champion before the current one the champion again",
        "registry.commands.rollback",
        REASON_OPTIONS,
    ),
    "lineage": (
        "print the chain from images to report that X belongs to",
        "lineage.resolve.main",
        {
            "x": {
                "metavar": "X",
                "help": "path of a model, md5, id of an MLflow or ZenML "
                "run, version, champion, anchor or candidate",
            },
        },
    ),
    "ui": (
        "MLflow, and ZenML's dashboard where it is installed, on 127.0.0.1",
        "dashboards.main",
        {},
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Exit status as in `densecl.errors`."""
    arguments = vars(_build_parser().parse_args(argv))
    module, _, function = arguments.pop("target").rpartition(".")
    return cli.run_command(
        lambda: getattr(importlib.import_module(f"pipelines.{module}"), function)(**arguments)
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    groups = {"": parser.add_subparsers(required=True, metavar="COMMAND")}
    for name, (purpose, target, options) in COMMANDS.items():
        group, _, command = name.rpartition(" ")
        if group not in groups:
            outer = groups[""].add_parser(group, help=f"{group} run")
            groups[group] = outer.add_subparsers(required=True, metavar="COMMAND")
        subparser = groups[group].add_parser(command, help=purpose, description=purpose)
        subparser.set_defaults(target=target)
        for flag, settings in options.items():
            subparser.add_argument(flag, **settings)
    return parser


if __name__ == "__main__":
    cli.exit_immediately(main())
