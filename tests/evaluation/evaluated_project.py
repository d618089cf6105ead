"""A project in the working directory whose images are there: planned, prepared, validated, its
random model evaluated, and reported, by the stages.
"""

from pathlib import Path
from typing import Any

import yaml

from densecl import paths
from densecl.config.params import TRAIN_SET
from densecl.datasets.storage.image_root import list_class_folders
from steps import evaluate, plan, prepare, prepare_transfer, report, validate
from tests.conftest import write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SMALL = Path(__file__).parent.parent / "small.yaml"


def run_stages(
    roots: dict[str, str],
    evaluate_params: dict[str, Any],
    transfer: dict[str, dict[str, str]] | None = None,
    model_args: dict[str, Any] | None = None,
) -> None:
    """`roots` of all sets, of the training set too; `transfer` as in params."""
    prepare_stages(roots, evaluate_params, transfer, model_args)
    evaluate.main("none", 0)
    report.main()


def prepare_stages(
    roots: dict[str, str],
    evaluate_params: dict[str, Any],
    transfer: dict[str, dict[str, str]] | None = None,
    model_args: dict[str, Any] | None = None,
) -> None:
    """As `run_stages`, up to the evaluation."""
    args = ARGS | (model_args or {})
    values = yaml.safe_load(SMALL.read_text())
    values["network"]["model_args"] = args
    values |= {
        "render": {},
        "modes": ["none"],
        "datasets": {n: {"root": root, "tracked_by": root} for n, root in roots.items()},
        "transfer": transfer or {},
        "evaluate": {"datasets": [n for n in roots if n != TRAIN_SET], **evaluate_params},
    }
    Path("params.yaml").write_text(yaml.safe_dump(values))
    write_model(paths.model_folder("none", 0), list_class_folders(Path(roots[TRAIN_SET])), args)
    plan.main()
    for name in roots:
        prepare.main(name)
    for name in transfer or {}:
        prepare_transfer.main(name)
    validate.main()
