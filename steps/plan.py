"""Check all of `params.yaml`, then write what each unit reads to `data/plan/`, so that a change
reruns only affected stages.
"""

import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from densecl import paths
from densecl.artifacts import (
    Artifact,
    CostPlan,
    DatasetPlan,
    EvaluatePlan,
    ExecutionPlan,
    ReportPlan,
    TrainPlan,
    ValidatePlan,
    write_json,
)
from densecl.config.params import (
    TRAIN_SET,
    DenseContrastParams,
    GlobalContrastParams,
    Mode,
    Params,
    TrainParams,
    load_params,
)
from densecl.errors import DenseclError
from densecl.evaluation.imagenet_c import parse_corruption
from densecl.evaluation.protocols import FOLDER_PROTOCOL, resolve_layout, resolve_protocol

MIN_RATE_FROM_SCRATCH = 1e-4  # peak learning rate (docs/method.md, Initial weights)


def main() -> None:
    """Write every plan file and remove files of earlier params; nothing is changed if a check
    fails.
    """
    params = load_params(paths.PARAMS)
    try:
        check_roots(params)
        warn_of_corruptions(params)
        check_network(params)
        units = resolve_plans(params)
    except DenseclError as error:
        raise DenseclError(f"{paths.PARAMS}: {error}") from None
    for unit, record in units.items():
        write_json(paths.plan_file(unit), record)
    prune_artifacts(params, units)


def check_roots(params: Params) -> None:
    """Raise DenseclError if a dataset's folder cannot be used. Built-in datasets are drawn later;
    missing optional datasets are reported.
    """
    for name, dataset in params.datasets.items():
        if name in params.render:
            rendered_root = paths.rendered_folder(params.render[name].folder)
            if Path(dataset.root) != rendered_root:
                raise DenseclError(
                    f"datasets.{name}.root: found {dataset.root}, expected "
                    f"{rendered_root}, where render.{name} draws its images"
                )
        elif not is_available(params, name):
            create_placeholder(name, Path(dataset.tracked_by))


def warn_of_corruptions(params: Params) -> None:
    """Print a warning for each folder of ImageNet-C that is scored like any other folder."""
    for name, dataset in params.datasets.items():
        if parse_corruption(dataset.root) and resolve_protocol(params, name) == FOLDER_PROTOCOL:
            print(
                f"warning: {name}: {dataset.root} looks like a folder of ImageNet-C, but its "
                f"images are resized as those of any folder; evaluate.protocol.{name}: imagenet-c "
                f"scores them as they are"
            )


def is_available(params: Params, name: str) -> bool:
    """False, with a warning, for an optional dataset that cannot be used; DenseclError for a
    required one.
    """
    from densecl.datasets.manifests.listing import check_root

    dataset = resolve_layout(params, name)
    try:
        check_root(Path(dataset.root), dataset.layout, dataset.devkit)
    except DenseclError as error:
        if name in params.optional_datasets:
            print(f"warning: {name}: skipped: {error}")
            return False
        hint = f"; `dvc repro render@{name}` draws it" if name in params.render else ""
        raise DenseclError(f"datasets.{name}.root: {error}{hint}") from None
    return True


def create_placeholder(name: str, tracked_by: Path) -> None:
    """Create an empty path for DVC to watch: DVC fails on a missing dependency, and notices when
    the dataset appears.
    """
    if tracked_by.exists():
        return
    try:
        if tracked_by.suffix:
            tracked_by.parent.mkdir(parents=True, exist_ok=True)
            tracked_by.touch()
        else:
            tracked_by.mkdir(parents=True)
    except OSError as error:
        raise DenseclError(
            f"datasets.{name}.tracked_by: {tracked_by} is missing and cannot be created "
            f"({error.strerror}); DVC must find the path that it watches: name a path that exists"
        ) from None
    print(f"warning: {name}: created an empty {tracked_by} for DVC to watch")


def check_network(params: Params) -> None:
    """Raise DenseclError if timm cannot build the model or load its initial weights; called last,
    since importing timm takes seconds.
    """
    warn_of_low_rate(params)
    checkpoint = params.network.checkpoint
    if checkpoint and not Path(checkpoint).is_file():
        raise DenseclError(
            f"network.checkpoint: {checkpoint} is not a file; expected local safetensors weights"
        )
    from densecl.network.vit import check_model

    (rows, columns), reservation = check_model(params.network)
    if reservation:
        print(f"warning: {reservation}", file=sys.stderr)
    dense = params.contrast.resolve_mode("dense") if "dense" in params.modes else None
    if isinstance(dense, DenseContrastParams) and dense.patches_per_image > rows * columns:
        print(
            f"warning: contrast.patches_per_image: found {dense.patches_per_image}, but "
            f"{params.network.model_name} has {rows * columns} patches: all of them are used",
            file=sys.stderr,
        )


def warn_of_low_rate(params: Params) -> None:
    """Print a warning if random weights are trained at a rate for pretrained ones."""
    network, rate = params.network, params.train.peak_learning_rate
    if network.pretrained or network.checkpoint or rate >= MIN_RATE_FROM_SCRATCH:
        return
    print(
        f"warning: train.learning_rate: found a peak of {rate:g} and random initial weights, which "
        f"learn next to nothing below {MIN_RATE_FROM_SCRATCH:g}: set it to 0.001, or load weights "
        f"with network.pretrained or network.checkpoint",
        file=sys.stderr,
    )


def resolve_dataset_plan(params: Params, name: str) -> DatasetPlan:
    return DatasetPlan(
        name=name,
        dataset=resolve_layout(params, name),
        train_root=params.datasets[TRAIN_SET].root,
        render=params.render.get(name),
        preprocess=params.evaluate.preprocess.get(name),
        protocol=resolve_protocol(params, name),
        classes=params.evaluate.classes.get(name, ()),
        optional=name in params.optional_datasets,
    )


def resolve_train_plan(params: Params, mode: Mode) -> TrainPlan:
    return TrainPlan(
        mode=mode,
        network=params.network,
        data=params.data,
        train=params.train,
        contrast=params.contrast.resolve_mode(mode),
    )


# What shapes a step. The other keys keep their defaults in the plan of the stage cost, so that a
# change of them does not measure again.
STEP_SETTINGS = (
    "batch_size",
    "steps_per_epoch",
    "grad_accumulation",
    "layer_decay",
    "drop_path",
    "ema_decay",
    "precision",
    "compile",
    "grad_clip",
    "label_smoothing",
    "threads",
)
UNTIMED_CONTRAST = ("lambda_weight", "ramp_epochs", "temperature", "key_momentum")


def resolve_cost_plan(params: Params) -> CostPlan:
    network = params.network.model_copy(update={"pretrained": False, "checkpoint": None})
    settings = {name: getattr(params.train, name) for name in STEP_SETTINGS}
    modes = dict.fromkeys((*params.modes, "none"))
    return CostPlan(
        modes=params.modes,
        network=network,
        train=TrainParams(**settings),
        contrast={mode: _reset_untimed(params.contrast.resolve_mode(mode)) for mode in modes},
        processes=params.train.processes,
        budget=params.cost,
    )


def _reset_untimed(contrast: GlobalContrastParams | None) -> GlobalContrastParams | None:
    if contrast is None:
        return None
    fields = type(contrast).model_fields
    return contrast.model_copy(update={name: fields[name].default for name in UNTIMED_CONTRAST})


def resolve_plans(params: Params) -> dict[str, Artifact]:
    """The plan of every unit, with only the keys it reads."""
    return {
        **{name: resolve_dataset_plan(params, name) for name in params.datasets},
        **{mode: resolve_train_plan(params, mode) for mode in params.modes},
        "validate": ValidatePlan(
            datasets=params.datasets, optional=params.optional_datasets, values=params.validate_
        ),
        "cost": resolve_cost_plan(params),
        "execution": ExecutionPlan(
            checkpoint_minutes=params.train.checkpoint_minutes,
            processes=params.train.processes,
            cell_cache=params.evaluate.cell_cache,
        ),
        "evaluate": EvaluatePlan(
            batch_size=params.evaluate.batch_size,
            datasets=tuple(resolve_dataset_plan(params, name) for name in params.evaluate.datasets),
        ),
        "report": ReportPlan(
            modes=params.modes,
            seeds=params.seeds,
            datasets=params.evaluate.datasets,
            rendered=tuple(params.render),
            protocols={name: resolve_protocol(params, name) for name in params.evaluate.datasets},
            values=params.report,
            params=params.model_dump(mode="json", by_alias=True, exclude={"retraining"}),
        ),
    }


def prune_artifacts(params: Params, units: Iterable[str]) -> None:
    """Remove files that no plan names from folders that a stage depends on; DVC's cache retains
    them.
    """
    runs = list(product(params.modes, params.seeds))
    cell_files = (paths.evaluation_file, paths.predictions_file, paths.control_predictions_file)
    expected = {
        *map(paths.plan_file, units),
        *map(paths.manifest_file, params.datasets),
        *map(paths.skipped_file, params.datasets),
        *(
            build_path(name, *run)
            for build_path, name, run in product(cell_files, params.evaluate.datasets, runs)
        ),
        *(
            paths.training_folder(*run) / name
            for run in runs
            for name in ("history.csv", "training.json", "matches.safetensors")
        ),
    }
    for folder in (
        paths.PLANS,
        paths.MANIFESTS,
        paths.SKIPPED,
        paths.EVALUATION,
        paths.PREDICTIONS,
        paths.TRAINING,
    ):
        for path in sorted(folder.rglob("*"), reverse=True):
            is_file = path.is_file() or path.is_symlink()
            if is_file and path not in expected and path.name != ".gitignore":
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
