"""Check `params.yaml` whole, then write to `data/plan/` what each unit reads, so that a change
reruns just what it touches.
"""

from __future__ import annotations

import sys
from pathlib import Path

from densecl import paths
from densecl.artifacts import (
    EvaluatePlan,
    Execution,
    Record,
    ReportPlan,
    SetPlan,
    TrainPlan,
    ValidatePlan,
    write_json,
)
from densecl.config.params import TRAIN_SET, DenseContrast, Params, load_params
from densecl.errors import DenseclError
from densecl.evaluation.protocols import PROTOCOLS, protocol_of, with_layout


def main() -> None:
    """Write every plan file and remove what earlier params left; nothing is touched when a check
    fails.
    """
    params = load_params(paths.PARAMS)
    check_protocols(params)
    check_roots(params)
    check_model(params)
    units = resolve(params)
    for unit, record in units.items():
        write_json(paths.plan(unit), record)
    prune(params, set(units))


def check_protocols(params: Params) -> None:
    """Raise where params name a protocol that is no row of the table."""
    for name, protocol in params.evaluate.protocol.items():
        if protocol not in PROTOCOLS:
            raise DenseclError(
                f"{paths.PARAMS}: evaluate.protocol.{name}: found {protocol!r}, expected one of "
                f"{', '.join(PROTOCOLS)}"
            )


def check_roots(params: Params) -> None:
    """Raise where a set's folder cannot be used; built-in sets are drawn later, sets that may be
    missing are told of.
    """
    from densecl.datasets.manifests.scan import check_root

    for name, dataset in params.datasets.items():
        if name in params.render:
            drawn = paths.rendered(params.render[name].folder)
            if Path(dataset.root) != drawn:
                raise DenseclError(
                    f"{paths.PARAMS}: datasets.{name}.root: found {dataset.root}, expected "
                    f"{drawn}, where render.{name} draws"
                )
            continue
        try:
            check_root(Path(dataset.root), with_layout(params, name).layout, dataset.devkit)
        except DenseclError as error:
            if name not in params.optional:
                raise DenseclError(f"{paths.PARAMS}: datasets.{name}.root: {error}") from None
            print(f"warning: {name}: left out: {error}")
            hold_place(name, Path(dataset.tracked_by))


def hold_place(name: str, tracked_by: Path) -> None:
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


def check_model(params: Params) -> None:
    """Raise where timm cannot build the model; asked last, since timm takes seconds to import."""
    from densecl.network.vit import check

    if params.network.checkpoint and not Path(params.network.checkpoint).is_file():
        raise DenseclError(
            f"{paths.PARAMS}: network.checkpoint: {params.network.checkpoint} is no file; "
            f"expected local safetensors weights"
        )
    try:
        rows, columns = check(params.network)
    except DenseclError as error:
        raise DenseclError(f"{paths.PARAMS}: {error}") from None
    dense = params.contrast.of("dense") if "dense" in params.modes else None
    if isinstance(dense, DenseContrast) and dense.patches_per_image > rows * columns:
        print(
            f"warning: {paths.PARAMS}: contrast.patches_per_image: found "
            f"{dense.patches_per_image}, but "
            f"{params.network.model_name} has {rows * columns} patches: all of them are taken",
            file=sys.stderr,
        )


def resolve(params: Params) -> dict[str, Record]:
    """The plan of every unit, with just the keys it reads."""
    units: dict[str, Record] = {
        name: SetPlan(
            name=name,
            dataset=with_layout(params, name),
            train_root=params.datasets[TRAIN_SET].root,
            render=params.render.get(name),
            preprocess=params.evaluate.preprocess.get(name),
            protocol=protocol_of(params, name),
            classes=params.evaluate.classes.get(name, ()),
            optional=name in params.optional,
        )
        for name in params.datasets
    }
    for mode in params.modes:
        units[mode] = TrainPlan(
            mode=mode,
            network=params.network,
            data=params.data,
            train=params.train,
            contrast=params.contrast.of(mode),
        )
    units["validate"] = ValidatePlan(
        datasets=params.datasets, optional=params.optional, values=params.validate_
    )
    units["execution"] = Execution(
        checkpoint_minutes=params.train.checkpoint_minutes, processes=params.train.processes
    )
    units["evaluate"] = EvaluatePlan(batch_size=params.evaluate.batch_size)
    units["report"] = ReportPlan(
        modes=params.modes,
        seeds=params.seeds,
        datasets=params.evaluate.datasets,
        rendered=tuple(params.render),
        protocols={name: protocol_of(params, name) for name in params.evaluate.datasets},
        values=params.report,
        params=params.model_dump(mode="json", by_alias=True, exclude={"retraining"}),
    )
    return units


def prune(params: Params, units: set[str]) -> None:
    """Remove from folders that a stage depends on as a whole what is in no plan; DVC's cache still
    holds it.
    """
    runs = [(mode, seed) for mode in params.modes for seed in params.seeds]
    cells = [(name, mode, seed) for name in params.evaluate.datasets for mode, seed in runs]
    kept = {paths.plan(unit) for unit in units} | {paths.manifest(name) for name in params.datasets}
    kept |= {
        place(*cell)
        for cell in cells
        for place in (paths.evaluation, paths.predictions, paths.control_predictions)
    }
    kept |= {
        paths.training(*run) / name
        for run in runs
        for name in ("history.csv", "cost.json", "matches.safetensors")
    }
    for folder in (
        paths.PLAN,
        paths.MANIFESTS,
        paths.EVALUATION,
        paths.PREDICTIONS,
        paths.TRAINING,
    ):
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in kept and path.name != ".gitignore":
                path.unlink()
