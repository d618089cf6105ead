"""`info_nce` against a cross-entropy over the concatenated logits, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from densecl.contrast import info_nce, infonce


def unit(rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def naive(q, k, memory, t, same):
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ memory.T], 1) / t
    own = torch.cat([torch.zeros(len(q), 1, dtype=torch.bool), same], 1)
    return F.cross_entropy(logits.masked_fill(own, -torch.inf), torch.zeros(len(q), dtype=torch.long))


@torch.no_grad()
def cancelling(q, k, t, memory, same) -> list[float]:
    """Size of the terms whose difference the loss and the gradients to q, k and t are."""
    logits = (q @ memory.T / t).masked_fill(same, -torch.inf)
    own, others = (q * k).sum(1) / t, logits.logsumexp(1)
    weight = (others - own).sigmoid() / len(q)  # 0 without negatives
    spread = logits.softmax(1).nan_to_num()
    margin = torch.where(others.isinf(), 0, others.abs()) + own.abs()  # an error in it is a relative one of the weight
    to_queries = (weight / t * ((spread @ memory).norm(dim=1) + 1)).norm()
    to_keys = (weight * margin / t).norm()
    to_temperature = (weight / t * (own.abs() + (spread * logits.nan_to_num(neginf=0.0).abs()).sum(1))).sum()
    return [float(x) for x in (margin.mean(), to_queries.maximum(to_keys), to_keys, to_temperature)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12), held=st.integers(0, 40), dim=st.integers(2, 24), temperature=st.sampled_from([0.07, 0.2, 1.0]),
    images=st.integers(1, 6), masked=st.booleans(), tile=st.sampled_from([3, 8, 1024]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_loss_and_gradients_equal_cross_entropy(rows, held, dim, temperature, images, masked, tile, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, memory = unit(rows, dim, generator), unit(rows, dim, generator), unit(held, dim, generator)
    query_ids, memory_ids = torch.arange(rows) % images, torch.arange(held) % (images + 1)
    same = (query_ids[:, None] == memory_ids[None]) & masked
    ours = [q.clone().requires_grad_(), k.clone().requires_grad_(), torch.tensor(temperature, requires_grad=True)]
    exact = [
        q.double().requires_grad_(),
        k.double().requires_grad_(),
        torch.tensor(temperature).double().requires_grad_(),
    ]
    whole, infonce.TILE = infonce.TILE, tile
    try:
        ids = {"query_ids": query_ids, "memory_ids": memory_ids} if masked else {}
        contrast = info_nce(ours[0], ours[1], memory, ours[2], **ids)
    finally:
        infonce.TILE = whole
    loss = naive(*exact[:2], memory.double(), exact[2], same)
    contrast.loss.backward()
    loss.backward()
    terms = cancelling(*exact, memory.double(), same)
    pairs = zip([contrast.loss, *(x.grad for x in ours)], [loss, *(x.grad for x in exact)], terms, strict=True)
    for mine, reference, term in pairs:
        bound = 1e-6 * max(float(reference.detach().norm()), term)
        assert (mine.detach() - reference.detach()).norm() <= bound
    assert float(contrast.negatives) == pytest.approx(float((~same).sum(1).float().mean()))
    if (~same).any():
        cosine = q.double() @ memory.double().T
        assert float(contrast.negative_similarity) == pytest.approx(float(cosine[~same].mean()), abs=1e-5)
    best = (q @ memory.T).masked_fill(same, -torch.inf).amax(1) if held else torch.full((rows,), -torch.inf)
    assert float(contrast.pretext_top1) == pytest.approx(float(((q * k).sum(1) > best).float().mean()), abs=1e-6)


def test_a_row_without_negatives_has_no_loss_and_no_gradient():
    generator = torch.Generator().manual_seed(0)
    q = unit(2, 8, generator).requires_grad_()
    memory = unit(3, 8, generator)
    contrast = info_nce(q, q.detach(), memory, 0.2, query_ids=torch.tensor([5, 6]), memory_ids=torch.tensor([5, 5, 5]))
    contrast.loss.backward()
    assert torch.equal(q.grad[0], torch.zeros(8))
    assert q.grad[1].abs().sum() > 0


def test_keys_and_memory_get_no_gradient_unless_asked():
    generator = torch.Generator().manual_seed(0)
    q, k, memory = unit(3, 8, generator).requires_grad_(), unit(3, 8, generator), unit(4, 8, generator).requires_grad_()
    info_nce(q, k, memory, 0.2).loss.backward()
    assert q.grad is not None
    assert k.grad is None
    assert memory.grad is None
