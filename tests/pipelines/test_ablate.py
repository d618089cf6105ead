"""`python -m pipelines ablate`: what of a file runs, and what its page and table say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from playwright.sync_api import Browser

from densecl import paths
from densecl.analysis.results import Comparison
from densecl.artifacts import write_json
from densecl.config.params import ParamsError, load_params
from densecl.config.yaml_loader import load_yaml
from pipelines import __main__ as command
from pipelines.studies.ablation.factors import Ablation, plan_ablation
from pipelines.studies.ablation.page import write_page
from pipelines.studies.ablation.results import (
    VariantRow,
    build_ablation_table,
    read_variant_rows,
)
from pipelines.studies.ablation.run import describe_ablation
from tests.page_checks import faults
from tests.report.report_factory import make

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
VARIANTS = {
    "dense-geometric": {"base": "dense", "contrast": {"correspondence_features": "geometric"}},
    "dense-cold": {"base": "dense", "contrast": {"temperature": 0.07}},
}
FACTORS = {"matches": ("dense-geometric",), "temperature": ("dense-cold",)}


def test_the_file_of_this_project_names_all_factors_and_suits_its_params(tmp_path: Path):
    ablation = plan_ablation(ROOT / paths.ABLATION_FILE, ROOT / paths.PARAMS)
    assert set(ablation.factors) == {
        *("keys", "memory", "sampling", "matches", "filter", "symmetric", "negatives", "lambda"),
        *("temperature", "learned temperature", "adaptive weight", "queue", "batch"),
    }
    own = load_params(ROOT / paths.PARAMS).mode_settings.resolve_contrast("dense")
    assert ablation.equal["dense-keys-momentum"] == "dense"
    assert own.key_encoder == "momentum"
    path = tmp_path / "params.yaml"
    path.write_text(ablation.text)
    params = load_params(path)
    names = [name for group in ablation.factors.values() for name in group]
    assert params.modes == ("dense", "global", "none", *names)
    comments = [line for line in (ROOT / paths.PARAMS).read_text().splitlines() if "#" in line]
    for line in comments:
        assert line.partition("#")[2] in ablation.text
    # Once they are there nothing changes.
    again = plan_ablation(ROOT / paths.ABLATION_FILE, path)
    assert again.text == ablation.text
    assert again.factors == ablation.factors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("factors: {}", "factors: found"),
        ("factors: {a: {x: {base: dens}}}", "factors.a.x.base: found 'dens'"),
        ("factors: {a: {x: {base: dense, contrast: {temprature: 0.1}}}}", "temprature"),
        ("factors: {a: {none: {base: dense, train: {epochs: 1}}}}", "'none' is reserved"),
        (
            "factors: {a: {x: {base: dense, train: {epochs: 9}}}, "
            "b: {x: {base: dense, train: {epochs: 9}}}}",
            "x is in two factors",
        ),
        ("factors: [", "not readable as YAML"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str, message: str):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"file\.yaml") as raised:
        plan_ablation(tmp_path / "file.yaml", ROOT / paths.PARAMS)
    assert message in str(raised.value)


def test_a_variant_that_tuned_values_contradict_is_left_out_with_the_reason(tmp_path: Path):
    params = load_yaml((ROOT / paths.PARAMS).read_text())
    tuned = {"correspondence_features": "geometric", "correspondence_filter": "none"}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params | {"contrast": params["contrast"] | {"dense": tuned}}))
    ablation = plan_ablation(ROOT / paths.ABLATION_FILE, path)
    assert "dense-filter-mutual" in ablation.contradicted
    assert "filter" not in ablation.factors
    assert "keys" in ablation.factors
    said = describe_ablation(ablation)
    assert "dense-filter-mutual: contrast: correspondence_filter: found mutual" in said


def test_a_dry_run_changes_nothing(tmp_path: Path, monkeypatch, capsys):
    text = (ROOT / paths.PARAMS).read_text()
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert command.main(["ablate", str(ROOT / paths.ABLATION_FILE), "--dry-run"]) == 0
    assert "matches: dense-matches-backbone, dense-matches-geometric" in capsys.readouterr().out
    assert (tmp_path / "params.yaml").read_text() == text
    assert command.main(["ablate", "missing.yaml"]) == 2
    assert "missing.yaml: no such file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison, list[VariantRow]]:
    root = tmp_path_factory.mktemp("ablated")
    plan = make(root, ("dense", "global", "none", *VARIANTS), SEEDS, VARIANTS)
    write_json(root / paths.plan_file("report"), plan)
    for seed in SEEDS:
        for mode, share in (("dense", 0.4), ("dense-geometric", 1.0)):
            path = root / paths.training_folder(mode, seed) / "history.csv"
            history = pd.read_csv(path).assign(**{"match/pairs/true": share - 0.01 * seed})
            history.to_csv(path, index=False)
    return root, *read_variant_rows(FACTORS, root)


@pytest.mark.slow
def test_the_table_has_the_paired_differences_and_what_the_trainings_measured(ablated):
    root, _, rows = ablated
    table = build_ablation_table(rows).set_index(["variant", "place"])
    assert list(table.index.unique("variant")) == list(VARIANTS)
    for variant in VARIANTS:
        frames = [
            pd.read_parquet(root / paths.predictions_file("imagenet", mode, seed))
            .set_index("image_id")["correct"]
            .astype(float)
            for mode in (variant, "dense")
            for seed in SEEDS
        ]
        gap = np.mean(frames[:3], axis=0) - np.mean(frames[3:], axis=0)
        row = table.loc[(variant, "imagenet")]
        assert row["value"] == pytest.approx(gap.mean(), abs=1e-9)
        assert row["low"] < row["value"] < row["high"]
        losses = [
            pd.read_csv(root / paths.training_folder(variant, seed) / "history.csv")[
                "classification_loss"
            ].iloc[-1]
            for seed in SEEDS
        ]
        assert row["loss_spread"] == pytest.approx(np.std(losses, ddof=1))
        assert row["seeds"] == 3
    matches = table.loc["dense-geometric"].iloc[0]
    assert matches["true_matches_pairs"] == pytest.approx(0.99)
    assert matches["base_true_matches_pairs"] == pytest.approx(0.39)


def test_what_is_tested_has_wider_intervals_than_what_is_not(ablated):
    """Those of a family of all variants and claims."""
    _, comparison, rows = ablated
    for row in rows:
        for found in row.differences.values():
            plain = comparison.get_difference(found.place, row.variant, row.base)
            width, alone = found.high - found.low, plain.high - plain.low
            assert width > alone if found.verdict else width == pytest.approx(alone)


@pytest.mark.slow
def test_the_page_is_whole(ablated, tmp_path: Path, monkeypatch, browser: Browser):
    _, comparison, rows = ablated
    monkeypatch.chdir(tmp_path)
    ablation = Ablation(FACTORS, {"dense-warm": "dense"}, ("global-cold",), {"x": "why"}, "")
    write_page(comparison, rows, ablation, paths.ABLATION_FILE)
    text = paths.ABLATIONS_PAGE.read_text(encoding="utf-8")
    assert "2 variants in 2 factors, 3 seeds each." in text
    assert "dense-warm has the values of dense, which represents it." in text
    assert "x: why." in text
    assert "no statement about what a factor changes" not in text
    assert faults(browser, paths.ABLATIONS_PAGE) == []


def test_two_seeds_are_warned_of(ablated, tmp_path: Path, monkeypatch):
    _, comparison, _ = ablated
    monkeypatch.chdir(tmp_path)
    two = replace(comparison, plan=comparison.plan.model_copy(update={"seeds": (0, 1)}))
    write_page(two, [], Ablation({}, {}, (), {}, ""), paths.ABLATION_FILE)
    text = paths.ABLATIONS_PAGE.read_text(encoding="utf-8")
    assert "Two seeds: no statement about what a factor changes" in text
