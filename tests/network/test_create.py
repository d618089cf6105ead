"""Which of timm's models can be trained, and what is advised where one cannot."""

import pytest
import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from densecl.config.params import NetworkParams
from densecl.network.vit import (
    ModelError,
    build_model,
    check_model,
    forward_last_two_blocks,
    forward_tokens,
)

ADVICE = "global_pool: token"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


def refuse(name, **model_args) -> str:
    """What is said about a model that cannot be trained."""
    with pytest.raises(ModelError) as error:
        check_model(NetworkParams(model_name=name, model_args=model_args))
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "is_advised"),
    [
        ("vit_small_patch16_dinov3", True),
        ("vit_pe_spatial_tiny_patch16_512", True),
        ("eva02_tiny_patch14_224", False),  # fc_norm, where CLS needs norm
        ("beit3_base_patch16_224", False),
        ("beitv2_base_patch16_224", False),
        ("vit_pe_core_tiny_patch16_384", False),  # attention pooling
    ],
)
def test_pooling_by_cls_is_advised_where_the_pretrained_weights_then_fit(name, is_advised):
    message = refuse(name)
    assert "expected one classifier on the CLS token" in message
    assert (ADVICE in message) is is_advised


@pytest.mark.slow  # a minute: builds some 80 large models without weights
def test_advice_on_all_models_of_timm():
    """Of the ViTs and Evas that do not read CLS by default, 17 of 38 can with their weights."""
    fits = dict.fromkeys((True, False), 0)
    modules = ("vision_transformer", "deit", "eva")
    for name in (name for module in modules for name in timm.list_models(module=module)):
        with torch.device("meta"):
            model = timm.create_model(name)
        is_known = isinstance(model, VisionTransformer | Eva) and not hasattr(model, "head_dist")
        if is_known and model.cls_token is not None and model.global_pool != "token":
            fits[ADVICE in refuse(name)] += 1
    assert fits == {True: 17, False: 21}


def test_other_refusals():
    assert "is a SwinTransformer" in refuse("swin_tiny_patch4_window7_224")
    assert "is a VisionTransformerSAM" in refuse("samvit_base_patch16")
    assert "is a VisionTransformerRelPos" in refuse("vit_relpos_small_patch16_224")
    assert "has no CLS token" in refuse("vit_base_patch16_gap_224")
    distilled = refuse("deit_tiny_distilled_patch16_224")
    assert "second, distilled classifier" in distilled
    assert ADVICE not in distilled


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224"])
@pytest.mark.parametrize("channels", [1, 4])
def test_images_have_three_channels(name, channels):
    assert refuse(name, in_chans=channels, global_pool="token") == (
        f"network.model_args: found in_chans {channels}, expected 3: images are read as RGB; "
        "remove in_chans"
    )
    check_model(NetworkParams(model_name=name, model_args={"in_chans": 3, "global_pool": "token"}))


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "beitv2_base_patch16_224"])
def test_beit_gives_cls_and_patches_of_a_square_grid(name):
    network = NetworkParams(model_name=name, model_args=SMALL | {"global_pool": "token"})
    assert check_model(network) == ((4, 4), "")
    model = build_model(network, 5, seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = forward_tokens(model, images)
    assert [tuple(part.shape) for part in tokens] == [(2, 24), (2, 16, 24), (2, 5)]
    torch.testing.assert_close(tokens.logits, model(images))
    again, previous = forward_last_two_blocks(model, images)
    torch.testing.assert_close(again, tokens)
    # The last block but one, by hand: the model without its last block.
    model.blocks = model.blocks[:-1]
    torch.testing.assert_close(previous, forward_tokens(model, images).patches)
