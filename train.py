"""Train one model outside the pipeline: `python train.py --cl-mode dense --experiment-name my_run`.

The flags and defaults are the method's own (its usage table); data sets come from --params. What is
written lies in runs/<experiment-name>/: model/ (safetensors, config.json), training/ (history.csv,
cost.json).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import TrainPlan
from densecl.config.params import (
    MODES,
    TRAIN_SET,
    GlobalContrastParams,
    Params,
    load_params,
    parse_params,
)
from densecl.errors import DenseclError
from densecl.runtime import cli

# flag -> the key of params.yaml it sets
TRAIN_FLAGS = (
    "batch_size",
    "epochs",
    "learning_rate",
    "warmup_epochs",
    "grad_clip",
    "checkpoint_minutes",
    "steps_per_epoch",
)
CONTRAST_FLAGS = (
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
)


def build_parser() -> argparse.ArgumentParser:
    """The method's command line, flag for flag."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cl-mode", default="dense", choices=MODES, help="training mode (default: dense)")
    add(
        "--model-name",
        default="vit_tiny_patch16_224",
        help="any timm VisionTransformer or Eva (default: %(default)s)",
    )
    add(
        "--model-args",
        type=json.loads,
        default={},
        help="JSON for timm.create_model, e.g. '{\"img_size\": 64}'",
    )
    add("--pretrained", action="store_true", help="start from timm's weights for the model")
    add("--checkpoint", help="start from a local .safetensors state dict")
    add("--batch-size", type=int, default=256, help="training batch size (default: 256)")
    add("--epochs", type=int, default=100, help="passes over the training set (default: 100)")
    add(
        "--lambda-weight",
        type=float,
        default=0.5,
        help="weight of the contrastive loss, in [0, 1] (default: 0.5)",
    )
    add(
        "--contrastive-weight-adaptive",
        action="store_true",
        help="raise the weight from 0 to --lambda-weight",
    )
    add(
        "--queue-size",
        type=int,
        default=65536,
        help="entries of the memory of negatives (default: 65536)",
    )
    add("--temperature", type=float, default=0.2, help="of InfoNCE (default: 0.2)")
    add(
        "--learnable-temp", action="store_true", help="learn the temperature, from --temperature on"
    )
    add(
        "--sampling-strategy",
        default="random",
        help="which patches: random, diverse or hardest (default: random)",
    )
    add("--dense-dim", type=int, default=128, help="projection dimension (default: 128)")
    add(
        "--correspondence-features",
        default="dense",
        help="matched on: dense, backbone or geometric (default: dense)",
    )
    add(
        "--correspondence-filter",
        default="none",
        help="matches that count: none (all), mutual, threshold (default: none)",
    )
    add(
        "--patches-per-image",
        type=int,
        default=50,
        help="sampled patches of an image (default: 50)",
    )
    add(
        "--memory-unit",
        default="patch",
        help="stored per key: patch, or image (pooled) (default: patch)",
    )
    add(
        "--negatives",
        default="all",
        help="entries that are negatives: all or other_class (default: all)",
    )
    add(
        "--key-encoder",
        default="shared",
        help="keys come from: shared or momentum (default: shared)",
    )
    add("--symmetric", action="store_true", help="score view 2 against view 1 as well")
    add("--learning-rate", type=float, default=1e-5, help="peak learning rate (default: 1e-05)")
    add("--warmup-epochs", type=float, default=5, help="learning rate warm-up (default: 5)")
    add("--grad-clip", type=float, default=5.0, help="largest gradient norm (default: 5.0)")
    add("--experiment-name", help="folder under runs/ (default: <mode>_<model>)")
    add("--seed", type=int, default=0, help="of everything random (default: 0)")
    add(
        "--params",
        type=Path,
        default=paths.PARAMS,
        help="file that names the data sets (default: %(default)s)",
    )
    add(
        "--resume",
        type=Path,
        metavar="PATH",
        help="go on from this checkpoint of the same training (its own are found without it)",
    )
    add(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        help="between checkpoints, beside the one an epoch (default: 10)",
    )
    add(
        "--steps-per-epoch",
        type=int,
        help="cut epochs short, to try things (default: whole epochs)",
    )
    return parser


def build_params(args: dict[str, Any]) -> Params:
    """The params file's data sets; every other value from the flags or, like the views, the
    method's default.
    """
    base = load_params(args["params"]).model_dump(mode="json", by_alias=True, exclude_unset=True)
    network = {key: args[key] for key in ("model_name", "model_args", "pretrained", "checkpoint")}
    values = base | {
        "modes": [args["cl_mode"]],
        "seeds": [args["seed"]],
        "network": network,
        "data": {},
        # The ramp has no flag: it is the default, or the whole of a shorter training.
        "contrast": {key: args[key] for key in CONTRAST_FLAGS}
        | {"ramp_epochs": min(GlobalContrastParams().ramp_epochs, max(1, args["epochs"]))},
        "train": {key: args[key] for key in TRAIN_FLAGS},
    }
    return parse_params(values, "train.py")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 trained, 2 a mistake, 75 stopped and to be gone on with (docs/failures.md)."""
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
    """The sets that are there; raises where one that must be, or the model, cannot be used, before
    anything heavy starts.
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
                print(f"warning: {name}: left out: {error}", file=sys.stderr)
                continue
            hint = f"; `dvc repro render@{name}` draws it" if name in params.render else ""
            raise DenseclError(f"datasets.{name}.root: {error}{hint}") from None
        available.append(name)

    from densecl.network.vit import check_model

    check_model(params.network)
    return tuple(available)


def load_image_set(params: Params, name: str) -> Any:
    """Usable images of a set: the pipeline's manifest where there is one, else listed now under
    runs/.
    """
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
