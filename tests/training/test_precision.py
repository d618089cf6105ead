"""Which precision products of fp32 tensors have, whatever the user's program has set.

Without a GPU what counts is what torch is told: the switches are read inside the computation.
"""

from contextlib import contextmanager
from functools import partial

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from densecl.config.params import TrainParams
from densecl.contrast import memory_softmax
from densecl.datasets.storage.usable_images import ImageSet
from densecl.evaluation.predict import predict_images
from densecl.evaluation.validator import build_validator
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import build_model
from densecl.training.linear_probe import attach_linear_probe
from tests.conftest import WNIDS, draw_set
from tests.training.test_optimisation import stepper
from tests.training.test_trainer import CONTRASTS, NETWORK, batch_of

OPERATIONS = {
    "gpu products": torch.backends.cuda.matmul,
    "gpu convolutions": torch.backends.cudnn.conv,
    "gpu recurrence": torch.backends.cudnn.rnn,
    "cpu products": torch.backends.mkldnn.matmul,
    "cpu convolutions": torch.backends.mkldnn.conv,
}
IEEE = dict.fromkeys(OPERATIONS, "ieee")
TF32 = {name: "ieee" if name.startswith("cpu") else "tf32" for name in OPERATIONS}


def read_switches() -> dict[str, str]:
    found = {name: operation.fp32_precision for name, operation in OPERATIONS.items()}
    # torch's older switches agree: torch.compile reads them, and torch raises if they contradict.
    is_tf32 = found["gpu products"] == "tf32"
    assert torch.backends.cuda.matmul.allow_tf32 is is_tf32
    assert torch.backends.cudnn.allow_tf32 is (found["gpu convolutions"] == "tf32")
    return found


def set_new_switches() -> None:
    for operation in OPERATIONS.values():
        operation.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("high")


# What a user's program may have set before it calls this one.
ENVIRONMENTS = {
    "nothing": lambda: None,
    "high": partial(torch.set_float32_matmul_precision, "high"),
    "medium": partial(torch.set_float32_matmul_precision, "medium"),
    "cudnn off": partial(setattr, torch.backends.cudnn, "allow_tf32", False),
    "matmul on": partial(setattr, torch.backends.cuda.matmul, "allow_tf32", True),
    "new switches": set_new_switches,
}


@pytest.fixture(params=ENVIRONMENTS)
def environment(request):
    """A setting of the user's, which must be the same afterwards; then that of the tests."""
    with use_fp32_products():  # restores
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
        ENVIRONMENTS[request.param]()
        before = read_switches(), torch.get_float32_matmul_precision()
        yield
        assert (read_switches(), torch.get_float32_matmul_precision()) == before


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("tf32", "expected"), [(False, IEEE), (True, TF32)])
def test_the_switches_hold_inside_and_are_restored_after_an_error_too(tf32, expected):
    def fail_inside() -> None:
        with use_fp32_products(tf32):
            assert read_switches() == expected
            with use_fp32_products():
                assert read_switches() == IEEE
            assert read_switches() == expected
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()


@contextmanager
def watch_blocks(model):
    """What the switches were at each product of a block, forward and backward."""
    seen = []
    record = lambda *_: seen.append(read_switches())  # noqa: E731
    handles = [model.blocks[0].mlp.fc1.register_forward_hook(record)]
    handles.append(model.blocks[0].mlp.fc1.register_full_backward_hook(record))
    yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.usefixtures("environment")
def test_evaluation_is_in_fp32(tmp_path):
    root = draw_set(tmp_path / "val", 2, 40, folders=WNIDS)
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*"))
    labels = [WNIDS.index(file.split("/")[0]) for file in files]
    frame = pd.DataFrame({"image_id": files, "path": files, "label": labels})
    images, model = ImageSet(frame, root), build_model(NETWORK, 3, 0)
    with watch_blocks(model) as seen:
        predict_images(model, frame, root, resolve_preprocessing(model), [0, 1, 2], 4)
        build_validator({"imagenet": images}, WNIDS, 4)(model)
        attach_linear_probe(model, images, 3, 4, tmp_path / "features")
    assert seen == [IEEE] * 6  # two batches each


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", IEEE), ("tf32", TF32), ("bf16", IEEE)]
)
def test_a_step_has_the_precision_of_the_params_and_matches_in_fp32(
    precision, expected, monkeypatch
):
    matched, stored = [], []
    product = torch.bmm  # of the features that are matched
    monkeypatch.setattr(torch, "bmm", lambda *a: matched.append(read_switches()) or product(*a))
    tiles = memory_softmax.compute_tiled
    monkeypatch.setattr(
        memory_softmax, "compute_tiled", lambda *a: stored.append(read_switches()) or tiles(*a)
    )
    learner = stepper(CONTRASTS["dense"], precision=precision)
    with watch_blocks(learner.model) as seen:
        learner(batch_of(4), 0.5, 0, diagnostics=True)
    assert seen
    assert all(switches == expected for switches in seen)  # forward and backward
    assert matched
    assert all(switches == IEEE for switches in matched)
    assert stored
    assert all(switches == expected for switches in stored)


def test_precisions_have_a_name():
    assert TrainParams(precision="tf32").precision == "tf32"
    with pytest.raises(ValidationError, match="fp32"):
        TrainParams(precision="fp16")
