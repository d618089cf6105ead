"""Write the backbone of a trained model for detection frameworks: weights in timm's names without
the classifier, the settings that the frameworks need, and where each takes them.
"""

import json
import shutil
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from densecl.artifacts import write_text
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone
from densecl.pages.templates import create_environment

FOLDER = Path(__file__).parent
PLAIN_LAYERS = {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}
DETECTOR = "torchvision_detector.py"


def export_backbone(model: Backbone, config: dict[str, Any], folder: Path) -> None:
    """Write backbone.safetensors, backbone.json, README.md and torchvision_detector.py."""
    folder.mkdir(parents=True)
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith("head")
    }
    (folder / "backbone.safetensors").write_bytes(save(state, {"format": "pt"}))
    facts = describe_backbone(model, config)
    write_text(folder / "backbone.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")
    shutil.copy(FOLDER / DETECTOR, folder / DETECTOR)
    # Code in Markdown: nothing in it is to be escaped.
    template = create_environment(FOLDER / "templates").overlay(autoescape=False)
    write_text(folder / "README.md", template.get_template("README.md").render(facts))


def describe_backbone(model: Backbone, config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a framework needs; sizes in pixels, `grid` in patches (rows, columns), mean
    and standard deviation of RGB in [0, 1].
    """
    preprocessing = resolve_preprocessing(model)
    plain, block = is_plain(model), cast("Any", model.blocks[0])
    return {
        "architecture": config["architecture"],
        "model_args": config["model_args"],
        "img_size": preprocessing.input_size[1:],
        "patch_size": int(model.patch_embed.patch_size[0]),
        "grid": [int(side) for side in model.patch_embed.grid_size],
        "embed_dim": int(model.embed_dim),
        "depth": len(model.blocks),
        "num_heads": int(block.attn.num_heads),
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim if plain else None,
        "prefix_tokens": int(model.num_prefix_tokens),
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "any_size": not isinstance(model, Beit),
        "plain": plain,
    }


def is_plain(model: Backbone) -> bool:
    """Whether the ViT of detectron2 and mmdetection computes what this one does: learned positions
    of patches and CLS token, no norm before the blocks, and blocks of these layers with exact GELU.
    """
    layers = {name.rpartition(".")[0] for name, _ in model.blocks[0].named_parameters()}
    return (
        isinstance(model, VisionTransformer)
        and layers == PLAIN_LAYERS
        and isinstance(model.norm_pre, nn.Identity)
        and isinstance(cast("Any", model.blocks[0]).mlp.act, nn.GELU)
        and model.patch_embed.proj.bias is not None
        and model.pos_embed is not None
        and model.pos_embed.shape[1] == model.patch_embed.num_patches + 1
    )
