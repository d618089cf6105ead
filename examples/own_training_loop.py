"""The dense contrastive loss in your own loop: `python examples/own_training_loop.py`.

One step, in order: encode both views, match patches, sample, InfoNCE against the memory queue,
optimizer step, write the queue. The images are random; replace `load_views` by your own loader.
"""

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from densecl.contrast import SAMPLERS, InfoNCEOutput, MemoryQueue, info_nce, match_patches
from densecl.network import ProjectionHead, forward_tokens

BATCH, CLASSES, PROJECTION = 8, 10, 64
PATCHES_PER_IMAGE, QUEUE_SIZE, TEMPERATURE, LAMBDA = 16, 1024, 0.2, 0.5


def load_views(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two views [B, 3, 32, 32] of each image, labels [B] and image ids [B]."""
    generator = torch.Generator().manual_seed(step % 4)  # four batches, over and over
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    view1, view2 = (images + 0.1 * torch.randn(images.shape) for _ in range(2))
    return view1, view2, labels, torch.arange(BATCH) + step % 4 * BATCH


def take_patches(features: Tensor, index: Tensor) -> Tensor:
    """[B, M, D] of features [B, N, D] by index [B, M]."""
    return torch.take_along_dim(features, index[..., None], dim=1)


def train(steps: int = 40) -> InfoNCEOutput:
    """Train for some steps; the contrastive output of the last one."""
    torch.manual_seed(0)
    model: VisionTransformer = timm.create_model(  # type: ignore[assignment]
        "vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=CLASSES, depth=2
    )
    head = ProjectionHead(model.embed_dim, PROJECTION, seed=0)
    memory = MemoryQueue(QUEUE_SIZE, PROJECTION)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        view1, view2, labels, image_ids = load_views(step)
        tokens1, tokens2 = forward_tokens(model, view1), forward_tokens(model, view2)
        queries = F.normalize(head(tokens1.patches), dim=-1)  # [B, N, D]
        keys = F.normalize(head(tokens2.patches), dim=-1).detach()  # [B, N, D]
        keys = take_patches(keys, match_patches(queries, keys))  # key n now belongs to query n
        picks = SAMPLERS["random"](queries, PATCHES_PER_IMAGE, generator)  # [B, M]
        queries = take_patches(queries, picks).flatten(0, 1)  # [B * M, D]
        keys = take_patches(keys, picks).flatten(0, 1)  # [B * M, D]
        ids = image_ids.repeat_interleave(PATCHES_PER_IMAGE)  # [B * M]
        contrastive = info_nce(
            queries, keys, memory.features, TEMPERATURE, query_ids=ids, memory_ids=memory.image_ids
        )
        classification = F.cross_entropy(tokens1.logits, labels)
        loss = (1 - LAMBDA) * classification + LAMBDA * contrastive.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        memory.write(keys, ids, labels.repeat_interleave(PATCHES_PER_IMAGE), step)  # after scoring
    return contrastive


if __name__ == "__main__":
    output = train()
    print(f"contrastive loss {output.loss.item():.3f}, by chance {output.chance.item():.3f}")
