"""Check `params.yaml` whole, then write to `data/plan/` what each unit reads, so that a change
reruns just what it touches.
"""

from __future__ import annotations

import sys
from pathlib import Path

from densecl import paths
from densecl.artifacts import (
    Artifact,
    DatasetPlan,
    EvaluatePlan,
    ExecutionPlan,
    ReportPlan,
    TrainPlan,
    ValidatePlan,
    write_json,
)
from densecl.config.params import TRAIN_SET, DenseContrastParams, Params, load_params
from densecl.errors import DenseclError
from densecl.evaluation.protocols import PROTOCOLS, resolve_layout, resolve_protocol


def main() -> None:
    """Write every plan file and remove what earlier params left; nothing is touched when a check
    fails.
    """
    params = load_params(paths.PARAMS)
    check_protocols(params)
    check_roots(params)
    check_network(params)
    units = resolve_plans(params)
    for unit, record in units.items():
        write_json(paths.plan_file(unit), record)
    prune_artifacts(params, set(units))


def check_protocols(params: Params) -> None:
    """Raise where params name a protocol that is no row of the table."""
    for name, protocol in params.evaluate.protocol.items():
        if protocol not in PROTOCOLS:
            raise DenseclError(
                f"{paths.PARAMS}: evaluate.protocol.{name}: found {protocol!r}, expected one of "
                f"{', '.join(PROTOCOLS)}"
            )


def check_roots(params: Params) -> None:
    """Raise where a set's folder cannot be used; built-in sets are drawn later, datasets that may
    be missing are reported.
    """
    from densecl.datasets.manifests.scan import check_root

    for name, dataset in params.datasets.items():
        if name in params.render:
            rendered_root = paths.rendered_folder(params.render[name].folder)
            if Path(dataset.root) != rendered_root:
                raise DenseclError(
                    f"{paths.PARAMS}: datasets.{name}.root: found {dataset.root}, expected "
                    f"{rendered_root}, where render.{name} draws"
                )
            continue
        try:
            check_root(Path(dataset.root), resolve_layout(params, name).layout, dataset.devkit)
        except DenseclError as error:
            if name not in params.optional_datasets:
                raise DenseclError(f"{paths.PARAMS}: datasets.{name}.root: {error}") from None
            print(f"warning: {name}: left out: {error}")
            create_placeholder(name, Path(dataset.tracked_by))


def create_placeholder(name: str, tracked_by: Path) -> None:
    """Make the path that DVC watches, where there is none: DVC fails on a dependency that is not
    there, and notices a set that comes to lie where nothing was.
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
            f"{paths.PARAMS}: datasets.{name}.tracked_by: {tracked_by} is not there and cannot be "
            f"made ({error.strerror}); "
            "DVC must find what it watches: name a path that exists"
        ) from None
    print(f"warning: {name}: made an empty {tracked_by} for DVC to watch")


def check_network(params: Params) -> None:
    """Raise where timm cannot build the model; asked last, since timm takes seconds to import."""
    from densecl.network.vit import check_model

    if params.network.checkpoint and not Path(params.network.checkpoint).is_file():
        raise DenseclError(
            f"{paths.PARAMS}: network.checkpoint: {params.network.checkpoint} is no file; "
            f"expected local safetensors weights"
        )
    try:
        rows, columns = check_model(params.network)
    except DenseclError as error:
        raise DenseclError(f"{paths.PARAMS}: {error}") from None
    dense = params.contrast.resolve_mode("dense") if "dense" in params.modes else None
    if isinstance(dense, DenseContrastParams) and dense.patches_per_image > rows * columns:
        print(
            f"warning: {paths.PARAMS}: contrast.patches_per_image: found "
            f"{dense.patches_per_image}, but "
            f"{params.network.model_name} has {rows * columns} patches: all of them are taken",
            file=sys.stderr,
        )


def resolve_plans(params: Params) -> dict[str, Artifact]:
    """The plan of every unit, with just the keys it reads."""
    units: dict[str, Artifact] = {
        name: DatasetPlan(
            name=name,
            dataset=resolve_layout(params, name),
            train_root=params.datasets[TRAIN_SET].root,
            render=params.render.get(name),
            preprocess=params.evaluate.preprocess.get(name),
            protocol=resolve_protocol(params, name),
            classes=params.evaluate.classes.get(name, ()),
            optional=name in params.optional_datasets,
        )
        for name in params.datasets
    }
    for mode in params.modes:
        units[mode] = TrainPlan(
            mode=mode,
            network=params.network,
            data=params.data,
            train=params.train,
            contrast=params.contrast.resolve_mode(mode),
        )
    units["validate"] = ValidatePlan(
        datasets=params.datasets, optional=params.optional_datasets, values=params.validate_
    )
    units["execution"] = ExecutionPlan(
        checkpoint_minutes=params.train.checkpoint_minutes, processes=params.train.processes
    )
    units["evaluate"] = EvaluatePlan(batch_size=params.evaluate.batch_size)
    units["report"] = ReportPlan(
        modes=params.modes,
        seeds=params.seeds,
        datasets=params.evaluate.datasets,
        rendered=tuple(params.render),
        protocols={name: resolve_protocol(params, name) for name in params.evaluate.datasets},
        values=params.report,
        params=params.model_dump(mode="json", by_alias=True, exclude={"retraining"}),
    )
    return units


def prune_artifacts(params: Params, units: set[str]) -> None:
    """Remove from folders that a stage depends on as a whole what is in no plan; DVC's cache still
    holds it.
    """
    runs = [(mode, seed) for mode in params.modes for seed in params.seeds]
    cells = [(name, mode, seed) for name in params.evaluate.datasets for mode, seed in runs]
    expected = {paths.plan_file(unit) for unit in units} | {
        paths.manifest_file(name) for name in params.datasets
    }
    expected |= {
        build_path(*cell)
        for cell in cells
        for build_path in (
            paths.evaluation_file,
            paths.predictions_file,
            paths.control_predictions_file,
        )
    }
    expected |= {
        paths.training_folder(*score_dataset) / name
        for score_dataset in runs
        for name in ("history.csv", "cost.json", "matches.safetensors")
    }
    for folder in (
        paths.PLANS,
        paths.MANIFESTS,
        paths.EVALUATION,
        paths.PREDICTIONS,
        paths.TRAINING,
    ):
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in expected and path.name != ".gitignore":
                path.unlink()
