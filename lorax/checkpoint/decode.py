"""Stored weights as fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from lorax.errors import MalformedCheckpoint
from lorax.linalg import all_finite
from lorax.safefile import Rows, TensorFile

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
"""Dtypes that are weights by themselves, or times one scale; anything else is a quantisation with tables of its own."""


def scale_name(file: TensorFile, tensor: str) -> str | None:
    """The tensor that scales an fp8 weight: ComfyUI's ``scale_weight`` of scaled fp8 files, or its newer ``weight_scale``."""
    module = tensor.removesuffix(".weight")
    return next((n for n in (f"{module}.scale_weight", f"{module}.weight_scale") if n in file.tensors), None)


def read_float(file: TensorFile, tensor: str, rows: Rows | None) -> Tensor:
    """The tensor (or its `rows`) in fp32 on the CPU, fp8 multiplied by its scale.

    MalformedCheckpoint, naming the tensor, where a value is not finite.
    """
    values = file.read(tensor, rows).to(torch.float32)
    if file.tensors[tensor].dtype.startswith("F8") and (scale := scale_name(file, tensor)) is not None:
        values = values * _broadcast(file.read(scale).to(torch.float32), values.ndim, rows)
    if not all_finite(values):
        count = int((~torch.isfinite(values)).sum())
        raise MalformedCheckpoint(f"'{file.path}': '{tensor}' has {count:,} values that are NaN or infinite; get an undamaged copy")
    return values


def _broadcast(scale: Tensor, ndim: int, rows: Rows | None) -> Tensor:
    """A scale for the whole tensor as it is; one scale a row as a column."""
    if scale.numel() == 1:
        return scale.reshape(())
    column = scale.reshape(-1, *(1,) * (ndim - 1))
    return column if rows is None else column[rows[0] : rows[1]]
