"""Train one model outside the pipeline: `python train.py --cl-mode dense --experiment-name my_run`.

The flags and defaults are the method's own (its usage table); datasets come from --params. Results
are written to runs/<experiment-name>/: model/ (safetensors, config.json) and training/
(history.csv, training.json).
"""

import argparse
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from densecl import paths
from densecl.artifacts import DatasetPlan, TrainPlan
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
from densecl.config.yaml_loader import load_yaml
from densecl.datasets.storage.usable_images import ImageSet
from densecl.errors import DenseclError
from densecl.runtime import cli
from densecl.runtime.locks import hold_lock
from steps.plan import check_network, is_available
from steps.unit_plans import resolve_dataset_plan, resolve_train_plan

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
        "threads",
        "parallel",
        "checkpoint_activations",
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
            field = SECTIONS[section].model_fields[name]
            default = DEFAULT_MODEL if name == "model_name" else field.default
            suffix = f" (default: {default})" if default else ""
            parsers: dict[Any, Any] = {int: int, float: float, str: str, str | None: str}
            parse = parsers.get(field.annotation, parse_yaml)
            options: dict[str, Any] = {"type": parse, "default": default}
            if field.annotation is bool:
                options = {"action": "store_true"}
            group.add_argument(
                f"--{name.replace('_', '-')}",
                help=(field.description or "").replace("%", "%%") + suffix,
                **options,
            )
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


def parse_yaml(text: str) -> Any:
    """The value of a flag, written as in params.yaml."""
    try:
        return load_yaml(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a value as in params.yaml, e.g. {{depth: 4}}: {error}"
        ) from None


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
        "variants": {},
        "retraining": {},
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
    dataset_plans = {
        dataset: resolve_dataset_plan(params, dataset)
        for dataset in dict.fromkeys((TRAIN_SET, *list_validation_sets(params)))
        if is_available(params, dataset)
    }
    check_network(params)

    from densecl import distributed

    distributed.init_process_group()
    folder = paths.RUNS / name
    with lock_run_folder(folder):
        train_into(folder, params, args, dataset_plans)
    print(folder)


def list_validation_sets(params: Params) -> tuple[str, ...]:
    """The datasets on which accuracy is logged after each epoch."""
    names = params.train.validate_on
    return tuple(params.evaluate.datasets if names is None else names)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Hold `folder`, with all processes of a training: two of them would mix their files."""
    from densecl import distributed

    if not distributed.is_main_process():
        yield
        return
    with hold_lock(folder / "lock"):
        yield


def train_into(
    folder: Path, params: Params, args: dict[str, Any], dataset_plans: dict[str, DatasetPlan]
) -> None:
    """List the images of all sets, then write `folder`/model and `folder`/training."""
    from densecl import distributed
    from densecl.datasets.storage.manifest import read_classes
    from densecl.evaluation.validator import build_validator
    from densecl.training.train import train

    scratch = folder / "manifests.partial"  # until it is known that nothing else is replaced
    image_sets = {dataset: load_image_set(plan, scratch) for dataset, plan in dataset_plans.items()}
    images = image_sets[TRAIN_SET]
    plan = resolve_train_plan(params, params.modes[0])
    classes = read_classes(find_manifest(TRAIN_SET, scratch))
    check_same_training(folder / "model", plan, args["seed"], images)
    if distributed.is_main_process() and scratch.exists():
        shutil.rmtree(folder / "manifests", ignore_errors=True)
        scratch.rename(folder / "manifests")
    train(
        plan,
        args["seed"],
        images,
        classes,
        build_validator(
            {name: image_sets[name] for name in list_validation_sets(params) if name in image_sets},
            classes,
            plan.train.batch_size,
            keep_images=plan.data.cache == "ram",
        ),
        folder / "model",
        folder / "training",
        args["resume"],
    )


def check_same_training(model: Path, plan: TrainPlan, seed: int, images: ImageSet) -> None:
    """DenseclError, on every rank, if a model of another training would be replaced."""
    from densecl import distributed

    is_main = distributed.is_main_process()
    problem = find_other_training(model, plan, seed, images) if is_main else ""
    if distributed.any_rank(bool(problem)):
        raise DenseclError(problem or f"{model}: refused by the first process")


def find_other_training(model: Path, plan: TrainPlan, seed: int, images: ImageSet) -> str:
    """What speaks against writing the model; "" if there is none, or one of this training."""
    from densecl.training.fingerprint import compute_fingerprint
    from densecl.training.train import hash_images

    config = model / "config.json"
    if not config.exists():
        return ""
    expected, found = compute_fingerprint(plan, seed, hash_images(plan.data, images)), None
    with suppress(ValueError, LookupError, TypeError):
        found = json.loads(config.read_text(encoding="utf-8"))["fingerprint"]
    if found == expected:
        return ""
    return (
        f"{model}: found a model of other params, images or code (fingerprint {found}), expected "
        f"none or that of this training ({expected}); name another --experiment-name, or move the "
        "folder away"
    )


def find_manifest(dataset: str, manifests: Path) -> Path:
    """The pipeline's manifest of a dataset, or the one in the folder `manifests`."""
    path = paths.manifest_file(dataset)
    return path if path.exists() else manifests / path.name


def load_image_set(plan: DatasetPlan, manifests: Path) -> ImageSet:
    """Usable images of a dataset, from the pipeline's manifest or from one written to the folder
    `manifests` now.
    """
    from densecl import distributed
    from densecl.datasets.storage.manifest import (
        check_unchanged,
        read_manifest,
        select_usable,
        write_manifest,
    )
    from densecl.datasets.storage.remote_root import locate_root
    from steps.prepare import describe_scan, scan_images

    path = find_manifest(plan.name, manifests)
    if path.parent == manifests:
        if distributed.is_main_process():
            frame, listing = scan_images(plan)
            write_manifest(frame, path)
            print(f"{plan.name}: {describe_scan(frame, listing, plan.dataset.root)}")
        distributed.any_rank(False)  # the others wait until it is written
    frame, root = read_manifest(path), locate_root(plan.dataset)
    usable = select_usable(frame)
    if distributed.is_main_process() and len(usable) < len(frame):
        print(f"{plan.name}: {len(frame) - len(usable)} of {len(frame)} images cannot be used")
    check_unchanged(usable, root)
    return ImageSet(usable, root, plan.preprocess, plan.protocol, plan.classes)


if __name__ == "__main__":
    cli.setup_process(stage="WORLD_SIZE" in os.environ)  # else a shell started it, and may close
    cli.exit_immediately(main())
