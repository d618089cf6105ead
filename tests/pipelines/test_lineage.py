"""From a version, a path, an md5 or a run back to the images, with what is missing told."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from densecl.errors import DenseclError
from densecl.monitoring.mlflow_store import TRAINING_EXPERIMENT
from pipelines.lineage.render import render_mermaid
from pipelines.lineage.resolve import build_lineage, main
from pipelines.registry import registry
from tests.pipelines.conftest import verdict

NAME = "densecl-vit"
FINGERPRINT = "0123456789abcdef"


def md5(path):
    return hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()


def folder_md5(path):
    """As DVC writes it, with the list in DVC's cache, as `dvc repro` leaves it."""
    listed = [
        {"md5": md5(f), "relpath": f.relative_to(path).as_posix()}
        for f in sorted(Path(path).rglob("*"))
        if f.is_file()
    ]
    data = json.dumps(listed, sort_keys=True).encode()
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    place = Path(".dvc/cache/files/md5", digest[:2], f"{digest[2:]}.dir")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return f"{digest}.dir"


def entry(path):
    return {
        "path": path,
        "hash": "md5",
        "md5": folder_md5(path) if Path(path).is_dir() else md5(path),
    }


def write(path, words):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(words, encoding="utf-8")


def lock(reads_and_writes):
    stages = {
        name: {"cmd": name, "deps": [entry(p) for p in reads], "outs": [entry(p) for p in writes]}
        for name, (reads, writes) in reads_and_writes.items()
    }
    Path("dvc.lock").write_text(
        yaml.safe_dump({"schema": "2.0", "stages": stages}), encoding="utf-8"
    )
    return {
        name: {out["path"]: out["md5"] for out in stage["outs"]} for name, stage in stages.items()
    }


STAGES = {
    "plan": (["params.yaml"], ["data/plan"]),
    "prepare@imagenet-train": (
        ["data/plan/imagenet-train.json", "photos/train"],
        ["data/manifests/imagenet-train.parquet"],
    ),
    "prepare@imagenet": (
        ["data/plan/imagenet.json", "photos/train", "photos/val"],
        ["data/manifests/imagenet.parquet"],
    ),
    "validate": (["data/manifests"], ["data/validation"]),
    "train@dense-0": (
        [
            "data/plan/dense.json",
            "data/manifests/imagenet-train.parquet",
            "data/validation/imagenet-train.json",
            "densecl/vit.py",
        ],
        ["models/dense/seed-0"],
    ),
    "train@none-0": (
        ["data/plan/none.json", "data/manifests/imagenet-train.parquet"],
        ["models/none/seed-0"],
    ),
    "evaluate@dense-0": (
        [
            "data/plan/evaluate.json",
            "data/manifests/imagenet.parquet",
            "data/validation/imagenet.json",
            "models/dense/seed-0",
        ],
        ["reports/evaluation/dense-0/imagenet.json"],
    ),
    "evaluate@none-0": (
        ["data/manifests/imagenet.parquet", "models/none/seed-0"],
        ["reports/evaluation/none-0/imagenet.json"],
    ),
    "report": (["reports/evaluation"], ["reports/comparison.csv"]),
}


@pytest.fixture
def pipeline(project, trained, monkeypatch):
    """What a pipeline leaves, written by hand, and its dense model as champion."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    Repo.init(".", no_scm=True).close()
    for unit in ("imagenet-train", "imagenet", "dense", "none", "evaluate"):
        write(
            f"data/plan/{unit}.json",
            json.dumps({"name": unit, "train": {"epochs": 2}}),
        )
    for place in (
        "photos/train/n1/a.JPEG",
        "photos/val/n1/b.JPEG",
        "data/manifests/imagenet-train.parquet",
        "data/manifests/imagenet.parquet",
        "data/validation/imagenet-train.json",
        "data/validation/imagenet.json",
        "densecl/vit.py",
        "models/none/seed-0/config.json",
        "reports/evaluation/dense-0/imagenet.json",
        "reports/evaluation/none-0/imagenet.json",
        "reports/comparison.csv",
    ):
        write(place, json.dumps({"content of": place}))
    trained(FINGERPRINT)
    return lock(STAGES)


@pytest.fixture
def version(pipeline, client):
    """The dense model as version 1, trained in an MLflow run; tags as the retraining gives them."""
    experiment = client.create_experiment(TRAINING_EXPERIMENT)
    run = client.create_run(
        experiment, tags={"fingerprint": FINGERPRINT, "mlflow.source.git.commit": "c" * 40}
    )
    tags = {
        "dvc_md5": pipeline["train@dense-0"]["models/dense/seed-0"],
        "git": "",
        "mlflow_run": run.info.run_id,
        "zenml_run": "01234567-89ab-cdef-0123-456789abcdef",
        "md5 data/manifests/imagenet-train.parquet": pipeline["prepare@imagenet-train"][
            "data/manifests/imagenet-train.parquet"
        ],
    }
    registry.register_model(NAME, Path("models/dense/seed-0"), verdict(), tags)
    registry.promote_version(NAME, "1", "ann", "the gate")
    return tags


CHAIN = [
    "data photos/train",
    "data photos/val",
    "prepare@imagenet-train",
    "prepare@imagenet",
    "validate",
    "train@dense-0",
    "evaluate@dense-0",
    "report",
    "gate of version 1",
    "version 1 of densecl-vit",
]


def names(chain):
    return [link.name for link in chain.nodes]


def notes(chain):
    return [note for link in chain.nodes for note in link.notes]


def link(chain, name):
    return next(each for each in chain.nodes if each.name == name)


@pytest.mark.slow
def test_all_that_names_the_champion_gives_its_chain(version, pipeline):
    for x in (
        "champion",
        "candidate",
        "1",
        "v1",
        "models/dense/seed-0",
        "models/dense/seed-0/model.safetensors",
        str(Path("models/dense/seed-0").absolute()) + "/",
        version["dvc_md5"],
        version["dvc_md5"].removesuffix(".dir"),
        md5("models/dense/seed-0/model.safetensors"),
        version["mlflow_run"],
        version["zenml_run"],
    ):
        chain = build_lineage(x)
        assert sorted(names(chain)) == sorted(CHAIN), x
        assert notes(chain) == [], x
        assert chain.notes == [], x
    assert {
        ("data photos/train", "prepare@imagenet-train"),
        ("prepare@imagenet-train", "validate"),
        ("validate", "train@dense-0"),
        ("train@dense-0", "evaluate@dense-0"),
        ("evaluate@dense-0", "report"),
        ("evaluate@dense-0", "gate of version 1"),
        ("gate of version 1", "version 1 of densecl-vit"),
    } <= set(chain.graph.edges)


def test_each_link_has_md5_params_and_runs(version, pipeline):
    chain = build_lineage("champion")
    training = link(chain, "train@dense-0")
    assert [f.path for f in training.reads] == [
        "data/manifests/imagenet-train.parquet",
        "data/validation/imagenet-train.json",
    ]
    assert {f.path: f.md5 for f in training.writes} == pipeline["train@dense-0"]
    facts = dict(training.facts)
    assert facts["params data/plan/dense.json"] == md5("data/plan/dense.json")
    assert facts["values"] == 'name "dense", train.epochs 2'
    assert (facts["fingerprint"], facts["mlflow_run"], facts["trained at git"]) == (
        FINGERPRINT,
        version["mlflow_run"],
        "c" * 40,
    )
    assert facts["code"] == f"densecl/vit.py {md5('densecl/vit.py')[:12]}"
    told = dict(link(chain, "version 1 of densecl-vit").facts)
    assert told["zenml_run"] == version["zenml_run"]
    assert "promoted by ann: the gate" in told["history"]
    assert dict(link(chain, "gate of version 1").facts)["val imagenet"].startswith(
        "val is +2.0 points"
    )


def test_a_set_s_chain_reaches_every_model(pipeline):
    chain = build_lineage("photos/train")
    assert {"train@dense-0", "train@none-0", "report", "data photos/train"} <= set(names(chain))
    assert set(names(build_lineage("reports/comparison.csv"))) >= {
        "train@dense-0",
        "train@none-0",
        "data photos/val",
    }
    assert "evaluate@dense-0" not in names(build_lineage("models/none/seed-0"))
    assert "train@none-0" not in names(build_lineage("data/plan/dense.json"))
    assert names(build_lineage("photos/train/n1/a.JPEG")) == names(chain)


def test_later_changes_are_reported_at_their_stage(version, pipeline):
    code = md5("densecl/vit.py")
    write("photos/val/n1/b.JPEG", "another")
    write("densecl/vit.py", "another")
    write("data/plan/dense.json", "{}")
    Path("data/manifests/imagenet-train.parquet").unlink()
    chain = build_lineage("champion")
    assert link(chain, "data photos/val").notes[0].startswith("photos/val: recorded ")
    assert link(chain, "data photos/train").notes == []
    training = "\n".join(link(chain, "train@dense-0").notes)
    plan = dict(link(chain, "train@dense-0").facts)["params data/plan/dense.json"]
    assert (
        f"data/plan/dense.json: its content {plan} is in neither the workspace nor DVC's cache"
        in training
    )
    assert f"densecl/vit.py: recorded {code[:12]}, now " in training
    assert link(chain, "prepare@imagenet-train").notes[0].endswith("no longer there")


def test_a_stage_whose_input_was_recreated_is_marked(pipeline):
    data = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    data["stages"]["evaluate@dense-0"]["deps"][2]["md5"] = (
        "e" * 32
    )  # of data/validation/imagenet.json
    data["stages"]["evaluate@dense-0"]["deps"][3]["md5"] = "f" * 32 + ".dir"
    Path("dvc.lock").write_text(yaml.safe_dump(data), encoding="utf-8")
    found = "\n".join(link(build_lineage("models/dense/seed-0"), "evaluate@dense-0").notes)
    assert "models/dense/seed-0: read ffffffffffff, but train@dense-0 has left" in found
    assert "data/validation/imagenet.json: read eeeeeeeeeeee, but validate has left" in found


def test_an_older_version_is_found_in_git_and_without_git_in_its_tags(version, pipeline, trained):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    trained("fedcba9876543210")
    before = Path("dvc.lock").read_text(encoding="utf-8")
    lock(STAGES)
    lost = build_lineage("v1")
    assert lost.snapshot.source == "the tags of version 1"
    assert names(lost) == ["train@dense-0", "gate of version 1", "version 1 of densecl-vit"]
    assert "no dvc.lock, of the workspace or of a commit, records the model's md5" in lost.notes[0]
    assert link(lost, "train@dense-0").reads[0].path == "data/manifests/imagenet-train.parquet"
    now = Path("dvc.lock").read_text(encoding="utf-8")
    git("init", "-q")
    write("dvc.lock", before)
    git("add", "dvc.lock")
    git("commit", "-qm", "first")
    write("dvc.lock", now)
    git("commit", "-qam", "second")
    found = build_lineage("v1")
    assert sorted(names(found)) == sorted(CHAIN)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD~1"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert found.snapshot.git == commit
    assert any(
        "models/dense/seed-0: recorded" in note for note in link(found, "train@dense-0").notes
    )
    assert build_lineage("models/dense/seed-0").snapshot.git.rstrip("+") != commit


def test_a_zenml_run_without_a_version_is_found_by_the_models_it_trained(pipeline, monkeypatch):
    model, asked = pipeline["train@none-0"]["models/none/seed-0"], []
    monkeypatch.setattr(
        "pipelines.lineage.resolve.list_run_models", lambda x: asked.append(x) or [model]
    )
    chain = build_lineage("11111111-1111-1111-1111-111111111111")
    assert asked == ["11111111-1111-1111-1111-111111111111"]
    assert chain.resolved_as == "ZenML run 11111111-1111-1111-1111-111111111111"
    assert {"train@none-0", "evaluate@none-0", "data photos/val", "report"} <= set(names(chain))
    assert "train@dense-0" not in names(chain)


def test_a_registry_that_is_down_is_a_note(pipeline, monkeypatch):
    Path("mlflow.db").write_bytes(b"no database" * 1000)
    chain = build_lineage("models/dense/seed-0")
    assert "train@dense-0" in names(chain)
    assert "put it back from a backup" in chain.notes[0]


def test_nothing_found_says_what_x_may_be(version):
    for x in (
        "models/dense/seed-9",
        "models/dense/seed-0/nonsense",
        "models",
        "nonsense",
        "a" * 32,
        "11111111-1111-1111-1111-111111111111",
        "",
        "../elsewhere",
    ):
        with pytest.raises(
            DenseclError,
            match=r"expected a path .*, an md5 .*, an MLflow run id, a ZenML run id, or a version",
        ):
            build_lineage(x)
    with pytest.raises(DenseclError, match="found no version v7"):
        build_lineage("v7")
    Path("dvc.lock").write_text("stages: [", encoding="utf-8")
    with pytest.raises(
        DenseclError, match=r"dvc\.lock of the workspace: found no stages as DVC writes them"
    ):
        build_lineage("models/dense/seed-0")


def call_a_folder(name):
    data = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    data["stages"]["prepare@imagenet"]["deps"][2]["path"] = name
    Path("dvc.lock").write_text(yaml.safe_dump(data), encoding="utf-8")


def test_text_and_mermaid_hold_the_chain_and_names_are_harmless(version, pipeline, capsys):
    call_a_folder('photos/val"]; <script>alert(1)</script>\x1b[2J')
    main("champion")
    printed, chain = capsys.readouterr().out, build_lineage("champion")
    for name in CHAIN:
        if name != "data photos/val":
            assert name in printed
    assert "\x1b" not in printed
    assert printed.startswith("version 1 of densecl-vit\nfrom dvc.lock of the workspace")
    assert "MERMAID\nflowchart LR" in printed
    mermaid = render_mermaid(chain)
    assert mermaid.count('"') == 2 * len(chain.nodes)
    assert mermaid.splitlines()[0] == "flowchart LR"
    assert "<script" not in mermaid
