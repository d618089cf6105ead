"""`python -m steps compare` on a small repository whose files lie in DVC's cache and remote."""

import json
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
from steps.__main__ import main
from tests.compare.test_compare import ENVIRONMENT, ROOT
from tests.report.factories import Planted

pytestmark = pytest.mark.slow  # a repository with two runs takes eight seconds

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


def remove_code(root: Path) -> None:
    subprocess.run(["git", "rm", "-qr", "densecl"], cwd=root, check=True)


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
        (
            remove_code,
            [],
            "cost, evaluate_none-0, plan, prepare_sketch, train_none-0 (densecl/code.py).",
        ),
        (edit_command, [], "train_none-0 (another command in dvc.yaml)."),
        (
            remove_dependency,
            [],
            "train_none-0 (dvc.lock has densecl/code.py of it, dvc.yaml no longer names that; only "
            "`dvc repro --force` or `dvc commit` renews the entry).",
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


OF_COMMIT = r"of commit \w{12}"


def edit_lock(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text)


@pytest.mark.parametrize(
    ("file", "edit", "says"),
    [
        ("dvc.lock", lambda _: "{{{", f"dvc.lock {OF_COMMIT}: found no stages as DVC writes .*git"),
        ("dvc.lock", lambda _: "", f"dvc.lock {OF_COMMIT}: found no stages as DVC writes them"),
        ("dvc.lock", lambda _: "[" * 50_000, f"dvc.lock {OF_COMMIT}: found too many brackets"),
        ("dvc.yaml", lambda _: "- " * 50_000, f"dvc.yaml {OF_COMMIT}: found too many brackets or"),
        ("params.yaml", lambda _: "{a: " * 50_000, "params.yaml of .*: found too many brackets"),
        ("params.yaml", lambda _: "a: [", "DVC: unable to read: 'params.yaml'"),
        ("dvc.yaml", lambda _: "<<<<<<< HEAD", "DVC: .*dvc.yaml' validation failed"),
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
    assert "../" not in told.replace("md5 ../x", "")


def test_a_submodule_among_the_code_is_one_line(inside, tmp_path, capsys):
    other = tmp_path / "other"
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    (other / "a.py").write_text("1\n")
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "-C", str(other), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(other), *author, "commit", "-qm", "x"], check=True)

    def add_submodule(root: Path) -> None:
        allow = ["git", "-c", "protocol.file.allow=always"]
        subprocess.run(
            [*allow, "submodule", "--quiet", "add", str(other), "densecl/third"],
            cwd=root,
            check=True,
        )
        stages = yaml.safe_load((root / "dvc.yaml").read_text())
        stages["stages"]["cost"]["deps"].append("densecl")
        (root / "dvc.yaml").write_text(yaml.safe_dump(stages))

    inside.commit_stale("nested", add_submodule)
    inside.run("git", "checkout", "-q", "--force", "main")
    assert main(["compare", "HEAD", "nested"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "densecl/third: found a git submodule" in told
