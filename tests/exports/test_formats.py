"""What `export --format` writes is opened by the tools that it is for, and computes the same."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from densecl import paths
from densecl.exports.formats import TEMPLATES
from densecl.network.exported import load_exported_model
from densecl.network.preprocessing import build_evaluation_transform, resolve_preprocessing
from densecl.pages.templates import create_environment
from steps.__main__ import main
from tests.conftest import write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CLASSES = ["n01440764", "n90000006", "own folder"]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = paths.model_folder("none", 0)
    write_model(folder, CLASSES, ARGS)
    config = json.loads((folder / "config.json").read_text()) | {"mode": "none", "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(1)}, folder / "heads.safetensors")
    pixels = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    Image.fromarray(pixels).save("image.png")
    return tmp_path


def compute_logits() -> torch.Tensor:
    """[1, C] of the image, as the evaluation computes them."""
    model, _ = load_exported_model(paths.model_folder("none", 0))
    transform = build_evaluation_transform(resolve_preprocessing(model))
    with torch.inference_mode():
        return model(transform(Image.open("image.png"))[None])


def test_timm_opens_the_folder_with_the_preprocessing_of_the_evaluation(project):
    assert main(["export", "none", "0", "--format", "timm"]) == 0
    model = timm.create_model("local-dir:exports/none-0/timm", pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**settings, is_training=False)
    with torch.inference_mode():
        logits = model(transform(Image.open("image.png"))[None])
    assert torch.equal(logits, compute_logits())
    assert model.pretrained_cfg["label_names"] == CLASSES
    words = model.pretrained_cfg["label_descriptions"]
    assert words == {"n01440764": "tench", "n90000006": "mug", "own folder": "own folder"}


@pytest.mark.parametrize(
    ("mode", "base", "says"),
    [("dense-x", "dense", "dense"), ("none-x", "none", "no"), ("global", None, "global")],
)
def test_the_card_of_a_variant_names_its_contrast(mode, base, says):
    facts = {"architecture": "vit", "size": 32, "parameters": 1, "num_classes": 3, "seed": 0}
    template = create_environment(TEMPLATES).get_template("hf_card.md")
    card = template.render(facts, mode=mode, base=base, exif="ignore", example="image.jpg")
    assert f"# vit, 32 px, trained with {says} contrastive learning\n" in card
    assert (f"a variant of `{base}`" in card) == (base is not None)


def test_the_card_for_hugging_face_runs_and_the_command_is_printed(project, monkeypatch, capsys):
    assert main(["export", "none", "0", "--format", "hf"]) == 0
    assert "hf upload USER/NAME exports/none-0/hf" in capsys.readouterr().out
    expected = compute_logits()
    monkeypatch.chdir("exports/none-0/hf")
    card = Path("README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\npipeline_tag: image-classification\n")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    Path("snippet.py").write_text(code.replace("image.jpg", "../../../image.png"))
    assert torch.equal(runpy.run_path("snippet.py")["logits"], expected)
    assert capsys.readouterr().out.strip() == CLASSES[int(expected.argmax())]


def test_onnx_takes_any_batch_and_gives_the_logits_of_torch(project):
    onnxruntime = pytest.importorskip("onnxruntime")
    config = paths.model_folder("none", 0) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"exif": "apply"}))
    assert main(["export", "none", "0", "--format", "onnx"]) == 0
    folder = Path("exports/none-0/onnx")
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    model, _ = load_exported_model(paths.model_folder("none", 0))
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 32, 32)
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            assert logits == pytest.approx(model(images).numpy(), abs=1e-3)
    assert (folder / "classes.txt").read_text().splitlines() == CLASSES
    assert json.loads((folder / "preprocessing.json").read_text())["input_size"] == [3, 32, 32]
    assert json.loads((folder / "preprocessing.json").read_text())["exif"] == "apply"


def test_torch_is_the_default_and_leaves_other_formats(project):
    assert main(["export", "none", "0", "--format", "timm"]) == 0
    assert main(["export", "none", "0"]) == 0
    program = torch.export.load("exports/none-0/classifier.pt2").module()
    images = torch.randn(5, 3, 32, 32)
    model, _ = load_exported_model(paths.model_folder("none", 0))
    with torch.inference_mode():
        assert program(images).numpy() == pytest.approx(model(images).numpy(), abs=1e-4)
    assert Path("exports/none-0/timm/config.json").exists()
    assert Path("exports/none-0/heads.safetensors").exists()


def test_damaged_heads_are_not_exported(project, capsys):
    file = paths.model_folder("none", 0) / "heads.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert main(["export", "none", "0"]) == 2
    assert f"error: {file}: cannot be read (SafetensorError: " in capsys.readouterr().err
    file.write_bytes(whole)
