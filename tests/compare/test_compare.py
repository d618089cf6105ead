"""`python -m steps compare` on folders of reports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from densecl import paths
from densecl.analysis.differences import SHIFTED_MEAN
from steps.__main__ import main
from tests.report.factories import Planted

ROOT = Path(__file__).parents[2]
SMALL = {"images": 600, "sets": ("imagenet", "imagenet-r", "sketch"), "modes": ("none",)}
ENVIRONMENT = os.environ | {
    "DVC_NO_ANALYTICS": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b.c",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b.c",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Experiments a, worse and alike (another chance, no difference planted)."""
    place = tmp_path_factory.mktemp("folders")
    Planted(**SMALL).write(place / "a")
    Planted(**SMALL, gains={("none", "sketch"): -0.15}, of_luck=1).write(place / "worse")
    Planted(**SMALL, of_luck=3).write(place / "alike")
    return place


@pytest.fixture
def there(folders, monkeypatch) -> Path:
    monkeypatch.chdir(folders)
    return folders


def test_status_is_1_where_asked_and_worse(there, capsys):
    assert main(["compare", "a", "worse", "--fail-if-worse"]) == 1
    told = capsys.readouterr()
    assert "error: One seed: no statement about what was changed. B is worse than A on" in told.err
    assert "sketch (none: −" in told.err
    assert main(["compare", "a", "worse"]) == 0
    assert "B is worse than A" in capsys.readouterr().out


@pytest.mark.parametrize(("a", "b"), [("a", "alike"), ("a", "a"), ("worse", "a")])
def test_status_is_0_where_b_is_not_worse(there, a, b):
    assert main(["compare", a, b, "--fail-if-worse", "--output", "out"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {
        "compare.html",
        "compare.md",
        "compare.csv",
    }


def test_what_b_lacks_is_not_passed(there, tmp_path, capsys):
    shutil.copytree("a", tmp_path / "torn")
    path = tmp_path / "torn" / paths.predictions_file("sketch", "none", 0)
    path.write_bytes(path.read_bytes()[:1000])
    assert main(["compare", "a", str(tmp_path / "torn")]) == 0
    assert main(["compare", "a", str(tmp_path / "torn"), "--fail-if-worse"]) == 2
    told = capsys.readouterr()
    assert "error: not comparable: A has sketch, none, seed 0, and B does not (" in told.err
    assert str(tmp_path) not in (paths.COMPARE_FOLDER / "compare.md").read_text()
    assert (
        main(["compare", str(tmp_path / "torn"), "a", "--fail-if-worse"]) == 0
    )  # more than before


@pytest.mark.parametrize("lost", ["modes", "datasets", "seeds"])
def test_what_the_plan_of_b_dropped_is_not_passed(there, tmp_path, capsys, lost):
    """The easiest way to hide a fall: no longer to ask."""
    full = {**SMALL, "modes": ("none", "dense"), "seeds": (0, 1)}
    Planted(**full).write(tmp_path / "full")
    Planted(**full).write(tmp_path / "less")
    plan = tmp_path / "less" / paths.plan_file("report")
    kept = json.loads(plan.read_text())
    plan.write_text(json.dumps(kept | {lost: kept[lost][:-1]}))
    names = [str(tmp_path / name) for name in ("full", "less")]
    assert main(["compare", *names, "--fail-if-worse"]) == 2
    told = capsys.readouterr().err
    assert "error: not comparable: A has " in told
    assert "and B does not (not in its plan)" in told
    assert main(["compare", *names[::-1], "--fail-if-worse"]) == 0


@pytest.mark.parametrize("kind", ["drop", "redone"])
def test_images_that_b_was_not_judged_on_are_not_passed(there, tmp_path, capsys, kind):
    less = Planted(**SMALL, **{kind: {"sketch": range(40)}}).write(tmp_path / "less")
    assert main(["compare", "a", str(less), "--fail-if-worse"]) == 2
    assert "sketch, none: images 40 " in capsys.readouterr().err
    status = main(["compare", str(less), "a", "--fail-if-worse"])
    assert status == (0 if kind == "drop" else 2)  # new images beside all of the others


def test_images_of_unchecked_content_are_not_passed(there, tmp_path, capsys):
    bare = Planted(**SMALL, of_luck=3, manifests=False).write(tmp_path / "bare")
    assert main(["compare", "a", str(bare), "--fail-if-worse"]) == 2
    assert "sketch, none: contents are unchecked" in capsys.readouterr().err
    # as the baseline it names no content that could differ
    assert main(["compare", str(bare), "a", "--fail-if-worse"]) == 0


def test_a_margin_asks_that_a_fall_is_ruled_out(there, capsys):
    """Counted again: the interval of this row alone, as the retraining's gate has it."""
    assert main(["compare", "a", "alike", "--fail-if-worse"]) == 0
    told = capsys.readouterr().out
    rows = pd.read_csv(paths.COMPARE_FOLDER / "compare.csv").query("metric == 'top1'")
    lowest = 100 * rows["low_simultaneous"].min()
    assert f"a fall of up to {-lowest:.1f} points" in told
    assert "Undecided in 3 cells" in told
    sets = rows[rows["dataset"] != SHIFTED_MEAN]
    bound = -sets["low"].min()
    for margin, status in ((bound * 1.01, 0), (bound * 0.99, 1)):
        command = ["compare", "a", "alike", "--fail-if-worse", "--margin", str(margin)]
        assert main(command) == status
        printed = capsys.readouterr()
        text = f"a fall of more than {100 * margin:.1f} points is "
        assert text + ("not ruled out on" if status else "ruled out in each of 3 cells") in (
            printed.err if status else printed.out
        )
    assert main(["compare", "a", "worse", "--fail-if-worse", "--margin", "0.4"]) == 0
    assert main(["compare", "a", "worse", "--fail-if-worse", "--margin", "0"]) == 1


def test_b_does_not_choose_the_level_at_which_it_is_judged(there, tmp_path, capsys):
    """Else intervals of 99.999999 % would pass it."""
    shutil.copytree("worse", tmp_path / "worse")
    plan = tmp_path / "worse" / paths.plan_file("report")
    kept = json.loads(plan.read_text())
    plan.write_text(json.dumps(kept | {"values": kept["values"] | {"confidence": 0.99999999}}))
    assert main(["compare", "a", str(tmp_path / "worse"), "--fail-if-worse"]) == 1
    told = capsys.readouterr()
    assert "B is worse than A" in told.err
    assert "Judged at A's confidence level, 95 %; B sets 99.999999 %." in told.out
    main(["compare", str(tmp_path / "worse"), "a", "--fail-if-worse"])
    assert "(simultaneous 99.999999 % intervals)" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--margin", "0.01"], ["--fail-if-worse", "--margin", "1"]])
def test_a_margin_that_means_nothing_is_a_usage_error(there, capsys, words):
    assert main(["compare", "a", "a", *words]) == 2
    assert "error: --margin " in capsys.readouterr().err


def test_reports_alone_are_enough_under_any_name(there, capsys):
    """As a downloaded artifact: no plan, manifests, costs or models."""
    shutil.copytree("a/reports", "artifact")
    assert main(["compare", "artifact", "worse/reports"]) == 0
    told = capsys.readouterr().out
    assert "sketch" in told
    assert "contents are unchecked" in told
    assert (paths.COMPARE_FOLDER / "compare.html").is_file()
    assert str(there) not in (paths.COMPARE_FOLDER / "compare.html").read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "no such folder"),
        ("empty", "a folder without reports/evaluation"),
        ("", "no such folder"),
        ("empty\udcff", "empty\\udcff: found a folder without reports/evaluation"),
        ("HEAD\udcff", "HEAD\\udcff: found no such folder"),
        ("\udcff\n", "\\udcff\\n: found no such folder"),
    ],
)
def test_a_name_that_is_nothing_is_one_line(there, capsys, name, says):
    for folder in ("empty", "empty\udcff"):
        Path(folder).mkdir(exist_ok=True)
    assert main(["compare", "a", name]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert says in told
    assert "expected workspace, a folder of reports, a git revision or a DVC experiment" in told


def test_a_folder_of_any_bytes_is_compared(there, capsys):
    shutil.copytree("a/reports", "of\udcffbytes")
    assert main(["compare", "a", "of\udcffbytes"]) == 0
    assert "No difference" in capsys.readouterr().out
    page = (paths.COMPARE_FOLDER / "compare.html").read_text(encoding="utf-8")
    assert "of\\udcffbytes" in page


@pytest.mark.parametrize("output", ["taken", "taken/below"])
def test_an_output_that_is_no_folder_is_one_line(there, capsys, output):
    Path("taken").touch()
    assert main(["compare", "a", "worse", "--fail-if-worse", "--output", output]) == 2
    assert f"error: --output {output}: " in capsys.readouterr().err


@pytest.mark.slow
def test_folders_need_neither_torch_nor_the_orchestrators(there):
    code = (
        "import sys; from steps.__main__ import main; s = main(['compare', 'a', 'worse']);"
        "print(s, {'torch', 'zenml', 'dvc', 'mlflow', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_a_folder_from_elsewhere_runs_nothing(there, tmp_path, capsys):
    """Its .git/config may name programs, which `git status` would start."""
    shutil.copytree("a", tmp_path / "foreign")
    Path(tmp_path, "foreign", "params.yaml").write_text("{}\n")
    Path(tmp_path, "foreign", ".gitattributes").write_text("* filter=evil\n")
    for words in (
        ("init", "-q"),
        ("add", "-A"),
        ("commit", "-q", "-m", "x"),
        ("config", "core.fsmonitor", f"touch {tmp_path}/ran #"),
        ("config", "filter.evil.clean", f"touch {tmp_path}/ran; cat"),
    ):
        subprocess.run(["git", "-C", tmp_path / "foreign", *words], env=ENVIRONMENT, check=True)
    Path(tmp_path, "foreign", "params.yaml").write_text("{ }\n")
    assert main(["compare", "a", str(tmp_path / "foreign")]) == 0
    assert not Path(tmp_path, "ran").exists()
    assert "B: its folder is another repository's" in capsys.readouterr().out
