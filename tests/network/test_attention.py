"""CLS attention: equal to what the attention module itself does with it."""

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from densecl.config.params import NetworkParams
from densecl.network import attention
from densecl.network.attention import compute_cls_attention, find_attention
from densecl.network.vit import ModelError, build_model

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
MODELS = {
    "plain": ("vit_tiny_patch16_224", SMALL),
    "qk_norm": ("vit_tiny_patch16_224", SMALL | {"qk_norm": True}),
    "registers": ("vit_tiny_patch16_224", SMALL | {"reg_tokens": 3}),
    "parallel": ("vit_tiny_patch16_224", SMALL | {"block_fn": ParallelScalingBlock}),
    "rotary": (
        "eva02_tiny_patch14_224",
        SMALL | {"global_pool": "token", "use_post_transformer_norm": True},
    ),
    "relative": (
        "beit_base_patch16_224",
        SMALL | {"global_pool": "token"},
    ),
}
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(architecture, args):
    model = build_model(NetworkParams(model_name=architecture, model_args=args), 3, 0).eval()
    with torch.no_grad():  # as built, relative positions and some biases are 0
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


class FusedCalls(TorchFunctionMode):
    """Arguments, mask and output of each fused attention."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self.calls.append((*args, kwargs.get("attn_mask"), result))
        return result


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_those_of_the_fused_attention(name):
    """A softmax by hand of the queries and keys gives the module's output, and our weights."""
    model = build(*MODELS[name])
    with torch.inference_mode(), FusedCalls() as fused:
        logits = model(IMAGES)
    assert len(fused.calls) == 2  # one per block: the model runs fused
    query, key, value, mask, output = fused.calls[-1]
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / query.shape[-1] ** 0.5
    exponents = torch.exp(scores if mask is None else scores + mask)
    expected = exponents / exponents.sum(-1, keepdim=True)
    torch.testing.assert_close(torch.einsum("bhqk,bhkd->bhqd", expected, value), output)

    weights = compute_cls_attention(model, IMAGES)
    assert weights.shape == (5, 2, 16)
    torch.testing.assert_close(weights, expected[:, :, 0, model.num_prefix_tokens :])

    with torch.inference_mode(), FusedCalls() as again:
        torch.testing.assert_close(model(IMAGES), logits, rtol=0, atol=0)
    assert len(again.calls) == 2  # it is fused again


def test_weights_of_a_plain_block_from_its_parameters():
    model = build(*MODELS["plain"])
    with torch.inference_mode():
        (before,) = model.forward_intermediates(
            IMAGES,
            indices=[0],
            output_fmt="NLC",
            intermediates_only=True,
            return_prefix_tokens=True,
        )
        tokens = torch.cat([before[1], before[0]], 1)
        block = model.blocks[-1]
        queries, keys, _ = block.attn.qkv(block.norm1(tokens)).chunk(3, 2)
    weights = compute_cls_attention(model, IMAGES)
    for image in range(5):
        for head, part in enumerate((slice(0, 12), slice(12, 24))):
            scores = torch.stack([queries[image, 0, part] @ k for k in keys[image, :, part]])
            expected = (scores / 12**0.5).softmax(0)[1:]
            torch.testing.assert_close(weights[image, head], expected)


def test_batch_size_does_not_matter():
    model = build(*MODELS["plain"])
    alone = torch.cat([compute_cls_attention(model, image[None]) for image in IMAGES])
    torch.testing.assert_close(compute_cls_attention(model, IMAGES), alone)


def test_matrices_of_few_images_are_in_memory_at_once(monkeypatch):
    """Of 5 images with 2 heads and 17 tokens, two at once; what is returned holds no matrix."""
    model = build(*MODELS["plain"])
    whole, sizes = compute_cls_attention(model, IMAGES), []
    model.blocks[-1].attn.attn_drop.register_forward_hook(
        lambda layer, inputs, output: sizes.append(len(output))
    )
    monkeypatch.setattr(attention, "MATRIX_BYTES", 5 * 2 * 17 * 17 * 2)
    parts = compute_cls_attention(model, IMAGES)
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(parts, whole)
    assert parts.untyped_storage().nbytes() == parts.numel() * 4


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"attn_layer": "diff"}, "has DiffAttention"),
        ({"block_fn": ParallelThingsBlock}, "has Attention, Attention"),
    ],
)
def test_models_without_one_softmax_attention_are_refused(args, found):
    model = build("vit_tiny_patch16_224", SMALL | args)
    with pytest.raises(ModelError, match=f"{found}; expected one softmax attention"):
        find_attention(model)


def test_a_model_without_a_cls_token_is_refused():
    """Its first token is a patch."""
    model = timm.create_model(
        "vit_tiny_patch16_224", class_token=False, global_pool="avg", num_classes=3, **SMALL
    )
    with pytest.raises(ModelError, match="has no CLS token"):
        compute_cls_attention(model, IMAGES)
