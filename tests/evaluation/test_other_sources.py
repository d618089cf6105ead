"""What `evaluate.models` may name, and what is said of the rest, before anything is evaluated."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from densecl import paths
from densecl.config.evaluation_params import EvaluateParams
from densecl.config.model_params import OtherModelParams
from densecl.config.params import load_params, parse_params
from densecl.config.yaml_loader import load_yaml
from densecl.evaluation.other_models import load_other_model
from densecl.evaluation.other_sources import find_other_model, link_other_model
from densecl.exports.formats import export_timm
from densecl.network.create import ModelError
from densecl.network.exported import load_exported_model
from tests.conftest import WNIDS, write_model

ARGS = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}
VIT = "vit_tiny_patch16_224"
PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_model(Path("exported"), list(WNIDS), ARGS)
    Path("wnids.txt").write_text("\n".join(WNIDS) + "\n")
    return tmp_path


def read(spec) -> OtherModelParams:
    params = EvaluateParams.model_validate({"datasets": ["imagenet"], "models": {"m": spec}})
    return params.models["m"]


def find(spec):
    return find_other_model("m", read(spec))


def test_a_text_is_a_path_or_an_architecture():
    assert read("exports/dense-0") == OtherModelParams(weights="exports/dense-0")
    assert read("x.safetensors") == OtherModelParams(weights="x.safetensors")
    assert read("deit_tiny_patch16_224.fb_in1k").architecture == "deit_tiny_patch16_224.fb_in1k"


@pytest.mark.parametrize(
    "name",
    ["dense", "global", "none", "none-0", "dense-12", "champion", "anchor-3", "A", "", "a/b"],
)
def test_a_name_is_none_of_a_trained_model(name):
    values = load_yaml(PARAMS.read_text())
    values["evaluate"]["models"] = {name: "vit_tiny_patch16_224"}
    with pytest.raises(Exception, match=r"params.yaml: evaluate.models: .* cannot name a model"):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize("name", ["dense-2x", "none_0", "deit-tiny", "3", "global-mean"])
def test_other_names_are_names(name):
    models = {name: VIT}
    assert EvaluateParams.model_validate({"datasets": ["imagenet"], "models": models}).models


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (3, "evaluate.models.m: found 3"),
        ({}, "evaluate.models.m: found neither weights nor an architecture"),
        ({"weights": "./x", "model_args": {"depth": 1}}, "found model_args without an architec"),
        ({"weight": "./x"}, "evaluate.models.m.weight: unknown key; did you mean weights?"),
    ],
)
def test_an_entry_that_says_too_little_is_named(spec, said):
    values = load_yaml(PARAMS.read_text())
    values["evaluate"]["models"] = {"m": spec}
    with pytest.raises(Exception, match=r"^params\.yaml: ") as error:
        parse_params(values, "params.yaml")
    assert said in str(error.value)


def test_a_project_without_the_key_has_no_models():
    assert load_params(PARAMS).evaluate.models == {}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("./nowhere", "nowhere: no such file; expected weights"),
        ("./wnids.txt", "wnids.txt is no .safetensors file; other formats can run code"),
        ("exported/other.safetensors", "other.safetensors: no such file"),
        ("vit_tiny_patch16_225", "has no weights for 'vit_tiny_patch16_225'; close: deit_tiny"),
        ("resnet18", "resnet18 is a ResNet; expected a timm VisionTransformer, Eva or Beit"),
        ("vit_base_patch16_224", "the weights of vit_base_patch16_224 are not in"),
        ("alone/model.safetensors", "has no config.json beside it; name the architecture"),
        ("./broken", "cannot be read as safetensors"),
        ("./odd", "config.json is no config of a timm model (JSONDecodeError"),
        ({"weights": "./exported", "classes": "imagenet-1k"}, "has 3 outputs, but 1000 classes"),
        ({"weights": "./exported", "classes": "imagenet-2k"}, "found 'imagenet-2k', expected a fi"),
        ({"weights": "./exported", "classes": "./no.txt"}, "classes: ./no.txt cannot be read"),
        ({"weights": "./exported", "classes": "twice.txt"}, "1 of its 3 classes are named more"),
        ({"weights": "./exported", "architecture": VIT}, "not known which classes its outputs are"),
        (
            {"weights": "./exported", "architecture": "vit_x", "classes": "wnids.txt"},
            "does not know 'vit_x'",
        ),
        (
            {"weights": "./exported", "architecture": VIT, "classes": "wnids.txt"},
            f"the weights do not fit {VIT} with model_args {{}} and 3 classes",
        ),
        (
            {"weights": "./headless.safetensors", "architecture": VIT, "classes": "wnids.txt"},
            "has no classifier (head.weight)",
        ),
        (
            {"weights": "./cnn.safetensors", "architecture": "resnet10t", "classes": "wnids.txt"},
            "resnet10t is a ResNet; expected a timm VisionTransformer, Eva or Beit",
        ),
        (
            {
                "weights": "./grey.safetensors",
                "architecture": VIT,
                "model_args": ARGS | {"in_chans": 1},
                "classes": "wnids.txt",
            },
            "takes 1 channels; expected 3",
        ),
        (
            {
                "weights": "./exported",
                "architecture": VIT,
                "model_args": ARGS | {"img_size": 50},
                "classes": "wnids.txt",
            },
            "model_args: patches of 16 x 16 px do not fill 50 x 50 px; expected a patch_size that",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(spec, said, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    Path("twice.txt").write_text(f"{WNIDS[0]} {WNIDS[0]} {WNIDS[1]}")
    for name in ("alone", "broken", "odd"):
        shutil.copytree("exported", name)
    Path("alone/config.json").unlink()
    Path("broken/model.safetensors").write_bytes(b"not safetensors")
    Path("odd/config.json").write_text("{")
    weights = load_file("exported/model.safetensors")
    body = {name: value for name, value in weights.items() if not name.startswith("head")}
    save_file(body, "headless.safetensors")
    with torch.random.fork_rng():
        cnn = timm.create_model("resnet10t", num_classes=3)
        grey = timm.create_model(VIT, num_classes=3, in_chans=1, **ARGS)
    save_file(cnn.state_dict() | {"head.weight": torch.zeros(3, 1)}, "cnn.safetensors")
    save_file(grey.state_dict(), "grey.safetensors")
    with pytest.raises(ModelError) as error:
        find(spec)
    assert str(error.value).startswith("evaluate.models.m: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def cache_weights(root: Path, model_name: str) -> Path:
    """A hub's cache with random weights for a timm model, as huggingface_hub lays it out."""
    repository = timm.get_pretrained_cfg(model_name).hf_hub_id
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    with torch.random.fork_rng():
        state = timm.create_model(model_name).state_dict()
    save_file(state, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


def test_a_pretrained_timm_model_comes_from_the_hub_s_cache_and_nowhere_else(monkeypatch, tmp_path):
    name = "deit_tiny_patch16_224"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*_args, **_kwargs):
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(ModelError, match=r"hf download timm/deit_tiny_patch16_224\.fb_in1k"):
        find(name)
    cached = cache_weights(tmp_path / "hub", name)
    found = find(name)
    assert (found.weights, found.config_file) == (cached, None)
    assert found.config["classes"] == timm.data.ImageNetInfo("imagenet-1k").label_names()
    assert found.config["pretrained_cfg"]["mean"] == (0.485, 0.456, 0.406)
    link_other_model("m", found)
    model, config = load_other_model(paths.model_folder("m", None))
    assert torch.equal(model.head.weight, load_file(cached)["head.weight"])
    assert model.pretrained_cfg["crop_pct"] == 0.9
    assert len(config["classes"]) == 1000


def test_a_folder_of_timm_s_hub_is_read_without_our_own_keys():
    """Its config.json has no classes and no model_args."""
    folder = Path("hub")
    folder.mkdir()
    with torch.random.fork_rng():
        model = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 1.0, "first_conv": "x", "tag": "y"}
    config = {"architecture": VIT, "num_classes": 1000, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    link_other_model("m", find("./hub"))
    loaded, found = load_other_model(paths.model_folder("m", None))
    assert found["classes"][0] == "n01440764"
    assert loaded.pretrained_cfg["std"] == [0.25] * 3
    images = torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.eval()(images))


@pytest.mark.parametrize("names", [list(WNIDS), ["cat", "dog", "hen"]])
def test_a_folder_that_timm_wrote_tells_the_classes_by_its_label_names(names):
    model, config = load_exported_model(Path("exported"))
    export_timm(model, config | {"classes": names}, Path("timm"))
    found = find("./timm")
    assert found.config["classes"] == names
    link_other_model("m", found)
    loaded, _ = load_other_model(paths.model_folder("m", None))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))


def test_a_thousand_label_names_that_are_no_wnids_are_asked_about():
    """They may be the words of ImageNet's classes, or of others."""
    with torch.random.fork_rng():
        model = timm.create_model(VIT, num_classes=1000, **ARGS)
    Path("named").mkdir()
    save_file(model.state_dict(), "named/model.safetensors")
    config = {"architecture": VIT, "num_classes": 1000, "model_args": ARGS}
    names = [f"name {number}" for number in range(1000)]
    Path("named/config.json").write_text(json.dumps(config | {"label_names": names}))
    with pytest.raises(ModelError, match="such as 'name 0', are no wnids, and imagenet-1k has as"):
        find("./named")
    found = find({"weights": "./named", "classes": "imagenet-1k"})
    assert found.config["classes"][0] == "n01440764"


def test_links_lead_to_the_files_wherever_the_project_is_moved():
    found = find("./exported")
    assert found.config_file == Path("exported/config.json")
    link_other_model("m", found)
    link = paths.model_folder("m", None) / "model.safetensors"
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == Path("exported/model.safetensors").resolve()
    absolute = find(str(Path("exported").resolve()))
    link_other_model("m", absolute)
    assert link.readlink().is_absolute()
