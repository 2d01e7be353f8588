from __future__ import annotations

from pathlib import Path

import pytest
import torch
from baking import (
    BLOCK,
    CONV,
    NORM,
    TEXT_K,
    TEXT_Q,
    TEXT_V,
    TO_K2,
    TO_Q,
    adapter,
    changed,
    layer_weight,
    low_rank,
    names,
    random,
    refused,
    run,
    weights,
)
from narrow import WIDTH, narrow_checkpoint

from lorax.adapter import Decomposed, Dense, LowRank, Native, Offset, Scaling, Spectral
from lorax.checkpoint import open_checkpoint
from lorax.errors import (
    BaseMismatch,
    LoraxError,
    MalformedAdapter,
    MalformedCheckpoint,
    UnknownFormat,
)
from lorax.formats.fingerprint import fingerprint
from lorax.safefile import write_safetensors


class TestWeights:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_the_sum_in_the_stored_dtype_and_all_else_byte_by_byte(self, tmp_path: Path, dtype: torch.dtype):
        base = tmp_path / "base.safetensors"
        write_safetensors(base, narrow_checkpoint(dtype), {})
        modules = {TO_Q: low_rank(), CONV: LowRank(random(WIDTH, 2, 1, 1), random(2, WIDTH, 3, 3)), TO_K2: Dense(random(WIDTH, WIDTH))}
        report, out = run(base, (adapter(modules), 0.7))
        assert changed(base, out) == names(base, TO_Q, CONV, TO_K2)
        assert (report.changed, report.adapters[0].placed) == (3, 3)
        with open_checkpoint(base) as before:
            old, new = weights(base), weights(out)
            for layer, module in modules.items():
                name = before.layers[layer].tensor
                delta = module.delta().reshape(old[name].shape).double()
                error = (old[name].double() + 0.7 * delta - new[name].double()).abs().max()
                assert error <= torch.finfo(dtype).eps * 0.5 + 1e-7

    def test_fused_rows_are_changed_apart(self, base: Path):
        q, v = low_rank(), low_rank()
        _, out = run(base, (adapter({TEXT_Q: q, TEXT_V: v}), 1.0))
        assert changed(base, out) == names(base, TEXT_Q)
        with open_checkpoint(base) as before, open_checkpoint(out) as after:
            for layer, module in ((TEXT_Q, q), (TEXT_V, v)):
                assert layer_weight(after, layer).equal((layer_weight(before, layer) + module.delta()).half().float())
            assert layer_weight(after, TEXT_K).equal(layer_weight(before, TEXT_K))

    def test_several_adapters_are_computed_against_the_original(self, base: Path):
        dora = Decomposed(low_rank(), random(WIDTH, 1, scale=1.0).abs())
        ia3 = Scaling(random(WIDTH), on_input=False)
        one, two = (adapter({TO_Q: dora}), 0.5), (adapter({TO_Q: ia3, TEXT_V: ia3}, name="other"), -0.25)
        report, out = run(base, one, two)
        with open_checkpoint(base) as before, open_checkpoint(out) as after:
            weight = layer_weight(before, TO_Q)
            expected = weight + 0.5 * dora.delta(weight) - 0.25 * ia3.delta(weight)
            assert layer_weight(after, TO_Q).equal(expected.half().float())
            weight = layer_weight(before, TEXT_V)
            assert layer_weight(after, TEXT_V).equal((weight - 0.25 * ia3.delta(weight)).half().float())
        assert [(a.name, a.strength, a.placed) for a in report.adapters] == [("style", 0.5, 1), ("other", -0.25, 2)]
        _, again = run(base, two, one, overwrite=True)
        assert not changed(out, again)

    def test_norms_and_biases(self, base: Path):
        scale, shift, bias, text_bias = (random(WIDTH) for _ in range(4))
        offsets = {NORM: Offset(scale, shift), CONV: Offset(bias=bias), TEXT_K: Offset(bias=text_bias)}
        report, out = run(base, (adapter({}, offsets), 2.0))
        assert report.changed == report.adapters[0].placed == 4
        with open_checkpoint(base) as before, open_checkpoint(out) as after:
            assert layer_weight(after, NORM).equal((layer_weight(before, NORM) + 2 * scale).half().float())
            for layer, offset in ((NORM, shift), (CONV, bias), (TEXT_K, text_bias)):
                old, new = before.read_bias(before.layers[layer]), after.read_bias(after.layers[layer])
                assert old is not None
                assert new is not None
                assert new.equal((old + 2 * offset).half().float())
            assert layer_weight(after, TEXT_K).equal(layer_weight(before, TEXT_K))

    def test_fp8_is_cast_back_with_a_note(self, tmp_path: Path):
        base = tmp_path / "base.safetensors"
        write_safetensors(base, narrow_checkpoint(torch.float8_e4m3fn), {})
        module = low_rank()
        report, out = run(base, (adapter({TO_Q: module}), 1.0))
        with open_checkpoint(base) as before, open_checkpoint(out) as after:
            expected = (layer_weight(before, TO_Q) + module.delta()).to(torch.float8_e4m3fn).float()
            assert layer_weight(after, TO_Q).equal(expected)
        assert any("F8_E4M3" in note for note in report.notes)
        assert report.rounding > 1e-3

    def test_rounding_is_the_noise_of_the_stored_dtype(self, base: Path):
        report, _ = run(base, (adapter({TO_Q: low_rank()}), 1.0))
        assert 0 < report.rounding < 1e-3

    def test_scaled_fp8_is_refused(self, tmp_path: Path):
        base = tmp_path / "base.safetensors"
        tensors = narrow_checkpoint(torch.float8_e4m3fn)
        write_safetensors(base, tensors, {})
        module = next(iter(names(base, TO_Q))).removesuffix(".weight")
        write_safetensors(base, {**tensors, f"{module}.scale_weight": torch.tensor(2.0)}, {}, overwrite=True)
        refused(base, UnknownFormat, "F8_E4M3 with a scale, .*bake into the fp16 file and convert that", (adapter({TO_Q: low_rank()}), 1.0))
        run(base, (adapter({TO_K2: low_rank()}), 1.0))

    def test_native_adapters_are_held_against_their_fingerprints(self, base: Path):
        sigma = Spectral(torch.linspace(1, 0.1, 8))
        with open_checkpoint(base) as before:
            delta = sigma.delta(layer_weight(before, TO_Q))
            prints = {TO_Q: fingerprint(delta)}
            wrong = {TO_Q: fingerprint(sigma.delta(layer_weight(before, TO_Q).flip(0)))}
            native = Native(k=8, diagonal=True, self_contained=False, fingerprints=prints)
            _, out = run(base, (adapter({TO_Q: sigma}, native=native, format="lorax"), 1.0))
            with open_checkpoint(out) as after:
                torch.testing.assert_close(layer_weight(after, TO_Q), layer_weight(before, TO_Q) + delta, atol=1e-3, rtol=1e-3)
        out.unlink()
        native = Native(k=8, diagonal=True, self_contained=False, fingerprints=wrong)
        refused(base, BaseMismatch, "come out", (adapter({TO_Q: sigma}, native=native, format="lorax"), 1.0))


class TestNumbers:
    def test_overflow_names_the_layer(self, base: Path):
        huge = Dense(torch.full((WIDTH, WIDTH), 7e4))
        message = r"te1\.text_model.*layers\.1\.self_attn\.v_proj: the merged weight reaches 7e\+04, float16 holds at most 6.55e\+04"
        refused(base, LoraxError, message, (adapter({TEXT_Q: low_rank(), TEXT_V: huge}), 1.0))
        run(base, (adapter({TEXT_V: huge}), 0.5))

    def test_damaged_adapter_and_damaged_base(self, base: Path):
        damaged = Dense(torch.full((WIDTH, WIDTH), float("inf")))
        refused(base, MalformedAdapter, rf"delta of unet\.{BLOCK}.* is not finite", (adapter({TO_Q: damaged}), 1.0))
        tensors = weights(base)
        (name,) = names(base, TO_Q)
        tensors[name][0, 0] = float("nan")
        write_safetensors(base, tensors, {}, overwrite=True)
        refused(base, MalformedCheckpoint, "NaN or infinite", (adapter({TO_Q: low_rank()}), 1.0))

    def test_strength_zero_changes_nothing(self, base: Path):
        _, out = run(base, (adapter({TO_Q: low_rank(), NORM: Dense(random(WIDTH, 1))}), 0.0))
        assert not changed(base, out)
