"""`info_nce` against its definition `info_nce_reference` in float64."""

import math
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from densecl.contrast import NegativeMask, info_nce, info_nce_reference, memory_softmax


def unit(rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


@torch.no_grad()
def compute_term_sizes(q, k, t, memory, same) -> list[float]:
    """Size of the terms whose difference is the loss and the gradients to q, k and t."""
    logits = (q @ memory.T / t).masked_fill(same, -torch.inf)
    own, others = (q * k).sum(1) / t, logits.logsumexp(1)
    weight = (others - own).sigmoid() / len(q)  # 0 without negatives
    spread = logits.softmax(1).nan_to_num()
    dots = (
        (q * k).abs().sum(1) / t,
        q.abs() @ memory.abs().T / t,
    )  # sums inside the products
    margin = (
        torch.where(others.isinf(), 0, others.abs()) + dots[0]
    )  # an error in it is a relative one of the weight
    to_queries = (weight / t * ((spread @ memory).norm(dim=1) + 1)).norm()
    to_keys = (weight * margin / t).norm()
    to_temperature = (weight / t * (dots[0] + (spread * dots[1]).sum(1))).sum()
    pull = own - (spread * (q @ memory.T / t)).sum(1)  # scaled by the weight, as the keys are
    to_temperature = to_temperature.maximum((weight * margin / t * pull.abs()).sum())
    return [float(x) for x in (margin.mean(), to_queries.maximum(to_keys), to_keys, to_temperature)]


def test_reference_is_the_mean_negative_log_probability_of_the_positive():
    generator = torch.Generator().manual_seed(0)
    q, k, memory = (unit(rows, 4, generator).double() for rows in (3, 3, 5))
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 1] = mask[2] = True
    losses = []
    for row in range(3):
        positive = math.exp(float(q[row] @ k[row]) / 0.3)
        negatives = [
            math.exp(float(q[row] @ memory[entry]) / 0.3)
            for entry in range(5)
            if not mask[row, entry]
        ]
        losses.append(-math.log(positive / (positive + sum(negatives))))
    assert losses[2] == 0  # no negatives
    loss = float(info_nce_reference(q, k, memory, 0.3, mask))
    assert loss == pytest.approx(sum(losses) / 3, rel=1e-12)


COMPUTE_TILED = memory_softmax.compute_tiled
PATHS = ("tiles", "small tiles", "fused", pytest.param("flex", marks=pytest.mark.slow))


@contextmanager
def use_path(path: str):
    """Select one implementation of the softmax.

    Flex attention runs uncompiled: torch compiles its log-sum-exp for GPUs only.
    """
    with pytest.MonkeyPatch.context() as patch:
        if path == "small tiles":
            patch.setattr(memory_softmax, "QUERY_TILE", 3)
            patch.setattr(memory_softmax, "MEMORY_TILE", 8)
        if path == "flex":
            patch.setattr(memory_softmax, "compute_tiled", compute_by_flex)
        yield {"diagnostics": path != "fused"}


def compute_by_flex(queries, memory, temperature, mask):
    if not len(queries) or not len(memory):
        return COMPUTE_TILED(queries, memory, temperature, mask)
    return memory_softmax.compute_flex(queries, memory, temperature, mask, attend, diagnostics=True)


def attend(queries, keys, values, score_mod, scale, return_aux):
    """Flex attention, with the largest scores that torch returns on GPUs only."""
    found, aux = flex_attention(
        queries, keys, values, score_mod=score_mod, scale=scale, return_aux=AuxRequest(lse=True)
    )
    scores = (queries @ keys.mT).float()  # [1, H, Q, K / H]
    if score_mod:
        heads, rows, entries = (torch.arange(size) for size in scores.shape[1:])
        scores = score_mod(scores, None, heads[:, None, None], rows[:, None], entries)
    return found, aux._replace(max_scores=scores.amax(-1) if return_aux.max_scores else None)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 12),
    held=st.integers(0, 40),
    dim=st.integers(2, 24),
    temperature=st.sampled_from([0.07, 0.2, 1.0]),
    images=st.integers(1, 6),
    masks=st.sampled_from([(), ("ids",), ("ids", "classes")]),
    seed=st.integers(0, 10**6),
)
def test_loss_and_gradients_equal_cross_entropy(
    path, rows, held, dim, temperature, images, masks, seed
):
    generator = torch.Generator().manual_seed(seed)
    q, k, memory = (
        unit(rows, dim, generator),
        unit(rows, dim, generator),
        unit(held, dim, generator),
    )
    ids, same = {}, torch.zeros(rows, held, dtype=torch.bool)
    for name in masks:
        of_queries = torch.randint(0, images, (rows,), generator=generator)
        of_memory = torch.randint(0, 2 * images, (held,), generator=generator)
        ids |= {f"query_{name}": of_queries, f"memory_{name}": of_memory}
        same |= of_queries[:, None] == of_memory[None]
    ours = [
        q.clone().requires_grad_(),
        k.clone().requires_grad_(),
        torch.tensor(temperature, requires_grad=True),
    ]
    exact = [
        q.double().requires_grad_(),
        k.double().requires_grad_(),
        torch.tensor(temperature).double().requires_grad_(),
    ]
    with use_path(path) as how:
        contrast = info_nce(ours[0], ours[1], memory, ours[2], **ids, **how)
    loss = info_nce_reference(*exact[:2], memory.double(), exact[2], same)
    contrast.loss.backward()
    loss.backward()
    terms = compute_term_sizes(*exact, memory.double(), same)
    pairs = zip(
        [contrast.loss, *(x.grad for x in ours)],
        [loss, *(x.grad for x in exact)],
        terms,
        strict=True,
    )
    for mine, reference, term in pairs:
        bound = 1e-6 * max(float(reference.detach().norm()), term)
        assert (mine.detach() - reference.detach()).norm() <= bound
    assert float(contrast.positive_similarity) == pytest.approx(
        float((q * k).sum(1).mean()), abs=1e-6
    )
    assert float(contrast.negatives) == pytest.approx(float((~same).sum(1).float().mean()))
    if not how["diagnostics"] and held:
        assert contrast.negative_similarity.isnan()
        assert contrast.pretext_top1.isnan()
        return
    with_negatives = (~same).any(1)
    assert float(contrast.with_negatives) == pytest.approx(float(with_negatives.float().mean()))
    if not with_negatives.any():  # nothing to be similar to, and nothing to rank before
        assert contrast.negative_similarity.isnan()
        assert contrast.pretext_top1.isnan()
        return
    cosine = q.double() @ memory.double().T
    assert float(contrast.negative_similarity) == pytest.approx(
        float(cosine[~same].mean()), abs=1e-5
    )
    best = (q @ memory.T).masked_fill(same, -torch.inf).amax(1)
    assert float(contrast.pretext_top1) == pytest.approx(
        float(((q * k).sum(1) > best)[with_negatives].float().mean()), abs=1e-6
    )


@pytest.mark.parametrize("diagnostics", [True, False])
def test_several_tiles_of_wide_features_with_masks(diagnostics):
    """Sizes around those of the real tiles; bf16 autocast must not lower precision on a CPU."""
    generator = torch.Generator().manual_seed(0)
    rows, held = memory_softmax.QUERY_TILE + 52, 2 * memory_softmax.MEMORY_TILE + 7
    q, k, memory = (
        unit(rows, 256, generator),
        unit(rows, 256, generator),
        unit(held, 256, generator),
    )
    ids = {"query_ids": torch.arange(rows) % 700, "memory_ids": torch.arange(held) % 1400}
    same = ids["query_ids"][:, None] == ids["memory_ids"][None]
    ours, exact = q.clone().requires_grad_(), q.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        contrast = info_nce(ours, k, memory, 0.2, **ids, diagnostics=diagnostics)
    loss = info_nce_reference(exact, k.double(), memory.double(), 0.2, same)
    contrast.loss.backward()
    loss.backward()
    assert float(contrast.loss.detach()) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert (ours.grad - exact.grad).norm() <= 1e-6 * exact.grad.norm()


def test_chance_is_the_loss_of_a_uniform_guess_and_no_negatives_give_nan():
    one = F.normalize(torch.ones(3, 8), dim=1)
    guessed = info_nce(
        one,
        one,
        one[:1].expand(5, 8),
        0.2,
        query_ids=torch.tensor([0, 1, 2]),
        memory_ids=torch.tensor([0, 0, 0, 1, 9]),
    )
    assert float(guessed.loss) == pytest.approx(float(guessed.chance))  # all similarities are equal
    assert float(guessed.chance) == pytest.approx(
        float(torch.tensor([2.0, 4.0, 5.0]).log1p().mean())
    )
    none = info_nce(one, one, one, 0.2, query_ids=torch.zeros(3), memory_ids=torch.zeros(3))
    empty = info_nce(one, one, one[:0], 0.2)  # an empty memory
    for output in (none, empty):
        assert output.negative_similarity.isnan()
        assert output.pretext_top1.isnan()  # it wins against nothing
        assert float(output.loss) == float(output.chance) == float(output.with_negatives) == 0


def test_private_flash_operation_returns_output_and_log_sum_exp():
    """`compute_flash_cpu` relies on its order of results and its scale."""
    generator = torch.Generator().manual_seed(0)
    q, memory = unit(5, 16, generator), unit(70, 16, generator)
    mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q[None, None], memory[None, None], memory[None, None], scale=2.0
    )
    logits = 2.0 * q.double() @ memory.double().T
    assert torch.allclose(lse.flatten().double(), logits.logsumexp(1), atol=1e-5)
    assert torch.allclose(mean[0, 0].double(), logits.softmax(1) @ memory.double(), atol=1e-5)


def test_fused_path_is_taken_without_diagnostics(monkeypatch):
    taken = []
    real = memory_softmax.compute_flash_cpu
    monkeypatch.setattr(
        memory_softmax,
        "compute_flash_cpu",
        lambda *given: taken.append(len(given[0])) or real(*given),
    )
    generator = torch.Generator().manual_seed(0)
    q, memory = unit(4, 8, generator), unit(9, 8, generator)
    info_nce(q, q, memory, 0.2)
    assert taken == []
    info_nce(q, q, memory, 0.2, diagnostics=False)
    assert taken == [4]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_error_under_bf16_autocast_is_that_of_cross_entropy():
    """Uncompiled flex rounds scores and output to bf16; the GPU kernel only the output."""
    generator = torch.Generator().manual_seed(0)
    q, k, memory = unit(64, 64, generator), unit(64, 64, generator), unit(1024, 64, generator)
    exact = q.double().requires_grad_()
    info_nce_reference(exact, k.double(), memory.double(), 0.2).backward()
    errors = []
    for path in ("flex", "reference"):
        given = q.clone().requires_grad_()
        with use_path(path) as how, torch.autocast("cpu", torch.bfloat16):
            loss = (
                info_nce_reference(given, k, memory, 0.2)
                if path == "reference"
                else info_nce(given, k, memory, 0.2, **how).loss
            )
        loss.backward()
        errors.append(float((given.grad - exact.grad).norm() / exact.grad.norm()))
    assert errors[1] < 1e-3
    assert errors[0] <= 1.25 * errors[1]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    held=st.integers(0, 30),
    images=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_hardest_negative_is_the_largest_unmasked_cosine(rows, held, images, seed):
    generator = torch.Generator().manual_seed(seed)
    q, memory = unit(rows, 8, generator), unit(held, 8, generator)
    ids = NegativeMask(torch.arange(rows) % images, torch.arange(held) % (images + 1))
    same = ids.query_ids[:, None] == ids.memory_ids[None]
    cosines = torch.cat(
        [(q @ memory.T).masked_fill(same, -torch.inf), torch.full((rows, 1), -torch.inf)], 1
    )
    with use_path("small tiles"):
        assert torch.allclose(memory_softmax.find_hardest_negative(q, memory, ids), cosines.amax(1))


def test_query_without_negatives_has_zero_loss_and_gradient():
    generator = torch.Generator().manual_seed(0)
    q = unit(2, 8, generator).requires_grad_()
    memory = unit(3, 8, generator)
    contrast = info_nce(
        q,
        q.detach(),
        memory,
        0.2,
        query_ids=torch.tensor([5, 6]),
        memory_ids=torch.tensor([5, 5, 5]),
    )
    contrast.loss.backward()
    assert torch.equal(q.grad[0], torch.zeros(8))
    assert q.grad[1].abs().sum() > 0


def test_keys_get_a_gradient_only_if_required_and_memory_never():
    generator = torch.Generator().manual_seed(0)
    q, k, memory = (
        unit(3, 8, generator).requires_grad_(),
        unit(3, 8, generator),
        unit(4, 8, generator).requires_grad_(),
    )
    info_nce(q, k, memory, 0.2).loss.backward()
    assert q.grad is not None
    assert k.grad is None
    assert memory.grad is None


def test_without_queries_the_temperature_has_a_gradient_of_zero():
    """A rank without a valid pair must all-reduce the same tensors as the others."""
    temperature = torch.tensor(0.1, requires_grad=True)
    queries = torch.zeros(0, 8, requires_grad=True)
    info_nce(queries, torch.zeros(0, 8), torch.randn(5, 8), temperature).loss.backward()
    assert temperature.grad == 0
    assert queries.grad.shape == (0, 8)
