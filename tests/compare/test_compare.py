"""`python -m steps compare` on folders, and on a small repository whose files lie in DVC's cache
and remote.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

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
        ("HEAD\udcff", "HEAD\\udcff: found no such folder"),
        ("\udcff\n", "\\udcff\\n: found no such folder"),
    ],
)
def test_a_name_that_is_nothing_is_one_line(there, capsys, name, says):
    Path("empty").mkdir(exist_ok=True)
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


# Stages that copy what is committed below given/: quick, with the outs of the pipeline at the
# pipeline's places.
STAGES = {
    "plan": [paths.PLANS],
    "prepare@sketch": [paths.manifest_file("sketch")],
    "train@none-0": [paths.model_folder("none", 0)],
    "cost": [paths.COST],
    "evaluate@none-0": [
        paths.predictions_folder("none", 0),
        paths.evaluation_folder("none", 0),
    ],
}

READS = {  # besides: committed files, a file of an out, an out, and a folder of outs
    "plan": ["params.yaml"],
    "train@none-0": [str(paths.plan_file("report"))],
    "evaluate@none-0": [str(paths.model_folder("none", 0)), str(paths.MANIFESTS)],
}


class Project:
    """A git repository with a DVC cache and a local remote: tag `first`, then HEAD, which is
    worse.
    """

    def __init__(self, place: Path) -> None:
        self.root, self.remote = place / "project", place / "remote"
        self.root.mkdir()
        self.run("git", "init", "-q", "-b", "main")
        self.dvc("init", "-q")
        shutil.copy(ROOT / ".dvcignore", self.root)
        (self.root / "densecl").mkdir()
        stages = {
            name.replace("@", "_"): {
                "cmd": " && ".join(
                    f"mkdir -p {out.parent} && cp -R given/{out} {out}" for out in outs
                ),
                "deps": ["densecl/code.py", *READS.get(name, ()), *(f"given/{o}" for o in outs)],
                "outs": [str(out) for out in outs],
            }
            for name, outs in STAGES.items()
        }
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        (self.root / "params.yaml").write_text("{}\n")
        self.commit("first", 0.0, "1")
        self.run("git", "tag", "first")
        self.dvc(
            "remote", "add", "-q", "-d", "local", str(self.remote)
        )  # which the first commit does not know
        self.dvc("push", "-q")
        self.commit("worse", -0.2, "2")
        self.dvc("push", "-q")

    def commit(self, name: str, gain: float, code: str) -> None:
        self.give(gain, code)
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", name)

    def give(self, gain: float, code: str) -> None:
        shutil.rmtree(self.root / "given", ignore_errors=True)
        of_luck = 1 if gain else 0
        Planted(
            images=300,
            sets=("sketch",),
            modes=("none",),
            gains={("none", "sketch"): gain},
            of_luck=of_luck,
            params={"gain": gain},
        ).write(self.root / "given")
        (self.root / "densecl" / "code.py").write_text(f"# {code}\n")
        self.dvc("repro", "-q")

    def run(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self.root, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def dvc(self, *words: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *words)

    def state(self) -> tuple[str, str]:
        files = {
            p: p.read_bytes()
            for p in sorted((self.root / "reports").rglob("*"))
            if p.is_file() and "compare" not in p.parts
        }
        return self.run("git", "status", "--porcelain"), str(hash(str(files)))

    def list_evaluation(self, revision: str, remote: Path | None = None) -> dict[Path, Path]:
        """Outs of the evaluation at a revision, the files in them, and the list of the plan's
        files -> their copies in the remote.
        """
        stages = yaml.safe_load(self.run("git", "show", f"{revision}:dvc.lock"))["stages"]

        def locate(md5: str) -> Path:
            return (remote or self.remote) / "files" / "md5" / md5[:2] / md5[2:]

        plan = stages["plan"]["outs"][0]  # tells which stages are stale
        found = {Path(plan["path"]): locate(plan["md5"])}
        for out in stages["evaluate_none-0"]["outs"]:
            found[Path(out["path"])] = locate(out["md5"])
            for entry in json.loads(locate(out["md5"]).read_text()):
                found[Path(out["path"], entry["relpath"])] = locate(entry["md5"])
        return found

    def commit_stale(self, branch: str, edit: Callable[[Path], None], *targets: str) -> None:
        """Commit an edit of HEAD's files after `dvc repro` of some targets alone."""
        self.restore()
        self.run("git", "checkout", "-q", "-B", branch)
        edit(self.root)
        if targets:
            self.dvc("repro", "-q", "--single-item", *targets)
        self.run("git", "commit", "-q", "-a", "-m", branch)

    def restore(self) -> None:
        self.run("git", "checkout", "-q", "--force", "main")
        self.dvc("checkout", "-q", "--force")

    def wiped(self) -> None:
        shutil.rmtree(self.root / ".dvc" / "cache", ignore_errors=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("dvc"))


@pytest.fixture
def inside(project, monkeypatch, tmp_path) -> Project:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path))  # no listing of folders remembered
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (project.root / ".git" / "info" / "exclude").write_text("/reports/compare/\n")
    return project


def test_two_revisions(inside, capsys):
    before = inside.state()
    assert main(["compare", "first", "HEAD", "--fail-if-worse"]) == 1
    told = capsys.readouterr()
    assert "B is worse than A on " in told.err
    assert "sketch (none: −" in told.err
    page = (paths.COMPARE_FOLDER / "compare.html").read_text()
    assert inside.run("git", "rev-parse", "first").strip()[:12] in page
    assert "densecl/code.py" in page
    assert "none-0: the same weights" in page
    assert "gain" in page
    assert inside.state() == before


def test_numbers_of_a_revision_are_those_of_its_files(inside):
    main(["compare", "first", "HEAD"])
    row = pd.read_csv(paths.COMPARE_FOLDER / "compare.csv").query("metric == 'top1'").iloc[0]
    ways = {
        "a": Planted(images=300),
        "b": Planted(images=300, gains={("none", "sketch"): -0.2}, of_luck=1),
    }
    for side, way in ways.items():
        assert row[side] == pytest.approx(way.rows("sketch", "none", 0)["correct"].mean())


@pytest.mark.slow
def test_an_experiment_and_the_workspace(inside, capsys):
    inside.give(0.2, "3")
    inside.dvc("exp", "save", "-q", "-n", "tried")
    before = inside.state()
    assert main(["compare", "first", "tried"]) == 0
    assert "B is better than A on sketch" in capsys.readouterr().out
    assert main(["compare", "tried", "workspace"]) == 0
    told = capsys.readouterr().out
    assert "No difference: A and B answered every image alike in 1 cell." in told
    assert main(["compare", "tried", "workspace", "--fail-if-worse"]) == 0
    told = capsys.readouterr().out
    assert "B has changes that are in no commit: densecl/code.py" in told
    assert inside.state() == before
    path = paths.evaluation_file("sketch", "none", 0)
    path.write_text(path.read_text() + "\n")
    assert main(["compare", "tried", "workspace"]) == 0
    assert f"Stale: in B, {path.parent} (not as in dvc.lock)" in capsys.readouterr().out


def edit_params(root: Path) -> None:
    (root / "params.yaml").write_text("{ }\n")


def edit_code(root: Path) -> None:
    (root / "densecl" / "code.py").write_text("# edited\n")


def rename_code(root: Path) -> None:
    command = ["git", "mv", "densecl/code.py", "densecl/renamed.py"]
    subprocess.run(command, cwd=root, check=True)


def edit_command(root: Path) -> None:
    file = root / "dvc.yaml"
    file.write_text(file.read_text().replace("&& cp -R given/models", "&& cp -R -p given/models"))


def remove_dependency(root: Path) -> None:
    """Of one stage, so that code may change without a word of `dvc status`."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())
    stages["stages"]["train_none-0"]["deps"].remove("densecl/code.py")
    (root / "dvc.yaml").write_text(yaml.safe_dump(stages))


def edit_plan(root: Path) -> None:
    path = root / "given" / paths.plan_file("report")
    path.write_text(path.read_text() + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "targets", "stale"),
    [
        (edit_params, [], "plan (params.yaml)."),
        (
            edit_code,
            [],
            "cost, evaluate_none-0, plan, prepare_sketch, train_none-0 (densecl/code.py).",
        ),
        (
            rename_code,
            [],
            "cost, evaluate_none-0, plan, prepare_sketch, train_none-0 (densecl/code.py).",
        ),
        (edit_command, [], "train_none-0 (another command in dvc.yaml)."),
        (
            remove_dependency,
            [],
            "train_none-0 (densecl/code.py is in dvc.lock and no longer in dvc.yaml; only "
            "`dvc repro --force` or `dvc commit` renews that entry).",
        ),
        # an interrupted run: the plan is new, and nothing has read it
        (edit_plan, ["plan"], "train_none-0 (data/plan/report.json)."),
    ],
)
def test_a_revision_whose_lock_was_made_from_other_files_is_not_comparable(
    inside, capsys, edit, targets, stale
):
    inside.commit_stale("stale", edit, *targets)
    inside.restore()
    assert main(["compare", "HEAD", "stale"]) == 0
    told = capsys.readouterr().out
    assert f"Stale: in B, {stale} Run" in told
    assert "No difference" not in told
    assert main(["compare", "stale", "HEAD", "--fail-if-worse"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"Stale: in A, {stale} Run" in told
    status = json.loads(inside.dvc("status", "--json"))
    assert status == {}  # of HEAD: what is stale is seen without a checkout


@pytest.mark.slow
def test_stale_stages_of_a_workspace_are_those_of_dvc_status(inside, capsys):
    inside.restore()
    edit_code(inside.root)
    edit_plan(inside.root)
    inside.dvc("repro", "-q", "--single-item", "plan")
    edit_params(inside.root)
    status = json.loads(inside.dvc("status", "--json"))
    changed = {
        name: sorted(path for entry in entries for path in entry.get("changed deps", ()))
        for name, entries in status.items()
    }
    assert main(["compare", "HEAD", "workspace", "--fail-if-worse"]) == 2
    told = capsys.readouterr().err
    inside.restore()
    assert changed == {
        "plan": ["params.yaml"],
        "train_none-0": ["data/plan/report.json", "densecl/code.py"],
        "cost": ["densecl/code.py"],
        "evaluate_none-0": ["densecl/code.py"],
        "prepare_sketch": ["densecl/code.py"],
    }
    assert "plan (params.yaml)" in told
    assert "train_none-0 (data/plan/report.json)" in told
    assert "cost, evaluate_none-0, prepare_sketch, train_none-0 (densecl/code.py)" in told


def test_a_folder_without_all_outs_is_unchecked_and_not_stale(inside, tmp_path, capsys):
    """As an artifact of CI: the plan, which tells which stages are stale, is not in it."""
    inside.restore()
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(inside.root / name, artifact)
    shutil.copytree(inside.root / "reports", artifact / "reports")
    assert main(["compare", "HEAD", str(artifact)]) == 0
    told = capsys.readouterr().out
    assert "Stale" not in told
    assert "No difference" in told
    assert "could not be checked: data/plan" in told
    assert main(["compare", str(artifact), "HEAD", "--fail-if-worse"]) == 2
    assert "not comparable: A: whether dvc.lock was made from" in capsys.readouterr().err
    (artifact / "dvc.yaml").unlink()
    assert main(["compare", str(artifact), "HEAD", "--fail-if-worse"]) == 2
    assert "could not be checked: dvc.yaml is not there" in capsys.readouterr().err


def test_a_wiped_cache_is_filled_from_the_remote_and_an_absent_file_is_named(inside, capsys):
    inside.wiped()
    assert main(["compare", "first", "HEAD"]) == 0
    assert "B is worse than A" in capsys.readouterr().out
    inside.wiped()
    kept = inside.remote.rename(inside.remote.with_name("elsewhere"))
    assert main(["compare", "first", "HEAD"]) == 2
    told = capsys.readouterr().err
    kept.rename(inside.remote)
    assert told.count("\n") == 1
    assert "first: reports/evaluation/none-0/sketch.json and 1 more: in dvc.lock of commit" in told
    assert "dvc push" in told


def test_bytes_that_are_not_those_of_the_lock_are_not_compared(inside, capsys):
    inside.wiped()
    held = inside.list_evaluation("first")[paths.predictions_file("sketch", "none", 0)]
    right = held.read_bytes()
    held.chmod(0o644)
    held.write_bytes(right + b"x")
    assert main(["compare", "first", "HEAD"]) == 2
    told = capsys.readouterr().err
    held.write_bytes(right)
    assert told.count("\n") == 1
    assert (
        "first: reports/predictions/none-0/sketch.parquet: DVC's stored copy does not match the md5"
        in told
    )


def test_a_list_of_files_that_is_not_that_of_the_lock_is_not_followed(inside, capsys):
    inside.wiped()
    held = inside.list_evaluation("first")[paths.predictions_folder("none", 0)]
    right = held.read_bytes()
    other = inside.list_evaluation("HEAD")[paths.predictions_folder("none", 0)]
    held.chmod(0o644)
    held.write_bytes(other.read_bytes())
    assert main(["compare", "first", "HEAD"]) == 2
    told = capsys.readouterr().err
    held.write_bytes(right)
    assert told.count("\n") == 1
    assert "reports/predictions/none-0: DVC's stored list of its files does not match" in told


def test_what_is_not_needed_may_be_absent(inside, capsys):
    inside.wiped()
    kept = inside.remote.rename(inside.remote.with_name("elsewhere"))
    for revision in ("first", "HEAD"):
        for path in inside.list_evaluation(revision, kept).values():
            target = inside.remote / path.relative_to(kept)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert main(["compare", "first", "HEAD"]) == 0
    told = capsys.readouterr().out
    shutil.rmtree(inside.remote)
    kept.rename(inside.remote)
    assert "B is worse than A" in told
    assert re.search(r"A: \S+ and 3 more: neither in DVC.s cache nor in its remote", told), told


def test_a_revision_without_lock_says_what_to_commit(inside, capsys):
    inside.run("git", "checkout", "-q", "-b", "bare", "first", "--force")
    inside.run("git", "rm", "-q", "--cached", "dvc.lock")
    inside.run("git", "commit", "-q", "-m", "no lock")
    inside.run("git", "checkout", "-q", "--force", "main")
    assert main(["compare", "bare", "HEAD"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "bare: no dvc.lock in commit" in told
    assert "git add dvc.lock" in told


def edit_lock(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text)


@pytest.mark.parametrize(
    ("file", "edit", "says"),
    [
        ("dvc.lock", lambda _: "{{{", "dvc.lock: found no stages as DVC writes them"),
        ("dvc.lock", lambda _: "", "dvc.lock: found no stages as DVC writes them"),
        ("dvc.lock", lambda _: "[" * 50_000, "dvc.lock: found too many brackets"),
        ("dvc.yaml", lambda _: "- " * 50_000, "dvc.yaml: found too many brackets or lists"),
        ("params.yaml", lambda _: "{a: " * 50_000, "params.yaml: found too many brackets"),
        ("params.yaml", lambda _: "a: [", "DVC: unable to read: 'params.yaml'"),
        ("dvc.lock", edit_lock(r"md5: \w{32}", "md5: ../x"), r"found no stages .*md5 ../x"),
        ("dvc.lock", edit_lock("evaluate_none-0", "evaluate_nada-0"), "in dvc.lock of commit"),
    ],
)
def test_a_revision_whose_files_are_not_dvcs_is_one_line(inside, capsys, file, edit, says):
    def write(root: Path) -> None:
        (root / file).write_text(edit((root / file).read_text()))

    inside.commit_stale("hostile", write)
    inside.run("git", "checkout", "-q", "--force", "main")
    assert main(["compare", "HEAD", "hostile", "--fail-if-worse"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(says, told), told
