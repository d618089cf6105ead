"""Write a trained model for use elsewhere: weights, config, projection heads and a torch.export
program.
"""

import shutil

import torch

from densecl import paths
from densecl.errors import DenseclError
from densecl.network.exported import load_exported_model


def main(mode: str, seed: int) -> None:
    """Write exports/<mode>-<seed>/; `classifier.pt2` takes normalised images [B, 3, H, W] of any B
    and gives logits [B, C].
    """
    source, cell = paths.model_folder(mode, seed), paths.export_folder(mode, seed)
    if not (source / "model.safetensors").exists():
        raise DenseclError(
            f"{source}/model.safetensors: no such file; `dvc repro train@{mode}-{seed}` makes it"
        )
    model, config = load_exported_model(source)
    shutil.rmtree(cell, ignore_errors=True)
    cell.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "heads.safetensors"):
        shutil.copy(source / name, cell / name)
    program = torch.export.export(
        model,
        (torch.zeros(2, *config["pretrained_cfg"]["input_size"]),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    torch.export.save(program, cell / "classifier.pt2")
    print(cell)
