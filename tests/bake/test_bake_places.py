from __future__ import annotations

from pathlib import Path

import pytest
import torch
from baking import (
    BLOCK,
    CONV,
    GONE,
    NORM,
    TEXT_Q,
    TEXT_V,
    TO_K2,
    TO_Q,
    adapter,
    low_rank,
    random,
    refused,
    run,
    weights,
)
from narrow import WIDTH

from lorax.adapter import Offset
from lorax.archs import by_name
from lorax.bake import bake
from lorax.errors import (
    BaseMismatch,
    LoraxError,
    UnknownFormat,
)
from lorax.layers import Component, LayerId
from lorax.safefile import open_tensors, write_safetensors


class TestPlaces:
    def test_what_the_checkpoint_lacks_is_in_the_report(self, base: Path):
        modules = {TO_Q: low_rank(), TO_K2: low_rank(), GONE: low_rank(), CONV: low_rank()}
        offsets = {TO_Q: Offset(bias=random(WIDTH)), NORM: Offset(random(3))}
        fitting = {LayerId(Component.UNET, f"{BLOCK}.{n}"): low_rank() for n in ("attn1.to_k", "attn1.to_v", "attn2.to_q")}
        report, _ = run(base, (adapter({**modules, **fitting}, offsets, unmatched=(("bundle_emb.x", "an embedding"),)), 1.0))
        absent = {a.layer: a.reason for a in report.adapters[0].absent}
        assert absent == {
            GONE: "the checkpoint has no such layer",
            CONV: f"is for a weight of [{WIDTH}, {WIDTH}], the checkpoint has [{WIDTH}, {WIDTH}, 3, 3]",
            TO_Q: "adds to a bias, the checkpoint has none there",
            NORM: f"adds 3 numbers to a weight, the checkpoint has [{WIDTH}]",
        }
        assert report.adapters[0].placed == 5
        assert report.adapters[0].unmatched == (("bundle_emb.x", "an embedding"),)

    def test_text_encoder_modules_on_a_unet_file(self, base: Path):
        unet = {n: t for n, t in weights(base).items() if n.startswith("model.diffusion_model.")}
        write_safetensors(base, unet, {}, overwrite=True)
        report, _ = run(base, (adapter({TO_Q: low_rank(), TEXT_Q: low_rank(), TEXT_V: low_rank()}), 1.0))
        assert [a.reason for a in report.adapters[0].absent] == ["the checkpoint has no te1"] * 2

    def test_most_of_it_without_a_place_is_a_refusal(self, base: Path):
        gone = {LayerId(Component.UNET, f"up_blocks.9.resnets.{i}.conv1"): low_rank() for i in range(2)}
        message = r"Only 1 of 3 modules of 'style' have a place in 'base' \(unet\.up_blocks\.9.*transfer the adapter to this"
        refused(base, BaseMismatch, message, (adapter({TO_Q: low_rank(), **gone}), 1.0))
        refused(base, BaseMismatch, "Only 0 of 0", (adapter({}), 1.0))

    def test_another_family(self, base: Path):
        refused(base, BaseMismatch, "was made for sdxl, 'base' is sd2", (adapter({TO_Q: low_rank()}, arch=by_name("sdxl")), 1.0))

    def test_nothing_to_bake_and_senseless_strength(self, base: Path):
        refused(base, LoraxError, "no adapter to bake")
        refused(base, LoraxError, "strength of 'style' is nan", (adapter({TO_Q: low_rank()}), float("nan")))

    def test_several_files(self, base: Path):
        tensors = weights(base)
        for name, prefix in (("u", "model.diffusion_model."), ("t", "cond_stage_model.")):
            write_safetensors(base.with_name(f"{name}.safetensors"), {n: t for n, t in tensors.items() if n.startswith(prefix)}, {})
        spec = f"{base.with_name('u.safetensors')}+{base.with_name('t.safetensors')}"
        with pytest.raises(UnknownFormat, match="is no single file"):
            bake(spec, [(adapter({TO_Q: low_rank()}), 1.0)], base.with_name("out.safetensors"))

    def test_pickle_in_safetensors_out(self, base: Path):
        ckpt = base.with_name("old.ckpt")
        torch.save({"state_dict": {**weights(base), "model_ema.decay": torch.tensor(0.5)}, "global_step": 3}, ckpt)
        report, out = run(ckpt, (adapter({TO_Q: low_rank()}), 1.0))
        with open_tensors(out) as file:
            assert file.metadata["format"] == "pt"
            assert file.read("model_ema.decay").item() == 0.5
        assert [note for note in report.notes if "global_step" in note]
        assert [note for note in report.notes if "EMA" in note]
