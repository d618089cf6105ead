"""Every number of the card stands in a file of the run; what people named cannot become markup."""

import json
import re

import pytest

from densecl import paths
from densecl.analysis.dvc_lock import compute_md5
from densecl.artifacts import ValidationResult, write_json
from densecl.config.params import load_params
from densecl.monitoring.mlflow_store import TRAINING_EXPERIMENT, import_mlflow
from densecl.pages.templates import escape_markdown
from pipelines.registry import commands, registry
from pipelines.registry.model_card import attach_card
from tests.cost_factory import make_cost
from tests.pipelines.conftest import verdict
from tests.pipelines.test_registry import NAME, TAGS

HOSTILE = "n1|</td><script>alert(1)</script> [x](javascript:y) **`_"
COMPARISON = """dataset,control,mode,metric,value,low,high,images,seeds,note
imagenet,,dense,top1,0.711,0.66,0.757,400,0,
imagenet,,dense,ece,0.0456,,,400,0,
imagenet,,none,top1,0.999,0.99,1,400,0,
sketch,imagenet,dense,top1,0.235,0.19,0.28,399,0,
sketch,imagenet,dense,drop,-0.021,-0.041,-0.001,399,0,
imagenet-a,imagenet,dense,top1,,,,,,missing
"""


@pytest.fixture
def run(trained):
    """What a run leaves, as far as the card reads it; one set was not evaluated."""
    folder = trained("0123456789abcdef")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps(config | {"classes": [HOSTILE, *config["classes"][1:]], "classifier": "trained"})
    )
    paths.COMPARISON.parent.mkdir(parents=True)
    paths.COMPARISON.write_text(COMPARISON, encoding="utf-8")
    paths.PLANS.mkdir(parents=True)
    paths.plan_file("dense").write_text(
        json.dumps({"contrast": {"lambda_weight": 0.31}, "train": {"epochs": 17}}), encoding="utf-8"
    )
    write_json(
        paths.validation_file("imagenet"),
        ValidationResult(
            dataset="imagenet",
            passed=True,
            images=1403,
            classes=3,
            absent=(),
            excluded=("imagenet/a",),
            failures=(),
            warnings=(),
        ),
    )
    paths.MANIFESTS.mkdir(parents=True)
    paths.manifest_file("imagenet").write_bytes(b"a manifest")
    write_json(paths.COST, make_cost({"dense": 2.1}))
    mlflow = import_mlflow()
    mlflow.set_experiment(TRAINING_EXPERIMENT)
    with mlflow.start_run(tags={"fingerprint": "0123456789abcdef", "device": "a CPU"}):
        mlflow.log_metrics({"images_per_second": 1234.5, "peak_memory_bytes": 3 << 30}, step=1)
        mlflow.log_metric("wall_seconds", 754)
    return folder


def made(folder, promoted=True):
    done = registry.register_model(NAME, folder, verdict(promoted), TAGS)
    attach_card(
        load_params(paths.PARAMS),
        done,
        verdict(promoted),
        registry.resolve_version(NAME, done.version)[1],
    )
    if promoted:
        registry.fetch_card(NAME, done.version)
    return done.version


def test_the_card_s_numbers_are_those_of_the_files(run):
    made(run)
    text = paths.MODEL_CARD.read_text(encoding="utf-8")
    for line in (
        "# densecl-vit, version 1",
        "| imagenet | 400 | – | 71.1 (66.0 to 75.7) | 0 | – | 4.6 | – |",
        "| sketch | 399 | – | 23.5 (19.0 to 28.0) | 0 | – | – | −2.1 (−4.1 to −0.1) |",
        f"| imagenet | 1,403 | 3 | 1 | {compute_md5(paths.manifest_file('imagenet'))} |",
        "| val | imagenet | 400 | 2.0 (−0.5 to 4.5) | −1.0 | held | val is +2.0 points (-0.5 to +4.5); above -1.0 was asked for |",
        "- training: 12.6 min",
        "- images: 1,234 a second",
        "- peak memory of the process: 3.00 GiB",
        "- a step, two views of 64 images: 420.0 ms",
        "- against the same step without contrast: 2.10 \\[2.09, 2.11\\]",
        "- device: a CPU",
        "| contrast.lambda\\_weight | 0.31 |",
        "| train.epochs | 17 |",
        f"| dvc\\_md5 | {TAGS['dvc_md5']} |",
        "| fingerprint | 0123456789abcdef |",
        'model = mlflow.pyfunc.load_model("models:/densecl-vit/1")',
    ):
        assert line in text.splitlines(), line
    assert "99.9" not in text  # another mode's
    assert "One seed" in text
    assert re.search("Drawn by code, no photographs: .*imagenet-train", text)
    assert "Not scored on imagenet (no evaluation)" in text


def test_names_cannot_become_markup(run):
    made(run)
    text = paths.MODEL_CARD.read_text(encoding="utf-8")
    assert "alert(1)" in text
    assert not re.search(r"(?<!\\)<(script|/td)|(?<!\\)\[x|(?<!\\)\*\*`", text)
    assert escape_markdown("a|b\n# c") == "a\\|b #\u2060 c"
    widths = {
        line.count("|") - line.count(r"\|")
        for line in text.splitlines()
        if line.startswith("| ") and "dvc" in line
    }
    assert widths == {3}


def test_models_card_md_is_the_champion_s(run, client):
    made(run)
    registry.promote_version(NAME, "1", "ann", "the gate")
    first = paths.MODEL_CARD.read_text(encoding="utf-8")
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(
        json.dumps(config | {"fingerprint": "fedcba9876543210", "base": "global"}),
        encoding="utf-8",
    )
    assert made(run, promoted=False) == "2"
    assert paths.MODEL_CARD.read_text(encoding="utf-8") == first  # kept: the champion's card stays
    commands.promote("2", "better than it looked", "bob")
    second = paths.MODEL_CARD.read_text(encoding="utf-8")
    assert second.startswith("# densecl-vit, version 2")
    assert "(a variant of global), seed" in second
    assert "a variant of" not in first
    commands.rollback("no", "bob")
    assert paths.MODEL_CARD.read_text(encoding="utf-8") == first


@pytest.mark.slow
def test_a_champion_without_a_card_leaves_none_of_another(run):
    made(run)
    registry.promote_version(NAME, "1", "ann", "the gate")
    registry.register_model(NAME, run, verdict(promoted=False), TAGS)
    commands.promote("2", "by hand", "bob")
    assert not paths.MODEL_CARD.exists()
