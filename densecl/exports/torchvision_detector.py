"""A torchvision detector on the backbone in this file's folder.

    from torchvision_detector import build_detector

    detector = build_detector(num_classes=21)  # 20 and the background
    losses = detector(images, targets)  # images [3, H, W] in [0, 1]; as any detector there

The feature pyramid is that of ViTDet (Li et al. 2022, "Exploring plain vision transformer backbones
for object detection", section 3): maps of 4, 2, 1 and 1/2 times the patch grid, each from the last
patch map alone. Needs torch, torchvision, timm and safetensors, and nothing of this project.
"""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

SCALES = (4.0, 2.0, 1.0, 0.5)  # sides of the pyramid's maps, in sides of the patch grid
FOLDER = Path(__file__).parent


class PatchMap(nn.Module):
    """Normalised images [B, 3, H, W] -> the last block's patch tokens as a map [B, E, H/p, W/p]."""

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__()
        self.config = json.loads((folder / "backbone.json").read_text(encoding="utf-8"))
        options = {"num_classes": 0, **self.config["model_args"]}
        if self.config["any_size"]:  # position embeddings are resampled to each image
            options["dynamic_img_size"] = True
        self.vit: Any = timm.create_model(self.config["architecture"], **options)
        self.vit.load_state_dict(load_file(folder / "backbone.safetensors"))

    def forward(self, images: Tensor) -> Tensor:
        maps: list[Tensor] = self.vit.forward_intermediates(
            images, indices=1, norm=True, intermediates_only=True
        )
        return maps[0]


class SimplePyramid(nn.Module):
    """Four maps of `out_channels` from one patch map."""

    def __init__(self, body: PatchMap, out_channels: int = 256) -> None:
        super().__init__()
        self.body, self.out_channels = body, out_channels
        width = body.config["embed_dim"]
        resize: dict[float, nn.Module] = {
            4.0: nn.Sequential(
                nn.ConvTranspose2d(width, width, 2, 2),
                LayerNorm2d(width),
                nn.GELU(),
                nn.ConvTranspose2d(width, width, 2, 2),
            ),
            2.0: nn.ConvTranspose2d(width, width, 2, 2),
            1.0: nn.Identity(),
            0.5: nn.MaxPool2d(2),
        }
        self.levels = nn.ModuleList(
            nn.Sequential(
                resize[scale],
                nn.Conv2d(width, out_channels, 1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            for scale in SCALES
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        patch_map = self.body(images)
        return {str(place): level(patch_map) for place, level in enumerate(self.levels)}


def build_detector(num_classes: int, folder: Path = FOLDER, **options: Any) -> FasterRCNN:
    """A Faster R-CNN; `options` are torchvision's own, such as min_size and max_size."""
    body = PatchMap(folder)
    config, patch = body.config, body.config["patch_size"]
    height, width = config["img_size"]
    # Otherwise torchvision pads to multiples of 32, which need not be whole patches.
    size: dict[str, Any] = {"size_divisible": 2 * patch}
    if not config["any_size"]:
        size = {"fixed_size": (width, height), "size_divisible": patch}
    strides = [patch / scale for scale in SCALES]
    return FasterRCNN(
        SimplePyramid(body),
        num_classes,
        image_mean=config["mean"],
        image_std=config["std"],
        rpn_anchor_generator=AnchorGenerator(
            tuple((int(8 * stride),) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides)
        ),
        box_roi_pool=MultiScaleRoIAlign([str(place) for place in range(len(strides))], 7, 2),
        **{**size, **options},
    )


if __name__ == "__main__":
    with torch.inference_mode():
        (found,) = build_detector(num_classes=2).eval()([torch.rand(3, 120, 160)])
    print({name: list(value.shape) for name, value in found.items()})
