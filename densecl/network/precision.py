"""Precision of fp32 matrix products and convolutions, whatever torch or the user has set before."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def use_fp32_products(tf32: bool = False) -> Iterator[None]:
    """Within it, products of fp32 tensors are in fp32, or in TF32 on a GPU; restored afterwards.

    TF32 rounds the inputs of a product to 10 bits of mantissa (fp32: 23) and adds up in fp32. torch
    uses it for convolutions unless told otherwise. On a CPU, products are in fp32 in both cases.
    """
    name, before = torch.get_float32_matmul_precision(), _get_precisions()
    precision = "tf32" if tf32 else "ieee"
    try:
        _set_precisions("high" if tf32 else "highest", [precision] * 3 + ["ieee"] * 2)
        yield
    finally:
        _set_precisions(name, before)


def _list_operations() -> tuple[Any, ...]:
    backends: Any = torch.backends  # its stubs lack some of these
    gpu, cpu = backends.cudnn, backends.mkldnn
    return backends.cuda.matmul, gpu.conv, gpu.rnn, cpu.matmul, cpu.conv


def _get_precisions() -> list[str]:
    return [operation.fp32_precision for operation in _list_operations()]


def _set_precisions(name: str, precisions: Sequence[str]) -> None:
    """Set torch's older switches too: torch refuses to read them if they contradict the others."""
    torch.set_float32_matmul_precision(name)
    torch.backends.cudnn.allow_tf32 = precisions[1] == "tf32"
    for operation, precision in zip(_list_operations(), precisions, strict=True):
        operation.fp32_precision = precision
