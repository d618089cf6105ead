"""`python -m pipelines study`: what is fixed before the runs, hours by arithmetic, the write-up."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from playwright.sync_api import Browser

from densecl import paths
from densecl.analysis.comparison import build_comparison_table, compare_modes
from densecl.artifacts import ReportPlan, read_json, write_json
from densecl.config.params import ParamsError, load_params, parse_params
from densecl.config.yaml_loader import load_yaml
from densecl.cost.result import CostReport
from densecl.errors import DenseclError
from densecl.monitoring.training_records import TrainingRecords
from densecl.report.training_results import read_training_results
from densecl.tuning.records import TrialResult
from pipelines import __main__ as command
from pipelines.studies.study.estimate import count_epochs, describe_estimate
from pipelines.studies.study.keep import add_seconds, keep_results, keep_trials, restore_trials
from pipelines.studies.study.own_params import replace_params
from pipelines.studies.study.protocol import (
    CodeState,
    fix_protocol,
    list_changed_code,
    list_deviations,
    read_code_state,
)
from pipelines.studies.study.run import limit_seeds, run_study
from pipelines.studies.study.study_file import check_expected, read_study
from pipelines.studies.study.write_up import list_results, write_study
from pipelines.studies.sweep.begin import begin_sweep
from tests.conftest import draw_set
from tests.page_checks import faults
from tests.pipelines.project_factory import ENVIRONMENT
from tests.pipelines.test_sweep_trials import make_result
from tests.report.report_factory import make
from tests.training.training_project import PARAMS as SMALL

ROOT = Path(__file__).parents[2]
IGNORE_PYGTRIE = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's
STUDIES = ("photos", "imagenet")
FILE = Path("studies/tiny.yaml")
TEXT = """\
question: Does it?
params: base.yaml
budget: 3
expected: {Distribution shift: dense above none}
limits: [Drawn numbers.]
ablations: variants.yaml
"""


@pytest.mark.parametrize("name", STUDIES)
def test_the_studies_of_this_project_can_be_read_and_counted(name: str, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(ROOT / paths.STUDIES / f"{name}.yaml")
    params = load_params(Path(study.params))
    check_expected(FILE, study, params)
    counts = count_epochs(study, params)
    assert counts["sweep"][0] == 3 * study.budget
    assert counts["comparison"] == (
        3 * len(params.seeds),
        3 * len(params.seeds) * params.train.epochs,
    )
    assert ("ablations" in counts) == (study.ablations is not None)


def test_hours_are_the_images_of_all_trainings_by_the_throughput(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(ROOT / paths.STUDIES / "photos.yaml")
    text = describe_estimate(study, load_params(Path(study.params)), 100.0)
    # 36 trials of 3 epochs on 80 %, 15 models and 7 variants with 3 seeds of 5 epochs.
    images = (36 * 3 * 0.8 + 15 * 5 + 21 * 5) * 6491
    assert text.splitlines()[-1] == (
        f"in all: {images:,.0f} images in two views, {images / 100 / 3600:,.1f} h"
    )


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    file = str(ROOT / paths.STUDIES / "imagenet.yaml")
    assert command.main(["study", file, "--dry-run", "--images-per-second", "9000"]) == 0
    assert "in all: " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["presets"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question: a", "params: missing"),
        (TEXT.replace("budget: 3", "budget: 1"), "budget: found 1"),
        (TEXT + "seeds: [0]", "seeds: unknown key"),
        (TEXT.replace("base.yaml", "params.yaml"), "name a copy"),
        (TEXT.replace("base.yaml", str(Path("params.yaml").absolute())), "name a copy"),
        (TEXT.replace("base.yaml", "presets/tuned-s.yaml"), "name a copy"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_key(tmp_path: Path, text: str, message: str):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as raised:
        read_study(path)
    assert message in str(raised.value)


def test_ablations_have_the_first_seeds_and_the_comments_stay():
    text = (ROOT / "studies" / "photos-params.yaml").read_text()
    limited = limit_seeds(text, 3)
    assert parse_params(load_yaml(limited), "p").seeds == (0, 1, 2)
    assert limited.splitlines()[0] == text.splitlines()[0]
    assert limit_seeds(limited, 9) == limited


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> ReportPlan:
    """A finished comparison and sweep of drawn numbers, in the current folder."""
    monkeypatch.chdir(tmp_path)
    FILE.parent.mkdir()
    FILE.write_text(TEXT)
    Path("base.yaml").write_text((ROOT / "params.yaml").read_text())
    Path("variants.yaml").write_text((ROOT / paths.ABLATION_FILE).read_text())
    plan = make(tmp_path, seeds=(0, 1, 2))
    write_json(paths.plan_file("report"), plan)
    return plan


def plant_tables(name: str) -> None:
    trials = pd.DataFrame(
        {
            "mode": ["dense", "dense", "none", "none"],
            "index": [0, 1, 0, 1],
            "chosen": [False, True, False, True],
            "contrast.queue_size": [None, 256, None, None],
            "top1_confirm": [0.5, 0.6, 0.0, 0.3],
            "failure": ["", "", "loss is nan", ""],
        },
        dtype=object,
    )
    shutil.copyfile("base.yaml", paths.study_folder(name) / "params-tuned.yaml")
    trials.to_csv(paths.study_folder(name) / "sweep.csv", index=False)
    variant = {"factor": "keys", "variant": "dense-a", "changes": "b", "claim": "c", "verdict": ""}
    numbers = {"value": 0.01, "low": -0.02, "high": 0.04}
    pd.DataFrame([variant | numbers]).to_csv(
        paths.study_folder(name) / "ablations.csv", index=False
    )


def test_what_is_not_as_the_protocol_fixed_it_is_found_by_comparing(project):
    study = read_study(FILE)
    protocol = fix_protocol(FILE, study)
    assert protocol.files["params"].text == Path("base.yaml").read_text()
    assert list_deviations(FILE, study, protocol) == []
    assert list_deviations(FILE.absolute(), study, protocol) == []
    FILE.write_text(TEXT.replace("budget: 3", "budget: 30") + "decided_later: [We looked.]\n")
    base = Path("base.yaml").read_text()
    Path("base.yaml").write_text(base.replace("learning_rate: ", "learning_rate: 1", 1))
    Path("variants.yaml").write_text("# other\n" + Path("variants.yaml").read_text())
    study = read_study(FILE)
    assert fix_protocol(FILE, study) == protocol  # written once
    assert list_deviations(FILE, study, protocol) == [
        "We looked.",
        f"{FILE} was changed after the protocol was fixed: budget.",
        "base.yaml was changed after the protocol was fixed: train.learning_rate.",
        "variants.yaml was changed after the protocol was fixed: comments only.",
    ]


@pytest.mark.slow
def test_results_before_the_protocol_and_code_of_two_commits_are_marked(project):
    study = read_study(FILE)
    paths.sweep_folder("tiny").mkdir(parents=True)
    protocol = fix_protocol(FILE, study)
    end = CodeState(time="now", commit=None, changed=("steps/train.py",))
    assert list_deviations(FILE, study, protocol, end) == [
        "Results were there before the protocol was fixed: sweeps/tiny.",
        "The code was not that of one commit from start to end: steps/train.py.",
    ]
    plant_tables("tiny")
    write_study(FILE, study, protocol, end)
    for page in (paths.STUDY_PAGE, paths.STUDY_TEXT):
        text = page.read_text(encoding="utf-8")
        assert "before the first run" not in text
        assert "with uncommitted changes in steps/train.py" in text.replace("\\", "")


def test_the_code_of_two_commits_is_compared(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*command: str) -> None:
        subprocess.run(("git", *command), env=ENVIRONMENT, check=True, capture_output=True)

    call("init", "-q")
    states = []
    for number, name in enumerate(("steps/a.py", "README.md", "steps/b.py")):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(str(number))
        call("add", "-A")
        call("commit", "-qm", "x")
        states.append(read_code_state())
    assert list_changed_code(*states[:2]) == []
    assert list_changed_code(*states[1:]) == ["steps/b.py"]
    Path("steps/a.py").write_text("9")
    assert read_code_state().changed == ("steps/a.py",)


@pytest.mark.slow
def test_an_expectation_of_no_claim_is_refused_and_none_vanishes(project):
    study = read_study(FILE)
    params = load_params(Path(study.params))
    check_expected(FILE, study, params)
    wrong = study.model_copy(update={"expected": {"Distribution shfit": "x"}})
    with pytest.raises(ParamsError, match="shfit: no such claim, expected Occlusion, Viewpoint"):
        check_expected(FILE, wrong, params)
    comparison = compare_modes(project, Path(), None)
    entries = list_results(comparison, {"Spatial tasks": "s", "Distribution shift": "d", "V2": "v"})
    said = {(e["claim"], e["verdict"] == "not measured", e["expected"]) for e in entries}
    assert {("Spatial tasks", True, "s"), ("Distribution shift", False, "d")} < said
    assert ("V2", True, "v") in said
    # Stated of the claim: of two pairs of modes it stands beside the first.
    shifts = [e["expected"] for e in entries if e["claim"] == "Distribution shift"]
    assert shifts == ["d", "–"]


@pytest.mark.slow
def test_the_write_up_has_the_claims_the_protocol_and_the_limits(project, browser: Browser):
    FILE.write_text(TEXT + "decided_later: [We looked.]\n")
    study = read_study(FILE)
    protocol = fix_protocol(FILE, study)
    plant_tables("tiny")
    add_seconds("tiny", "sweep", 60.0)
    add_seconds("tiny", "sweep", 60.0)
    write_study(FILE, study, protocol, protocol.start)
    text = paths.STUDY_TEXT.read_text(encoding="utf-8").replace("\\", "")
    for words in (
        *(
            "Does it?",
            hashlib.sha256(FILE.read_bytes()).hexdigest(),
            "We looked.",
            "Drawn numbers.",
            "| sweep | 2 min",
        ),
        *(
            "| dense | 2 | 50.0 | 60.0 | +10.0 | contrast.queue_size 256 |",
            "| none | 2 | did not finish | 30.0 | – | as in the params |",
            "Did not run: dense-keys-momentum has the values of dense",
        ),
        *("| dense | 2 |", "dense above none", "+1.0 | −2.0 to +4.0"),
    ):
        assert words in text
    assert faults(browser, paths.STUDY_PAGE) == []


@pytest.mark.slow
def test_every_number_of_the_tables_can_be_recomputed_from_what_is_kept(project, tmp_path: Path):
    """By the code of the report, with nothing but the folder that is kept."""
    cost = read_json(CostReport, paths.COST) if paths.COST.exists() else None
    table = build_comparison_table(compare_modes(project, Path(), cost))
    picture = paths.probe_pictures_file("x", "dense", 0)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text("an image is not kept")
    keep_results("tiny", "comparison")
    kept = tmp_path / paths.study_folder("tiny") / "comparison"
    assert not (kept / picture).exists()
    for folder in ("reports", "data"):
        shutil.rmtree(folder)
    plan = read_json(ReportPlan, kept / paths.plan_file("report"))
    results = read_training_results(plan, kept, TrainingRecords({}, ""))
    again = build_comparison_table(compare_modes(plan, kept, results.cost))
    pd.testing.assert_frame_equal(again, table)
    assert (table["value"].notna()).sum() > 50
    assert [len(results.histories[mode]) for mode in plan.modes] == [3, 3, 3]


def test_params_that_are_not_the_studys_are_kept_each_time(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace_params("tiny", "first run\n")  # there was none
    folder = paths.study_folder("tiny")
    for own in ("first run", "tuned", "first run"):
        replace_params("tiny", f"{own}\n")
    assert list(folder.glob("params-before*")) == []
    for edit in ("one\n", "two\n", "one\n"):
        paths.PARAMS.write_text(edit)
        replace_params("tiny", "tuned\n")
    kept = {path.name: path.read_text() for path in folder.glob("params-before*")}
    assert kept == {"params-before.yaml": "one\n", "params-before-2.yaml": "two\n"}
    assert paths.PARAMS.read_text() == "tuned\n"


def test_a_fresh_clone_has_the_finished_trials_of_the_same_settings(
    tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    draw_set(tmp_path / "imagenet-train", 10)
    paths.PARAMS.write_text(yaml.safe_dump(SMALL))
    begin_sweep(load_params(paths.PARAMS), "tiny")
    write_json(paths.trial_result("tiny", "none", 0), make_result(0, 0.5))
    rows = pd.DataFrame({"image_id": ["a"], "part": ["confirm"], "correct": [True]})
    rows.to_parquet(paths.trial_predictions("tiny", "none", 0))
    paths.trial_folder("tiny", "none", 1).mkdir()  # still runs
    keep_trials("tiny")
    shutil.rmtree("sweeps")
    restore_trials("tiny")
    assert read_json(TrialResult, paths.trial_result("tiny", "none", 0)) == make_result(0, 0.5)
    pd.testing.assert_frame_equal(pd.read_parquet(paths.trial_predictions("tiny", "none", 0)), rows)
    assert not paths.trial_folder("tiny", "none", 1).exists()
    capsys.readouterr()
    shutil.rmtree("sweeps")
    other = {**SMALL, "train": {**SMALL["train"], "weight_decay": 0.3}}
    paths.PARAMS.write_text(yaml.safe_dump(other))
    restore_trials("tiny")
    assert "of other settings or images; they are run again" in capsys.readouterr().out
    assert not paths.trial_result("tiny", "none", 0).exists()


STAGES = """\
stages:
  render: {cmd: echo 1 > images, outs: [images]}
  validate: {cmd: cp images verdicts, deps: [images], outs: [verdicts]}
  train: {cmd: cp verdicts model, deps: [verdicts], outs: [model]}
"""


@IGNORE_PYGTRIE
def test_the_data_of_a_fresh_clone_is_there_before_the_sweep_and_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the processes that run stages
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    Path("dvc.yaml").write_text(STAGES)
    Path("base.yaml").write_text((ROOT / "params.yaml").read_text())
    FILE.parent.mkdir()
    FILE.write_text(TEXT)
    found = []

    def sweep(*_, **__):
        found.extend(name for name in ("images", "verdicts", "model") if Path(name).exists())
        raise DenseclError("far enough")

    monkeypatch.setattr("pipelines.studies.sweep.run.main", sweep)
    for _ in range(2):  # the second time nothing is to be done
        with pytest.raises(DenseclError, match="far enough"):
            run_study("tiny", read_study(FILE), 1, None)
    assert found == ["images", "verdicts"] * 2
