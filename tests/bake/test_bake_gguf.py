"""Baking into a GGUF file: there is no quantising here, so the output is wider, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from baking import TO_K2, TO_Q, adapter, layer_weight, low_rank, names, run, weights
from narrow import narrow_checkpoint

from lorax.checkpoint import open_checkpoint
from lorax.safefile import open_tensors
from lorax.safefile.gguf import TYPES

gguf: Any = pytest.importorskip("gguf", reason="the gguf package writes the file of this test")


def write_quantised(path: Path) -> set[str]:
    """The narrow checkpoint with its attention and text projections as Q8_0; returns their names."""
    writer, kind = gguf.GGUFWriter(path, "sd2"), gguf.GGMLQuantizationType.Q8_0
    quantised = set[str]()
    for name, tensor in narrow_checkpoint().items():
        values = tensor.float().numpy()
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
            quantised.add(name)
        else:
            writer.add_tensor(name, tensor.numpy())
    for write_part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write_part()
    return quantised


def test_what_was_quantised_is_written_as_fp32_and_the_user_is_told(tmp_path: Path) -> None:
    base = tmp_path / "base.gguf"
    quantised = write_quantised(base)
    modules = {TO_Q: low_rank(), TO_K2: low_rank()}
    report, out = run(base, (adapter(modules), 0.7))
    assert f"the checkpoint is GGUF (F16 157, Q8_0 {len(quantised)}, F32 1)" in report.notes[0]
    assert "what is quantised there is written as F32" in report.notes[0]
    assert (report.changed, report.rounding) == (2, 0)
    old, new = weights(base), weights(out)
    assert {name for name, t in new.items() if t.dtype == torch.float32} >= quantised
    assert {name for name in old if not old[name].equal(new[name])} == names(base, *modules) <= quantised
    with open_checkpoint(base) as before, open_checkpoint(out) as after:
        for layer, module in modules.items():
            assert layer_weight(after, layer).equal(layer_weight(before, layer).add(module.delta(), alpha=0.7))
        assert [note for note in before.notes if "quantised" in note]
        assert not [note for note in after.notes if "quantised" in note]
    with open_tensors(out) as file:
        assert TYPES not in file.metadata
