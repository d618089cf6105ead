"""The probe in chunks against the whole batch, and its memory against what it is said to need."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.probe import measure_probe
from densecl.network import logistic_regression
from densecl.network.logistic_regression import estimate_memory, fit_linear_probe
from densecl.training.feature_file import FeatureFile
from densecl.training.train_state import TrainingError

GIGABYTE = 10**9
IMAGENET = 1_281_167, 1000  # images, classes


def planted(rows: int = 300, dim: int = 7, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes, so that the optimum is finite; features of very unequal scales."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=generator)
    centres = torch.randn(classes, dim, generator=generator)
    features = centres[labels] + 2 * torch.randn(rows, dim, generator=generator)
    return features * 10.0 ** (torch.arange(dim) / 2 - 1) + 1, labels


def solve_whole_batch(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [B, C] at the optimum, by Newton's method on all rows at once."""
    x = (features.double() - features.double().mean(0)) / features.double().std(0)
    classes = int(labels.max()) + 1
    x1 = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        weight = flat.view(classes, -1)
        return (
            F.cross_entropy(x1 @ weight.T, labels)
            + logistic_regression.L2_PENALTY * weight[:, :-1].square().sum()
        )

    flat = torch.zeros(classes * x1.shape[1], dtype=x.dtype)
    for _ in range(30):
        gradient = torch.autograd.functional.jacobian(loss, flat)
        hessian = torch.autograd.functional.hessian(loss, flat)
        flat = flat - torch.linalg.lstsq(hessian, gradient[:, None], driver="gelsd").solution[:, 0]
    assert gradient.norm() < 1e-10
    return (x1 @ flat.view(classes, -1).T).log_softmax(1)


@pytest.mark.parametrize("chunk_bytes", [logistic_regression.CHUNK_BYTES, 50_000, 1])
def test_chunks_give_the_optimum_of_the_whole_batch(tmp_path, monkeypatch, chunk_bytes):
    monkeypatch.setattr(logistic_regression, "CHUNK_BYTES", chunk_bytes)
    features, labels = planted()
    expected = solve_whole_batch(features, labels)
    with FeatureFile(tmp_path / "features", *features.shape) as file:
        for part in features.split(77):
            file.append(part)
        for given in (features, file):
            weight, bias = fit_linear_probe(given, labels, 5)
            found = (features.double() @ weight.T.double() + bias.double()).log_softmax(1)
            # L-BFGS stops at a change of 1e-9 in the loss; the result is fp32.
            assert (found - expected).abs().max() < 1e-3
    assert list(tmp_path.iterdir()) == []
    assert features.equal(planted()[0])  # not standardised in place


def test_a_file_splits_like_a_tensor(tmp_path):
    features = torch.randn(23, 3)
    with FeatureFile(tmp_path / "features", 23, 3) as file:
        for part in features.split(4):
            file.append(part)
        for rows in (1, 5, 23, 99):
            chunks = list(file.split(rows))
            assert [len(c) for c in chunks] == [len(c) for c in features.split(rows)]
            assert torch.equal(torch.cat(chunks), features)


def test_what_cannot_be_written_or_read_says_what_it_needs(tmp_path):
    with pytest.raises(TrainingError, match=r"No such file.*need 3\.9 GB"):
        FeatureFile(tmp_path / "no" / "features", 1_281_167, 768).__enter__()
    with FeatureFile(tmp_path / "features", 10, 3) as file:
        file.append(torch.ones(9, 3))
        with pytest.raises(TrainingError, match="found 9 rows, expected 10"):
            list(file.split(4))


@pytest.mark.parametrize("dim", [768, 1024, 1280, 1536, 4096])
def test_imagenet_needs_less_than_eight_gigabytes(dim):
    rows, classes = IMAGENET
    assert estimate_memory(rows, dim, classes) < 8 * GIGABYTE
    assert estimate_memory(10 * rows, dim, classes) < 8 * GIGABYTE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "dim", "classes", "iterations"),
    [
        (60_000, 64, 300, 3),  # mostly the chunk: 81,000 rows fill it
        (150_000, 64, 300, 2),  # more rows than a chunk
        (1_000, 768, 1000, 40),  # mostly the history of L-BFGS, at ImageNet's width
    ],
)
def test_memory_is_what_it_is_said_to_be(tmp_path, rows, dim, classes, iterations):
    measured = measure_probe(tmp_path, rows, dim, classes, iterations)
    predicted = estimate_memory(rows, dim, classes, iterations)
    assert 0.3 * predicted < measured < predicted
