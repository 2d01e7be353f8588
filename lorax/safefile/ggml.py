"""The block encodings of ggml as fp32 (ggml-common.h and ggml-quants.c of ggml): ``Q4_0`` … ``Q8_0`` and the k-quants.

A block holds 32 or 256 consecutive values of a row; its bytes begin or end with fp16 scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoding:
    """How the values of a tensor lie in a file."""

    name: str
    values: int
    """of one block"""
    nbytes: int
    """of one block"""
    decode: Callable[[Tensor], Tensor]
    """[blocks, nbytes] of uint8 → [blocks, values] in fp32"""


def _half(blocks: Tensor, at: int) -> Tensor:
    """The fp16 number at a byte of each block: [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """[…, n] bytes → […, 2n]: the low halves of all, then the high ones."""
    return torch.cat([packed & 15, packed >> 4], dim=-1)


def _q4_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 2:]).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return _half(b, 0) * _nibbles(b[:, 4:]).float() + _half(b, 2)


def _fifth_bits(four: Tensor) -> Tensor:
    """32 bits of four bytes, the lowest first, as 16s: [blocks, 32]."""
    return ((four[:, :, None] >> torch.arange(8, dtype=torch.uint8)) & 1).reshape(-1, 32) << 4


def _q5_0(b: Tensor) -> Tensor:
    return _half(b, 0) * ((_nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6])).float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8])).float() + _half(b, 2)


def _q8_0(b: Tensor) -> Tensor:
    return _half(b, 0) * b[:, 2:].contiguous().view(torch.int8).float()


def _pairs(packed: Tensor) -> Tensor:
    """[…, n] bytes → […, 4n]: the lowest two bits of all, then the next two…"""
    return torch.cat([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], dim=-1)


def _q2_k(b: Tensor) -> Tensor:
    scales, q = b[:, :16, None], _pairs(b[:, 16:80].reshape(-1, 2, 32)).reshape(-1, 16, 16).float()
    d, low = _half(b, 80)[:, :, None], _half(b, 82)[:, :, None]
    return (d * (scales & 15).float() * q - low * (scales >> 4).float()).reshape(-1, 256)


def _q3_k(b: Tensor) -> Tensor:
    eighth = torch.arange(8, dtype=torch.uint8)
    not_set = 1 - ((b[:, None, :32] >> eighth[:, None]) & 1)  # [blocks, 8, 32]
    q = _pairs(b[:, 32:96].reshape(-1, 2, 32)).reshape(-1, 8, 32).float() - 4 * not_set.float()
    scales = (_nibbles(b[:, 96:104]) | (_pairs(b[:, 104:108]) << 4)).float() - 32
    return (_half(b, 108)[:, :, None] * scales[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """8 scales and 8 minima of six bits each in 12 bytes: [blocks, 8, 1] twice."""
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([a & 63, (c & 15) | ((a >> 2) & 48)], dim=1)
    minima = torch.cat([b & 63, (c >> 4) | ((b >> 2) & 48)], dim=1)
    return scales[:, :, None].float(), minima[:, :, None].float()


def _with_minima(b: Tensor, q: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b[:, 4:16])
    return (_half(b, 0)[:, :, None] * scales * q.float() - _half(b, 2)[:, :, None] * minima).reshape(-1, 256)


def _q4_k(b: Tensor) -> Tensor:
    return _with_minima(b, _nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def _q5_k(b: Tensor) -> Tensor:
    high = ((b[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None]) & 1) << 4
    return _with_minima(b, _nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | high)


def _q6_k(b: Tensor) -> Tensor:
    q = _nibbles(b[:, :128].reshape(-1, 2, 64)) | (_pairs(b[:, 128:192].reshape(-1, 2, 32)) << 4)
    scales = b[:, 192:208].contiguous().view(torch.int8).float()
    return (_half(b, 208)[:, :, None] * scales[:, :, None] * (q.float() - 32).reshape(-1, 16, 16)).reshape(-1, 256)


ENCODINGS = {
    2: Encoding("Q4_0", 32, 18, _q4_0),
    3: Encoding("Q4_1", 32, 20, _q4_1),
    6: Encoding("Q5_0", 32, 22, _q5_0),
    7: Encoding("Q5_1", 32, 24, _q5_1),
    8: Encoding("Q8_0", 32, 34, _q8_0),
    10: Encoding("Q2_K", 256, 84, _q2_k),
    11: Encoding("Q3_K", 256, 110, _q3_k),
    12: Encoding("Q4_K", 256, 144, _q4_k),
    13: Encoding("Q5_K", 256, 176, _q5_k),
    14: Encoding("Q6_K", 256, 210, _q6_k),
}
"""By ggml's number of the type."""
PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
"""Types that are safetensors' own."""
OTHERS = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Known by name only."""
