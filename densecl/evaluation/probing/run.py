"""Run the probes of one model; what the cell cache has is not computed again."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.numpy

from densecl import paths
from densecl.artifacts import ProbeEvaluation, write_json
from densecl.config.params import CONTROL_SET
from densecl.config.probe_params import ProbeParams
from densecl.datasets.storage.transfer import describe_left_out
from densecl.errors import DataError
from densecl.evaluation.cached_predict import PREDICTION_CODE, hash_file
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.other_models import describe_tokens, find_token_problem
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.result import ProbeResult, pack_result, unpack_result
from densecl.evaluation.scoring import NoKnownClassError
from densecl.runtime.source_hash import hash_sources

PROBE_CODE = (
    "artifacts.py",
    "datasets/imagenet.py",
    "evaluation/corruptions",
    "evaluation/frozen_features",
    "evaluation/imagenet_c.py",
    "evaluation/probes",
    "evaluation/probing",
    "evaluation/protocols.py",
    "evaluation/sources.py",
    "evaluation/stimuli",
    "seeding.py",
)
LOGIT_PROBES = ("occlusion", "viewpoint", "corruptions")  # all others read tokens
PROBE_PACKAGES = ("numpy", "opencv-python-headless", "scipy")  # that change images

# `measure` of the module that is named like the probe; its second argument are the probe's params.
ProbeFunction = Callable[[ProbeContext, Any], ProbeResult]


class NoTokensError(DataError):
    """A model without the tokens that probes read."""


def run_probe(name: str, context: ProbeContext, cache: CellCache) -> tuple[ProbeEvaluation, bool]:
    """Run a probe or take it from the cache, and write its files; whether the cache had it.

    DataError where its images cannot be used, unless `evaluate.require` is `present`. A model that
    it cannot be run on gives the reason.
    """
    evaluator = context.evaluator
    cell = (name, evaluator.mode, evaluator.seed)
    try:
        result, cached = _get_result(name, context, cache)
    except DataError as error:
        if not context.plan.optional and not isinstance(error, NoKnownClassError | NoTokensError):
            raise
        reason = " ".join(str(error).split())
        failed = ProbeEvaluation(
            probe=name, mode=evaluator.mode, seed=evaluator.seed, measures={}, reason=reason
        )
        write_json(paths.probe_file(*cell), failed)
        return failed, False
    evaluation = ProbeEvaluation(
        probe=name,
        mode=evaluator.mode,
        seed=evaluator.seed,
        measures=dict(result.measures),
        missing=dict(result.missing),
        notes=result.notes,
    )
    path = paths.probe_rows_file(*cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    result.rows.to_parquet(path, index=False)
    if result.pictures:
        safetensors.numpy.save_file(dict(result.pictures), paths.probe_pictures_file(*cell))
    write_json(paths.probe_file(*cell), evaluation)
    return evaluation, cached


def _get_result(name: str, context: ProbeContext, cache: CellCache) -> tuple[ProbeResult, bool]:
    if name not in LOGIT_PROBES and (problem := find_token_problem(context.model)):
        raise NoTokensError(problem)
    if name in LOGIT_PROBES:
        context.evaluator.resolve_scored(CONTROL_SET)  # raises for a model that knows no class
    params = getattr(context.plan.probes, name)
    key = _build_key(name, context, params)
    content, pictures = cache.read(key), cache.read(f"{key}-pictures")
    if content is not None and pictures is not None:
        result = unpack_result(content)
        return replace(result, pictures=safetensors.numpy.load(pictures)), True
    measure: ProbeFunction = import_module(f"densecl.evaluation.probes.{name}").measure
    result = measure(context, params)
    notes = list(result.notes)
    for entry in dict.fromkeys(params.transfer_names):
        notes += describe_left_out(entry, paths.transfer_file(entry))
    if name not in LOGIT_PROBES:
        notes += describe_tokens(context.model)
    result = replace(result, notes=tuple(notes))
    cache.write(key, pack_result(result))
    cache.write(f"{key}-pictures", safetensors.numpy.save(dict(result.pictures)))
    return result, False


def _build_key(name: str, context: ProbeContext, params: ProbeParams) -> str:
    """Of all that decides a result: model, images, params, and code."""
    predictor = context.evaluator.predictor
    frame = context.frame[["image_id", "label", "sha256"]]
    transfer = {
        entry: [
            context.plan.transfer[entry].model_dump(mode="json"),
            hash_file(paths.transfer_file(entry)),
        ]
        for entry in params.transfer_names
    }
    values = {
        "probe": name,
        "params": params.model_dump(mode="json"),
        "identity": predictor.identity,
        "code": hash_sources((*PREDICTION_CODE, *PROBE_CODE)),
        "packages": [version(name) for name in PROBE_PACKAGES],
        "preprocessing": context.preprocessing.model_dump(mode="json"),
        "images": hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest(),
        "scored": context.scored_indices,
        "training": _describe_training(context) if params.uses_training_images else None,
        "transfer": transfer,
        "files": [
            [str(path), hash_file(path)]
            for entry in params.input_files
            for path in sorted([Path(entry), *Path(entry).rglob("*")])
            if path.is_file()
        ],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _describe_training(context: ProbeContext) -> list[Any]:
    plan = context.plan.training
    if plan is None:
        return []
    files = (paths.manifest_file(plan.name), paths.validation_file(plan.name))
    return [plan.model_dump(mode="json"), *map(hash_file, files)]
