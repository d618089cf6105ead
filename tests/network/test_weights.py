"""Initial weights: whatever timm can load, `network.checkpoint` can; what cannot be loaded is one
line at `plan`. Every model here is small, with random weights: there is no network.
"""

import json
import socket
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from densecl.config.params import NetworkParams
from densecl.network.vit import ModelError, build_model, check_model, forward_tokens
from densecl.network.weights import find_pretrained_file

VIT = ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 2, "num_heads": 2})
DEIT = ("deit_tiny_patch16_224", {"embed_dim": 24, "depth": 2, "num_heads": 2})
DEIT3 = ("deit3_small_patch16_224", {"embed_dim": 24, "depth": 2, "num_heads": 2})
DINOV2 = ("vit_small_patch14_reg4_dinov2", {"embed_dim": 24, "depth": 2, "num_heads": 2})
EVA02 = (
    "eva02_tiny_patch14_224",
    {"embed_dim": 24, "depth": 2, "num_heads": 2, "global_pool": "token"},
)
DINOV3 = (
    "vit_small_patch16_dinov3",
    {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_pool": "token"},
)
BEIT = (
    "beit_base_patch16_224",
    {"embed_dim": 24, "depth": 2, "num_heads": 2, "global_pool": "token"},
)
BEITV2 = ("beitv2_base_patch16_224", BEIT[1])
FAMILIES = (VIT, DEIT, DEIT3, DINOV2, EVA02, DINOV3, BEIT, BEITV2)


def create(family, classes=7, **args) -> tuple[str, dict, dict[str, Tensor]]:
    """Name, arguments and random weights of a model of a family, none of them as initialised."""
    name, common = family
    args = common | args
    model = timm.create_model(name, num_classes=classes, **args)
    generator = torch.Generator().manual_seed(3)
    state = {
        k: torch.randn(v.shape, generator=generator) / 9 for k, v in model.state_dict().items()
    }
    return name, args, state


def save(state: dict[str, Tensor], path: Path) -> str:
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def load(name, args, path, classes=7):
    """A model that starts from a file, after the check of `plan`."""
    network = NetworkParams(model_name=name, model_args=args, checkpoint=path)
    (_, reservation) = check_model(network, classes)
    return build_model(network, classes, seed=0), reservation


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_a_file_of_the_same_model_is_loaded_whole(family, tmp_path):
    name, args, state = create(family, img_size=64, patch_size=16)
    model, reservation = load(name, args, save(state, tmp_path / "w.safetensors"))
    assert reservation == ""
    assert model.state_dict().keys() == state.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_prefixes_another_classifier_and_another_image_size_are_converted(family, tmp_path):
    """The state dict of a DDP checkpoint at 64 px with 5 classes, for a model at 96 px with 7."""
    name, args, state = create(family, classes=5, img_size=64, patch_size=16)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    args = args | {"img_size": 96}
    model, _ = load(name, args, save(wrapped, tmp_path / "w.safetensors"))
    fresh = build_model(NetworkParams(model_name=name, model_args=args), 7, seed=0).state_dict()
    for key, value in model.state_dict().items():
        if key.startswith("head."):
            assert torch.equal(value, fresh[key]), key  # of another width: as initialised
        elif key in state and state[key].shape == value.shape:
            assert torch.equal(value, state[key]), key
        else:
            assert not torch.equal(value, fresh[key]), key  # resampled
    if "pos_embed" in state and model.pos_embed is not None:
        prefix = state["pos_embed"].shape[1] - 16
        expected = resample_abs_pos_embed(state["pos_embed"], [6, 6], [4, 4], prefix)
        assert torch.equal(model.pos_embed, expected)
    tokens = forward_tokens(model, torch.randn(2, 3, 96, 96))
    assert tokens.patches.shape[:2] == (2, 36)
    assert torch.stack([part.isfinite().all() for part in tokens]).all()


@pytest.mark.parametrize("family", [VIT, EVA02, BEITV2], ids=lambda family: family[0])
def test_patches_of_another_size_are_resampled(family, tmp_path):
    name, args, state = create(family, img_size=64, patch_size=16)
    path = save(state, tmp_path / "w.safetensors")
    model, _ = load(name, args | {"img_size": 32, "patch_size": 8}, path)
    assert model.patch_embed.proj.weight.shape == (24, 3, 8, 8)


@pytest.mark.parametrize("family", [EVA02, BEIT], ids=lambda family: family[0])
def test_masked_image_modelling_keeps_its_final_norm(family, tmp_path):
    """timm's filter renames the norm for models that average patches; these read CLS."""
    name, args, state = create(family, img_size=56, patch_size=14)
    pretrained = state | {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.ones(9, 24)}
    model, reservation = load(name, args, save(pretrained, tmp_path / "w.safetensors"))
    assert torch.equal(model.norm.weight, state["norm.weight"])
    assert reservation == ""


@pytest.mark.parametrize("family", [EVA02, BEIT, BEITV2], ids=lambda family: family[0])
def test_the_norm_of_averaged_patches_is_used_and_said(family, tmp_path):
    name, args, state = create(family, img_size=56, patch_size=14, global_pool="avg")
    assert "fc_norm.weight" in state
    assert "norm.weight" not in state
    path = save(state, tmp_path / "w.safetensors")
    model, reservation = load(name, args | {"global_pool": "token"}, path)
    assert torch.equal(model.norm.weight, state["fc_norm.weight"])
    assert torch.equal(model.norm.bias, state["fc_norm.bias"])
    assert reservation == (
        f"network.checkpoint: {path}: fc_norm, of the mean of the patches, is used as the norm of "
        "all tokens: these weights were not trained to classify by the CLS token"
    )


def test_a_model_with_both_poolings_norm_takes_it_as_it_is(tmp_path):
    name, args, state = create(EVA02, img_size=56, use_fc_norm=True)
    model, reservation = load(name, args, save(state, tmp_path / "w.safetensors"))
    assert torch.equal(model.fc_norm.weight, state["fc_norm.weight"])
    assert reservation == ""


def test_weights_that_do_not_fit_are_one_line_at_plan(tmp_path):
    name, args, state = create(VIT, img_size=64)
    del state["blocks.1.norm1.weight"]
    state["extra"] = torch.zeros(1)
    path = save(state, tmp_path / "w.safetensors")
    network = NetworkParams(model_name=name, model_args=args, checkpoint=path)
    for attempt in (lambda: check_model(network), lambda: build_model(network, 7, 0)):
        with pytest.raises(ModelError) as error:
            attempt()
        text = str(error.value)
        assert text.startswith(f"network.checkpoint: {path} does not fit {name}")
        assert '"blocks.1.norm1.weight"' in text
        assert '"extra"' in text
        assert "\n" not in text
    with pytest.raises(ModelError, match=r"size mismatch for cls_token"):
        check_model(network.model_copy(update={"model_args": args | {"embed_dim": 48}}))


def test_shapes_come_from_the_header_alone(tmp_path):
    """A sparse file of the right size, without the bytes of any tensor, passes the check."""
    name, args, state = create(VIT, img_size=64)
    end, header = 0, {}
    for key, value in state.items():
        size = 4 * value.numel()
        header[key] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header).encode()
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    check_model(NetworkParams(model_name=name, model_args=args, checkpoint=file.name))


def test_a_file_that_is_no_safetensors_is_one_line(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no tensors here")
    network = NetworkParams(model_name=VIT[0], model_args=VIT[1], checkpoint=str(path))
    for attempt in (lambda: check_model(network), lambda: build_model(network, 7, 0)):
        with pytest.raises(ModelError, match=r"w\.safetensors cannot be read as safetensors"):
            attempt()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*_args, **_kwargs):
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "hub"


def fill_cache(hub: Path, state: dict[str, Tensor], name: str) -> str:
    """timm's weights of a model, where an earlier download would have put them."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    return save(state, snapshot / "model.safetensors")


def test_without_network_and_cache_pretrained_is_one_line_that_says_what_to_do(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the hub's attempts
    network = NetworkParams(model_name="vit_tiny_patch16_224", pretrained=True)
    for attempt in (lambda: check_model(network), lambda: build_model(network, 7, 0)):
        with pytest.raises(ModelError) as error:
            attempt()
        text = str(error.value)
        assert text.startswith(
            f"network.pretrained: the weights of vit_tiny_patch16_224 are not in {hub} and cannot "
            "be downloaded ("
        )
        assert text.endswith("network: {pretrained: false, checkpoint: model.safetensors}")
        assert "/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/" in text
        assert "\n" not in text


def test_cached_weights_need_no_network(hub):
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    path = fill_cache(hub, state, "vit_tiny_patch16_224")
    assert find_pretrained_file("vit_tiny_patch16_224") == path
    network = NetworkParams(
        model_name="vit_tiny_patch16_224", model_args={"img_size": 96}, pretrained=True
    )
    assert check_model(network) == ((6, 6), "")
    model = build_model(network, 7, seed=0)
    assert torch.equal(model.blocks[11].mlp.fc2.weight, state["blocks.11.mlp.fc2.weight"])
    assert len(model.head.weight) == 7
    with pytest.raises(ModelError, match=r"network.pretrained: .* does not fit .*size mismatch"):
        check_model(network.model_copy(update={"model_args": {"embed_dim": 96}}))


def test_a_reachable_network_is_enough_and_shapes_are_then_timms_own(hub, monkeypatch):
    assert not hub.exists()
    monkeypatch.setattr(
        huggingface_hub, "get_hf_file_metadata", lambda url, timeout: SimpleNamespace(size=1)
    )
    assert check_model(NetworkParams(model_name="vit_tiny_patch16_224", pretrained=True))[1] == ""
    args = {"global_pool": "token"}
    network = NetworkParams(model_name="beitv2_base_patch16_224", model_args=args, pretrained=True)
    assert "fc_norm" in check_model(network)[1]


def test_a_model_without_published_weights_is_one_line(hub):
    with pytest.raises(ModelError, match=r"^network.pretrained: timm has no weights for vit_"):
        check_model(NetworkParams(model_name="vit_small_patch16_36x1_224", pretrained=True))
