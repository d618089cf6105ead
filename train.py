"""Train one model outside the pipeline: `python train.py --cl-mode dense --experiment-name my_run`.

The flags and defaults are the method's own (its usage table); datasets come from --params. Results
are written to runs/<experiment-name>/: model/ (safetensors, config.json) and training/
(history.csv, cost.json).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from densecl import paths
from densecl.artifacts import TrainPlan
from densecl.config.params import (
    MODES,
    TRAIN_SET,
    DenseContrastParams,
    GlobalContrastParams,
    NetworkParams,
    Params,
    TrainParams,
    load_params,
    parse_params,
)
from densecl.errors import DenseclError
from densecl.runtime import cli

# Section of params.yaml -> its keys that have a flag of the same name.
FLAGS: dict[str, tuple[str, ...]] = {
    "network": ("model_name", "model_args", "pretrained", "checkpoint"),
    "contrast": (
        "lambda_weight",
        "contrastive_weight_adaptive",
        "queue_size",
        "temperature",
        "learnable_temp",
        "sampling_strategy",
        "dense_dim",
        "correspondence_features",
        "correspondence_filter",
        "patches_per_image",
        "memory_unit",
        "negatives",
        "key_encoder",
        "symmetric",
    ),
    "train": (
        "batch_size",
        "epochs",
        "learning_rate",
        "warmup_epochs",
        "grad_clip",
        "checkpoint_minutes",
        "steps_per_epoch",
    ),
}
SECTIONS: dict[str, type[BaseModel]] = {
    "network": NetworkParams,
    "contrast": DenseContrastParams,
    "train": TrainParams,
}
DEFAULT_MODEL = "vit_tiny_patch16_224"


def build_parser() -> argparse.ArgumentParser:
    """The method's command line; help texts, types and defaults are those of the params."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cl-mode", default="dense", choices=MODES, help="training mode (default: dense)")
    for section, names in FLAGS.items():
        group = parser.add_argument_group(section)
        for name in names:
            _add_flag(group, name, SECTIONS[section].model_fields[name])
    parser.set_defaults(model_name=DEFAULT_MODEL, model_args={})
    add("--experiment-name", help="folder under runs/ (default: <mode>_<model>)")
    add("--seed", type=int, default=0, help="seed of all randomness (default: 0)")
    add(
        "--params",
        type=Path,
        default=paths.PARAMS,
        help="file that names the datasets (default: %(default)s)",
    )
    add(
        "--resume",
        type=Path,
        metavar="PATH",
        help="resume from this checkpoint of the same run (its own checkpoints are found without)",
    )
    return parser


def _add_flag(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    """The flag of one key."""
    flag, text = f"--{name.replace('_', '-')}", (field.description or "").replace("%", "%%")
    if field.annotation is bool:
        group.add_argument(flag, action="store_true", help=text)
        return
    default = DEFAULT_MODEL if name == "model_name" else field.default
    suffix = "" if default in (None, {}) else f" (default: {default})"
    group.add_argument(flag, type=_find_type(field.annotation), default=default, help=text + suffix)


def _find_type(annotation: Any) -> Callable[[str], Any]:
    """What parses a value of this annotation; mappings are written as JSON."""
    if annotation in (int, float, str):
        return cast("Callable[[str], Any]", annotation)
    if get_origin(annotation) is dict:
        return json.loads
    if get_origin(annotation) is Literal:
        return str
    return _find_type(get_args(annotation)[0])  # the first of a union, or what Annotated annotates


def build_params(args: dict[str, Any]) -> Params:
    """The params file's datasets; all other values come from the flags or, like the views, are the
    method's defaults.
    """
    base = load_params(args["params"]).model_dump(mode="json", by_alias=True, exclude_unset=True)
    chosen = {section: {key: args[key] for key in names} for section, names in FLAGS.items()}
    values = base | {
        "modes": [args["cl_mode"]],
        "seeds": [args["seed"]],
        "network": chosen["network"],
        "data": {},
        # The ramp has no flag: it has its default length, or that of a shorter run.
        "contrast": chosen["contrast"]
        | {"ramp_epochs": min(GlobalContrastParams().ramp_epochs, max(1, args["epochs"]))},
        "train": chosen["train"],
    }
    return parse_params(values, "train.py")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 trained, 2 invalid input, 75 interrupted: rerun the same command to resume."""
    args = vars(build_parser().parse_args(arguments))
    return cli.run_command(lambda: run_training(args))


def run_training(args: dict[str, Any]) -> None:
    """Check everything, list the images, train."""
    name = args["experiment_name"] or f"{args['cl_mode']}_{args['model_name']}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise DenseclError(
            f"--experiment-name: found {name!r}, expected letters, digits, '.', '_' and '-'"
        )
    params = build_params(args)
    mode = params.modes[0]
    validation_names = (
        params.evaluate.datasets if params.train.validate_on is None else params.train.validate_on
    )
    validation_names = check_datasets(params, (TRAIN_SET, *validation_names))[1:]

    from densecl import distributed
    from densecl.datasets.manifests.scan import list_classes
    from densecl.evaluation.validator import build_validator
    from densecl.training.train import train

    distributed.init_process_group()
    image_sets = {
        dataset: load_image_set(params, dataset) for dataset in (TRAIN_SET, *validation_names)
    }
    plan = TrainPlan(
        mode=mode,
        network=params.network,
        data=params.data,
        train=params.train,
        contrast=params.contrast.resolve_mode(mode),
    )
    folder, classes = paths.RUNS / name, list_classes(image_sets[TRAIN_SET].root)
    train(
        plan,
        args["seed"],
        image_sets[TRAIN_SET],
        classes,
        build_validator(
            {dataset: image_sets[dataset] for dataset in validation_names},
            classes,
            plan.train.batch_size,
        ),
        folder / "model",
        folder / "training",
        args["resume"],
    )
    print(folder)


def check_datasets(params: Params, names: tuple[str, ...]) -> tuple[str, ...]:
    """The available datasets; raises DenseclError before anything heavy starts if a required one or
    the model cannot be used.
    """
    from densecl.datasets.manifests.scan import check_root
    from densecl.evaluation.protocols import resolve_layout

    available = []
    for name in names:
        dataset = params.datasets[name]
        try:
            check_root(Path(dataset.root), resolve_layout(params, name).layout, dataset.devkit)
        except DenseclError as error:
            if name in params.optional_datasets:
                print(f"warning: {name} is skipped: {error}", file=sys.stderr)
                continue
            hint = f"; `dvc repro render@{name}` draws it" if name in params.render else ""
            raise DenseclError(f"datasets.{name}.root: {error}{hint}") from None
        available.append(name)

    from densecl.network.vit import check_model

    check_model(params.network)
    return tuple(available)


def load_image_set(params: Params, name: str) -> Any:
    """Usable images of a dataset, from the pipeline's manifest or from one written to runs/ now."""
    from densecl import distributed
    from densecl.datasets.manifests.scan import list_classes, scan_dataset
    from densecl.datasets.storage.manifest import (
        check_unchanged,
        read_manifest,
        select_usable,
        write_manifest,
    )
    from densecl.datasets.storage.usable_images import ImageSet
    from densecl.evaluation.protocols import resolve_layout, resolve_protocol
    from densecl.runtime.hardware import count_workers

    dataset = params.datasets[name]
    path = paths.manifest_file(name)
    if not path.exists():
        path = paths.RUNS / "manifests" / f"{name}.parquet"
        if distributed.is_main_process():
            classes, source = (
                list_classes(Path(params.datasets[TRAIN_SET].root)),
                resolve_layout(params, name),
            )
            write_manifest(
                scan_dataset(
                    name,
                    Path(source.root),
                    source.layout,
                    classes,
                    max(1, count_workers()),
                    devkit=source.devkit,
                ),
                path,
            )
        distributed.any_rank(False)  # the others wait until it is written
    frame, root, evaluate = select_usable(read_manifest(path)), Path(dataset.root), params.evaluate
    check_unchanged(frame, root)
    return ImageSet(
        frame,
        root,
        evaluate.preprocess.get(name),
        resolve_protocol(params, name),
        evaluate.classes.get(name, ()),
    )


if __name__ == "__main__":
    cli.setup_process(stage="WORLD_SIZE" in os.environ)  # else a shell started it, and may close
    cli.exit_immediately(main())
