"""Models that the pipeline did not train: the same cells as those of the modes, by the same code."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from densecl import paths
from densecl.artifacts import Evaluation, ProbeEvaluation, read_evaluation
from densecl.errors import DenseclError
from densecl.evaluation.other_models import (
    create_classifier,
    describe_tokens,
    find_token_problem,
    select_classes,
)
from densecl.evaluation.probing import run as probe_runs
from densecl.evaluation.probing.result import ProbeResult, build_measure
from densecl.network.vit import forward_blocks
from steps import evaluate, evaluate_model, plan, prepare, validate
from tests.conftest import WNIDS, draw_set, write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
SETS = {"imagenet": WNIDS, "sketch": WNIDS[1:], "stylized": WNIDS}
PER_CLASS = 4
MODEL = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared and validated sets, with a random model `none`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        draw_set(Path("imagenet-train"), 2)
        for seed, (name, wnids) in enumerate(SETS.items(), 1):
            draw_set(Path(name), PER_CLASS, seed=seed, folders=wnids)
        given = yaml.safe_load((Path(__file__).parent.parent / "small.yaml").read_text())
        given["network"]["model_args"] = ARGS
        given |= {
            "render": {},
            "modes": ["none"],
            "datasets": {n: {"root": n, "tracked_by": n} for n in ("imagenet-train", *SETS)},
            "evaluate": {"datasets": list(SETS), "batch_size": 4},
        }
        write_model(paths.model_folder("none", 0), list(WNIDS), ARGS)
        Path("params.yaml").write_text(yaml.safe_dump(given))
        plan.main()
        for name in given["datasets"]:
            prepare.main(name)
        validate.main()
        return Path.cwd()


@pytest.fixture
def values(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Params of a copy of the project, which is the working directory."""
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    return yaml.safe_load(Path("params.yaml").read_text())


def plan_models(values: dict, models: dict, **evaluate_params) -> None:
    values["evaluate"] |= {"models": models, **evaluate_params}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()


def run(capsys, name: str) -> tuple[int, int]:
    """Cells from the cell cache, and images run, as the stage says at its end."""
    capsys.readouterr()
    evaluate_model.main(name)
    said = capsys.readouterr().out
    found = re.search(rf"{name}: (\d+) of \d+ from the cell cache, (\d+) images run", said)
    return int(found[1]), int(found[2])


def read_rows(dataset: str, mode: str, seed: int | None) -> pd.DataFrame:
    return pd.read_parquet(paths.predictions_file(dataset, mode, seed))


def write_weights(path: Path, classes: int, prefix: str = "", **model_args) -> dict:
    """Random weights in timm's naming, whose answers differ from image to image."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = timm.create_model(MODEL, num_classes=classes, **(ARGS | model_args))
    model.head.weight.data.mul_(50)
    state = {prefix + name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["copied", "./copied/model.safetensors"])
def test_a_trained_model_given_by_its_path_is_the_mode_s_own_cell_from_the_cache(
    values, capsys, weights
):
    evaluate.main("none", 0)
    shutil.copytree(paths.model_folder("none", 0), "copied")
    plan_models(values, {"same": weights if "/" in weights else {"weights": weights}})
    assert run(capsys, "same") == (len(SETS), 0)
    for dataset in SETS:
        pd.testing.assert_frame_equal(
            read_rows(dataset, "same", None), read_rows(dataset, "none", 0)
        )
        same = read_evaluation(paths.evaluation_file(dataset, "same", None))
        trained = read_evaluation(paths.evaluation_file(dataset, "none", 0))
        assert (same.mode, same.seed) == ("same", None)
        control = trained.control and trained.control.model_copy(
            update={"predictions": same.control.predictions}
        )
        changed = {"mode": "same", "seed": None, "control": control}
        assert same == trained.model_copy(update=changed)
    shutil.rmtree("cache/evaluation")  # computed, not read: the same bits
    before = {dataset: read_rows(dataset, "same", None) for dataset in SETS}
    assert run(capsys, "same") == (0, PER_CLASS * sum(map(len, SETS.values())))
    for dataset, rows in before.items():
        pd.testing.assert_frame_equal(read_rows(dataset, "same", None), rows)


def test_images_are_turned_as_for_the_modes_whatever_the_model_says(values):
    shutil.copytree(paths.model_folder("none", 0), "theirs")
    config = Path("theirs/config.json")
    for own, exif in (("ignore", "apply"), ("apply", "ignore")):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"exif": own}))
        values.setdefault("data", {})["exif"] = exif
        plan_models(values, {"theirs": "./theirs"}, datasets=["imagenet"])
        for name in ("imagenet-train", "imagenet"):
            prepare.main(name)
        validate.main()
        evaluate_model.main("theirs")
        found = read_evaluation(paths.evaluation_file("imagenet", "theirs", None))
        assert found.preprocessing.exif == exif


def test_weights_in_timm_s_naming_are_scored_as_timm_scores_them(values):
    """Classes in another order and more of them; a prefix; another input size than the modes'."""
    classes = ["n20000000", WNIDS[2], WNIDS[0], "n20000001", WNIDS[1]]
    state = write_weights(Path("vit.safetensors"), len(classes), "module.", img_size=40)
    Path("classes.txt").write_text("\n".join(classes))
    spec = {
        "weights": "./vit.safetensors",
        "architecture": MODEL,
        "model_args": ARGS | {"img_size": 40},
        "classes": "classes.txt",
    }
    plan_models(values, {"theirs": spec})
    evaluate_model.main("theirs")
    model = timm.create_model(MODEL, num_classes=5, **spec["model_args"]).eval()
    model.load_state_dict({name.removeprefix("module."): x for name, x in state.items()})
    config = timm.data.resolve_data_config({}, model=model) | {"input_size": (3, 40, 40)}
    transform = timm.data.create_transform(**config, is_training=False)
    outputs = [classes.index(wnid) for wnid in WNIDS]
    for dataset, wnids in SETS.items():
        rows = read_rows(dataset, "theirs", None).set_index("image_id")
        assert len(rows) == PER_CLASS * len(wnids)
        scored = [outputs[WNIDS.index(wnid)] for wnid in wnids]
        for path, row in rows.iterrows():
            with torch.inference_mode():
                logits = model(transform(Image.open(path).convert("RGB"))[None])[0]
            best = scored[int(logits[scored].argmax())]
            assert WNIDS[row["prediction"]] == classes[best]
            assert WNIDS[row["label"]] == Path(path).parent.name
            confidence = float(logits[scored].double().softmax(0).max())
            assert row["confidence"] == pytest.approx(confidence, abs=1e-5)
    found = read_evaluation(paths.evaluation_file("imagenet", "theirs", None))
    assert found.preprocessing.input_size == (3, 40, 40)
    assert len(set(read_rows("imagenet", "theirs", None)["prediction"])) > 1


def test_images_of_classes_that_a_model_does_not_know_are_left_out_and_counted(values, capsys):
    write_weights(Path("two.safetensors"), 2)
    Path("two.txt").write_text(f"{WNIDS[1]}\nn20000000\n")
    spec = {"weights": "./two.safetensors", "architecture": MODEL, "model_args": ARGS}
    plan_models(
        values,
        {"two": spec | {"classes": "two.txt"}},
        classes={"stylized": [WNIDS[0], WNIDS[2]]},
    )
    evaluate_model.main("two")
    assert f"two: knows 1 of the {len(WNIDS)} classes" in capsys.readouterr().out
    found = read_evaluation(paths.evaluation_file("imagenet", "two", None))
    assert isinstance(found, Evaluation)
    others = PER_CLASS * (len(WNIDS) - 1)
    assert (found.images, found.outside, found.classes) == (PER_CLASS, others, 1)
    missing = read_evaluation(paths.evaluation_file("stylized", "two", None))
    assert not isinstance(missing, Evaluation)
    assert "knows none of the 2 classes" in missing.reason


def measure(context, params) -> ProbeResult:
    """A probe that says whether each image was right, of a model that can be."""
    right = context.plain_rows["correct"].astype(float) if context.is_scored else 1.0
    rows = context.build_rows().assign(plain=right)
    return ProbeResult(rows, {"plain": build_measure(rows, "plain")})


@pytest.fixture
def plain_probe(monkeypatch):
    """In the place of every probe."""
    module = type("module", (), {"measure": staticmethod(measure)})
    monkeypatch.setattr(probe_runs, "import_module", lambda _: module)


def test_probes_run_on_other_models(values, plain_probe):
    shutil.copytree(paths.model_folder("none", 0), "copied")
    plan_models(values, {"same": "./copied"}, probes={"knn": {}})
    evaluate.main("none", 0)
    evaluate_model.main("same")
    found, trained = (
        ProbeEvaluation.model_validate_json(paths.probe_file("knn", *model).read_text())
        for model in (("same", None), ("none", 0))
    )
    assert found.measures == trained.measures
    top1 = read_evaluation(paths.evaluation_file("imagenet", "same", None)).top1
    assert found.measures["plain"].value == top1
    pd.testing.assert_frame_equal(
        pd.read_parquet(paths.probe_rows_file("knn", "same", None)),
        pd.read_parquet(paths.probe_rows_file("knn", "none", 0)),
    )
    plan.main()  # removes nothing that it names
    assert paths.probe_rows_file("knn", "same", None).exists()
    plan_models(values, {})
    assert not paths.evaluation_folder("same", None).exists()
    assert not paths.predictions_folder("same", None).exists()
    assert not paths.model_folder("same", None).exists()
    assert paths.evaluation_folder("none", 0).exists()


def test_a_model_of_no_class_here_and_one_without_tokens_say_so_cell_by_cell(values, plain_probe):
    write_weights(Path("strange.safetensors"), 2)
    Path("strange.txt").write_text("n20000000\nn20000001\n")
    write_weights(Path("pooled.safetensors"), 3, class_token=False, global_pool="avg")
    Path("classes.txt").write_text("\n".join(WNIDS))
    pooled = ARGS | {"class_token": False, "global_pool": "avg"}
    given = {
        name: {"weights": f"./{name}.safetensors", "architecture": MODEL, **rest}
        for name, rest in {
            "strange": {"model_args": ARGS, "classes": "strange.txt"},
            "pooled": {"model_args": pooled, "classes": "classes.txt"},
        }.items()
    }
    plan_models(values, given, probes={"viewpoint": {}, "knn": {}})
    reasons = {}
    for name, failing in (("strange", "viewpoint"), ("pooled", "knn")):
        evaluate_model.main(name)
        path = paths.probe_file(failing, name, None)
        probe = ProbeEvaluation.model_validate_json(path.read_text())
        assert not probe.measures
        reasons[name] = probe.reason
    assert "2 classes that the model knows" not in reasons["strange"]  # of the training set's
    assert "none of its 12 images is of the 0 classes" in reasons["strange"]
    assert "no CLS token" in reasons["pooled"]
    # A probe that reads logits alone runs on any model.
    path = paths.probe_file("viewpoint", "pooled", None)
    assert "plain" in ProbeEvaluation.model_validate_json(path.read_text()).measures
    for dataset in SETS:
        cells = [read_evaluation(paths.evaluation_file(dataset, name, None)) for name in given]
        assert not isinstance(cells[0], Evaluation)
        assert isinstance(cells[1], Evaluation)


@pytest.mark.parametrize("scored", [(), WNIDS[:2]])
def test_tokens_are_probed_of_a_model_that_knows_no_class_here(values, scored):
    """A backbone, and one that classifies other classes, have the rows of the mode whose tokens
    they have.
    """
    probes = {"knn": {"k": 3}, "correspondence": {"images": 7}, "occlusion": {}}
    if scored:
        values["evaluate"]["classes"] = {"imagenet": list(scored)}
    own = paths.model_folder("none", 0)
    config = json.loads((own / "config.json").read_text())
    weights = load_file(own / "model.safetensors")
    body = {name: value for name, value in weights.items() if not name.startswith("head")}
    head = {"head.weight": torch.zeros(2, 24), "head.bias": torch.zeros(2)}
    for name, state, classes in (
        ("backbone", body, []),
        ("strange", body | head, ["n20000000", "n20000001"]),
    ):
        Path(name).mkdir()
        save_file(state, Path(name) / "model.safetensors")
        said = config | {"num_classes": len(classes), "classes": classes}
        if not classes:
            del said["classes"]  # as timm writes it
        (Path(name) / "config.json").write_text(json.dumps(said))
    plan_models(values, {n: f"./{n}" for n in ("backbone", "strange")}, probes=probes)
    evaluate.main("none", 0)
    for name in ("backbone", "strange"):
        evaluate_model.main(name)
        for probe in ("knn", "correspondence"):
            pd.testing.assert_frame_equal(
                pd.read_parquet(paths.probe_rows_file(probe, name, None)),
                pd.read_parquet(paths.probe_rows_file(probe, "none", 0)),
            )
            found, trained = (
                ProbeEvaluation.model_validate_json(paths.probe_file(probe, *model).read_text())
                for model in ((name, None), ("none", 0))
            )
            assert found.measures == trained.measures
        path = paths.probe_file("occlusion", name, None)
        assert "knows" in ProbeEvaluation.model_validate_json(path.read_text()).reason
        assert not isinstance(
            read_evaluation(paths.evaluation_file("imagenet", name, None)), Evaluation
        )


def test_selected_outputs_are_those_of_the_whole_classifier():
    config = {"architecture": MODEL, "model_args": ARGS, "num_classes": 4}
    model = timm.create_model(MODEL, num_classes=4, **ARGS).eval()
    other = create_classifier(config, model.state_dict()).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        whole = model(images)
        assert torch.equal(other(images), whole)
        assert select_classes(other, ["a", "b", "c", "d"], ["d", "x", "b"]) == ["d", "b"]
        torch.testing.assert_close(other(images), whole[:, [3, 1]])
    assert not find_token_problem(other)
    assert not describe_tokens(other)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "beitv2_base_patch16_224"])
def test_tokens_without_a_final_norm_have_a_note(name):
    """timm's averages the patches before its norm: the tokens have none."""
    model = timm.create_model(name, num_classes=3, **ARGS)
    (note,) = describe_tokens(model)
    assert "no final norm" in note
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        ((_, patches),) = forward_blocks(model.eval(), images, [len(model.blocks) - 1])
        features = model.forward_features(images)
    torch.testing.assert_close(patches, features[:, model.num_prefix_tokens :])
    assert patches.std(-1).sub(1).abs().max() > 0.01


def test_a_distilled_deit_answers_with_both_of_its_classifiers():
    name = "deit_tiny_distilled_patch16_224"
    model = timm.create_model(name, num_classes=3, **ARGS).eval()
    config = {"architecture": name, "model_args": ARGS, "num_classes": 3}
    other = create_classifier(config, model.state_dict()).eval()
    assert select_classes(other, list("abc"), list("ca")) == ["c", "a"]
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(other(images), model(images)[:, [2, 0]])


def test_a_position_embedding_of_another_size_is_resampled_as_timm_does():
    model = timm.create_model(MODEL, num_classes=3, **ARGS)
    larger = ARGS | {"img_size": 48}
    config = {"architecture": MODEL, "model_args": larger, "num_classes": 3}
    other = create_classifier(config, model.state_dict())
    assert other.pos_embed.shape == (1, 1 + 36, 24)
    assert torch.equal(other.pos_embed[:, 0], model.pos_embed[:, 0])


def test_an_edited_weights_file_is_another_model(values, capsys):
    shutil.copytree(paths.model_folder("none", 0), "copied")
    plan_models(values, {"same": "./copied"})
    images = PER_CLASS * sum(map(len, SETS.values()))
    assert run(capsys, "same") == (0, images)
    weights = load_file("copied/model.safetensors")
    save_file(weights | {"head.bias": weights["head.bias"] + 1}, "copied/model.safetensors")
    assert run(capsys, "same") == (0, images)


def test_a_plan_with_a_wrong_model_changes_nothing(values):
    shutil.copytree(paths.model_folder("none", 0), "copied")
    plan_models(values, {"same": "./copied"})
    before = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    with pytest.raises(DenseclError, match=r"^params.yaml: evaluate.models.wrong: nowhere"):
        plan_models(values, {"wrong": "./nowhere", "other": "./copied"})
    after = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    assert after == before


def test_a_config_is_linked_if_it_says_all_and_completed_otherwise(values):
    shutil.copytree(paths.model_folder("none", 0), "copied")
    Path("classes.txt").write_text("\n".join(WNIDS))
    plan_models(values, {"same": "./copied"})
    linked = paths.model_folder("same", None) / "config.json"
    assert linked.resolve() == Path("copied/config.json").resolve()
    hub = json.loads(Path("copied/config.json").read_text())
    hub["pretrained_cfg"] = {"mean": [0.1, 0.2, 0.3], "tag": "in1k", "num_classes": 3}
    del hub["classes"]
    Path("copied/config.json").write_text(json.dumps(hub))
    plan_models(values, {"same": {"weights": "./copied", "classes": "classes.txt"}})
    assert not linked.is_symlink()
    evaluate_model.main("same")
    found = read_evaluation(paths.evaluation_file("imagenet", "same", None))
    assert found.preprocessing.mean == (0.1, 0.2, 0.3)
    assert json.loads(Path("copied/config.json").read_text()) == hub  # nothing is written there
