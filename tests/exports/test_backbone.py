"""What `export --backbone` writes: weights that other frameworks load and run."""

import ast
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from densecl import paths
from densecl.exports.backbone import export_backbone, is_plain
from densecl.network.exported import load_exported_model
from steps.__main__ import main
from tests.conftest import WNIDS, write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The backbone of a random model, exported by the command."""
    monkeypatch.chdir(tmp_path)
    write_model(paths.model_folder("none", 0), list(WNIDS), ARGS)
    assert main(["export", "none", "0", "--backbone"]) == 0
    return tmp_path / "exports/none-0/backbone"


def test_a_second_format_is_an_error(folder, capsys):
    assert main(["export", "none", "0", "--backbone", "--format", "hf"]) == 2
    assert "--backbone --format hf: found two formats, expected one" in capsys.readouterr().err


def list_blocks(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def test_the_weights_are_the_model_s_without_its_classifier(folder):
    model, _ = load_exported_model(paths.model_folder("none", 0))
    state = load_file(folder / "backbone.safetensors")
    assert set(model.state_dict()) - set(state) == {"head.weight", "head.bias"}
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)
    facts = json.loads((folder / "backbone.json").read_text())
    assert (facts["patch_size"], facts["grid"], facts["img_size"]) == (8, [4, 4], [32, 32])
    assert facts["mean"] == list(model.pretrained_cfg["mean"])
    assert facts["std"] == list(model.pretrained_cfg["std"])
    assert facts["mlp_ratio"] == 4


def test_the_snippet_of_timm_gives_the_model_s_own_features(folder, monkeypatch):
    model, _ = load_exported_model(paths.model_folder("none", 0))
    monkeypatch.chdir(folder)
    Path("snippet.py").write_text(next(x for x in list_blocks(folder) if "import timm" in x))
    names = runpy.run_path("snippet.py")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        loaded = names["model"].eval().forward_features(images)
        assert torch.equal(loaded, model.forward_features(images))


@pytest.fixture
def detector_code(folder, monkeypatch):
    """The module that is in the folder."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "torchvision_detector", raising=False)
    return importlib.import_module("torchvision_detector")


@pytest.mark.slow
def test_torchvision_trains_and_detects_with_it(detector_code):
    detector = detector_code.build_detector(num_classes=3, min_size=60, max_size=90)
    target = {"boxes": torch.tensor([[4.0, 5, 40, 50]]), "labels": torch.tensor([2])}
    losses = detector([torch.rand(3, 61, 83)], [target])
    sum(losses.values()).backward()
    assert detector.backbone.body.vit.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    with torch.inference_mode():
        (found,) = detector.eval()([torch.rand(3, 61, 83)])
        maps = detector.backbone(torch.rand(1, 3, 64, 96))
    assert set(found) == {"boxes", "labels", "scores"}
    shapes = [list(value.shape) for value in maps.values()]
    assert shapes == [[1, 256, rows, 3 * rows // 2] for rows in (32, 16, 8, 4)]


def test_the_detector_s_file_needs_nothing_of_this_project(folder):
    tree = ast.parse((folder / "torchvision_detector.py").read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(imported) > 5
    assert not [node for node in imported if "densecl" in ast.unparse(node)]


def test_the_detector_reads_the_model_s_patches(detector_code):
    model, _ = load_exported_model(paths.model_folder("none", 0))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        patch_map = detector_code.PatchMap().eval()(images)
        tokens = model.forward_features(images)[:, 1:]
    torch.testing.assert_close(patch_map.flatten(2).transpose(1, 2), tokens)


def test_a_beit_which_takes_one_size_only_gets_that_size(detector_code, tmp_path):
    args = {"img_size": 40, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    name = "beit_base_patch16_224"
    model = timm.create_model(name, num_classes=2, **args)
    export_backbone(model, {"architecture": name, "model_args": args}, tmp_path / "beit")
    detector = detector_code.build_detector(2, tmp_path / "beit").eval()
    with torch.inference_mode():
        (found,) = detector([torch.rand(3, 61, 83)])
    assert set(found) == {"boxes", "labels", "scores"}
    assert "cannot be loaded there" in (tmp_path / "beit/README.md").read_text()


def test_the_names_are_those_of_detectron2_s_vit(folder):
    """Its parameters beside relative positions, which the detector learns; read from its source at
    0818132a.
    """
    shapes = {
        "patch_embed.proj.weight": (24, 3, 8, 8),
        "patch_embed.proj.bias": (24,),
        "pos_embed": (1, 17, 24),
    }
    for block in range(2):
        for name, shape in {
            **{f"norm{n}.{p}": (24,) for n in (1, 2) for p in ("weight", "bias")},
            "attn.qkv.weight": (72, 24),
            "attn.qkv.bias": (72,),
            "attn.proj.weight": (24, 24),
            "attn.proj.bias": (24,),
            "mlp.fc1.weight": (96, 24),
            "mlp.fc1.bias": (96,),
            "mlp.fc2.weight": (24, 96),
            "mlp.fc2.bias": (24,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    state = load_file(folder / "backbone.safetensors")
    unexpected = set(state) - set(shapes)
    assert unexpected == {"cls_token", "norm.weight", "norm.bias"}  # as its snippet asserts
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    snippets = list_blocks(folder)
    assert len(snippets) == 6
    for snippet in snippets:
        ast.parse(snippet)
    assert "pixel_mean = [127.500, 127.500, 127.500]" in "".join(snippets)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("vit_tiny_patch16_224", True),
        ("deit3_small_patch16_224", False),
        ("eva02_tiny_patch14_224", False),
        ("beit_base_patch16_224", False),
        ("vit_base_patch16_clip_224", False),
        ("vit_base_patch16_clip_quickgelu_224", False),
    ],
)
def test_other_frameworks_are_named_only_where_they_have_all_layers(name, plain):
    with torch.device("meta"):
        assert is_plain(timm.create_model(name)) is plain


@pytest.mark.parametrize("part", ["norm_pre", "act", "bias"])
def test_each_part_that_other_frameworks_lack_is_found_alone(part):
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", depth=1)
        assert is_plain(model)
        if part == "norm_pre":
            model.norm_pre = nn.LayerNorm(192)
        elif part == "act":
            model.blocks[0].mlp.act = nn.SiLU()
        else:
            model.patch_embed.proj.bias = None
        assert not is_plain(model)
