"""What DVC and MLflow are given is what the table says, and a store that fails costs no report."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from densecl import paths
from densecl.analysis.comparison import SHIFTED_MEAN, compare_modes
from densecl.artifacts import ReportPlan, write_json
from densecl.config.params import ReportParams
from densecl.monitoring.mlflow_store import log_report
from densecl.report.dvc_exports import build_difference_plot, collect_metrics
from steps import report
from tests.report.probe_factory import write_probe
from tests.report.report_factory import SETS, make, read, value

ROOT = Path(__file__).parents[2]


def test_metrics_are_the_table_s_and_missing_cells_are_left_out(single):
    root, _ = single
    rows = read(root)
    for mode in ("dense", "global", "none"):
        found = json.loads((root / paths.metrics_file(mode)).read_text(encoding="utf-8"))
        sets = [s for s in SETS if (s, mode) != ("stylized", "global")]
        assert set(found) == {*sets, "shifted mean", "step time"}
        for dataset in sets:
            assert found[dataset] == pytest.approx(
                value(rows, dataset, mode, "top1")["value"], abs=1e-6
            )
        assert found["shifted mean"] == pytest.approx(
            value(rows, SHIFTED_MEAN, mode, "top1")["value"], abs=1e-6
        )
    assert found["step time"] == 1.0


@pytest.mark.slow
def test_the_claims_of_probes_are_metrics_and_bars(tmp_path):
    for mode in ("dense", "none"):
        write_probe(tmp_path, "occlusion", mode, 0)
    plan = ReportPlan(
        modes=("dense", "none"),
        seeds=(0,),
        datasets=(),
        protocols={},
        probes=("occlusion",),
        rendered=(),
        values=ReportParams(),
        params={},
    )
    found = compare_modes(plan, tmp_path)
    row = found.rows["(occlusion) random/area", "dense", "value"]
    assert collect_metrics(found, "dense", None) == {
        "occlusion random/area": pytest.approx(row.value, abs=1e-6)
    }
    bars = build_difference_plot(found)
    assert bars["set and modes"].tolist() == ["occlusion random/area dense − none"]
    difference = found.rows["(occlusion) random/area", "dense", "difference_to_none"]
    assert bars["points"].tolist() == pytest.approx([100 * difference.value])


def test_curves_are_the_means_of_the_histories(several):
    root, _ = several
    frame = pd.read_csv(root / paths.curve_file("top1/sketch"))
    assert list(frame.columns) == ["epoch", "dense", "global", "none"]
    histories = [
        pd.read_csv(root / paths.training_folder("dense", s) / "history.csv") for s in (0, 1, 2)
    ]
    assert frame["epoch"].tolist() == (histories[0]["epoch"] + 1).tolist()
    mean = sum(h["top1/sketch"] for h in histories) / 3
    assert frame["dense"].to_numpy() == pytest.approx(mean.to_numpy(), rel=1e-5)
    contrast = (
        (root / paths.curve_file("contrastive_loss")).read_text(encoding="utf-8").splitlines()
    )
    assert contrast[1].endswith(",nan")  # a blank would be drawn as 0


def test_dvc_yaml_names_files_that_are_written(several):
    root, _ = several
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    for entry in plots:
        ((path, how),) = entry.items()
        files = sorted((root / path).glob("*.csv")) if (root / path).is_dir() else [root / path]
        assert files
        for file in files:
            columns = set(pd.read_csv(file).columns)
            assert {
                how["x"],
                *([how["y"]] if how["y"] != "${modes}" else ("dense", "global", "none")),
            } <= columns


@pytest.mark.slow
def test_a_failing_store_is_a_warning_and_the_report_is_written(tmp_path, monkeypatch, capsys):
    write_json(tmp_path / paths.plan_file("report"), make(tmp_path, modes=("none",)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////no/such/folder/mlflow.db")
    monkeypatch.setitem(sys.modules, "mlflow", None)  # quick: not even the import succeeds
    report.main()
    assert paths.REPORT_PAGE.is_file()
    assert (
        "warning: the report is written, but not in MLflow: ModuleNotFoundError"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_holds_the_page_and_the_table(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    page = tmp_path / "report.html"
    page.write_text("<p>", encoding="utf-8")
    assert log_report([page], {"dense/sketch": 0.25}) == ""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("densecl").experiment_id])
    assert run.info.run_name == "report"
    assert run.data.metrics == {"dense/sketch": 0.25}
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["report.html"]
