"""Everything that can be wrong with an adapter: one clear line each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lorax.adapter import BaseHint, Native
from lorax.errors import LoraxError, MalformedAdapter, MalformedFile, SourceNeeded, UnknownFormat
from lorax.formats import read_adapter
from lorax.formats.leaves import build_module
from lorax.layers import Component, LayerId
from lorax.linalg import all_finite

M = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
N = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k"
SGM = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
UP, DOWN = "lora_up.weight", "lora_down.weight"


def lora(name: str = M, r: int = 2) -> dict[str, Tensor]:
    return {f"{name}.{DOWN}": torch.ones(r, 8), f"{name}.{UP}": torch.ones(12, r)}


def refused(folder: Path, tensors: dict[str, Tensor]) -> LoraxError:
    save_file(tensors, folder / "bad.safetensors")
    with pytest.raises(LoraxError) as caught:
        read_adapter(folder / "bad.safetensors")
    message = str(caught.value)
    assert message.startswith("'bad.safetensors'")
    assert "\n" not in message
    return caught.value


CASES: dict[str, tuple[dict[str, Tensor], type[LoraxError], str]] = {
    "empty": ({}, MalformedAdapter, "holds no tensors"),
    "NaN": ({**lora(), f"{M}.{UP}": torch.full((12, 2), float("nan"))}, MalformedAdapter, f"'{M}.{UP}' holds NaN or infinity"),
    "infinity": ({**lora(), f"{M}.{DOWN}": torch.full((2, 8), float("inf"))}, MalformedAdapter, "holds NaN or infinity"),
    "infinite alpha": ({**lora(), f"{M}.alpha": torch.tensor(float("inf"))}, MalformedAdapter, "alpha' holds NaN or infinity"),
    "alpha of many": ({**lora(), f"{M}.alpha": torch.ones(2)}, MalformedAdapter, r"alpha is one number, not \[2\]"),
    "ranks disagree": ({**lora(), f"{M}.{UP}": torch.ones(12, 3)}, MalformedAdapter, "ranks of lora_up and lora_down disagree"),
    "zero rank": (lora(r=0), MalformedAdapter, "rank is zero"),
    "half a module": ({f"{M}.{UP}": torch.ones(12, 2)}, MalformedAdapter, "has lora_up.weight, but no lora_down.weight"),
    "alpha alone": ({f"{M}.alpha": torch.tensor(1.0)}, UnknownFormat, "not an adapter that we know"),
    "alpha without factors": ({**lora(N), f"{M}.alpha": torch.tensor(1.0)}, MalformedAdapter, "nothing to scale"),
    "text encoder": (
        {"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(2, 2), "text_model.logit_scale": torch.ones(())},
        UnknownFormat,
        "this is a text encoder",
    ),
    "Flux checkpoint": (
        {"double_blocks.0.img_attn.norm.key_norm.scale": torch.ones(2), "double_blocks.0.img_mlp.0.weight": torch.ones(2, 2)},
        UnknownFormat,
        "base model of another family",
    ),
    "vectors": ({f"{M}.{DOWN}": torch.ones(8), f"{M}.{UP}": torch.ones(12)}, MalformedAdapter, "2 or 4 dimensions"),
    "two kinds": ({**lora(), f"{M}.diff": torch.ones(12, 8)}, MalformedAdapter, "do not belong together"),
    "one layer, two names": ({**lora(), **lora(SGM)}, MalformedAdapter, "are the same layer"),
    "wrong core": ({**lora(), f"{M}.lora_mid.weight": torch.ones(3, 2, 3, 3)}, MalformedAdapter, "Tucker core does not fit"),
    "wrong magnitude": ({**lora(), f"{M}.dora_scale": torch.ones(5, 1)}, MalformedAdapter, "magnitudes do not fit"),
    "loha": ({f"{M}.hada_{p}": torch.ones(4, 4) for p in ("w1_a", "w1_b", "w2_a")}, MalformedAdapter, "but no hada_w2_b"),
    "lokr": ({f"{M}.lokr_w1": torch.ones(4, 4)}, MalformedAdapter, "lokr_w2 is missing"),
    "oft": ({f"{M}.oft_blocks": torch.ones(4, 3)}, MalformedAdapter, r"OFT blocks are \[n, s, s\]"),
    "rescale alone": ({f"{M}.rescale": torch.ones(4, 1)}, MalformedAdapter, "either oft_blocks or oft_diag"),
    "unknown leaves": ({f"{M}.lora_dwn.weight": torch.ones(2, 8)}, MalformedAdapter, "Did you mean 'lora_down.weight'"),
    "T-LoRA": ({f"{M}.q_layer.weight": torch.ones(2, 8), f"{M}.alpha": torch.ones(())}, MalformedAdapter, "T-LoRA"),
    "checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 2)}, UnknownFormat, "this is a base checkpoint"),
    "diffusers UNet": ({"down_blocks.0.resnets.0.conv1.weight": torch.ones(2, 2)}, UnknownFormat, "base model's UNet"),
    "textual inversion": ({"emb_params": torch.ones(2, 768)}, UnknownFormat, "textual inversion"),
    "SDXL textual inversion": ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, UnknownFormat, "textual inversion"),
    "controlnet": ({"control_model.input_hint_block.0.weight": torch.ones(2, 2)}, UnknownFormat, "ControlNet"),
    "VAE": ({"encoder.down.0.block.0.conv1.weight": torch.ones(2, 2)}, UnknownFormat, "VAE"),
    "anything": ({"hello": torch.ones(2, 2)}, UnknownFormat, "first tensor is called 'hello'"),
    "Flux, kohya": (lora("lora_unet_double_blocks_0_img_attn_qkv"), UnknownFormat, "layer of Flux, which is not supported"),
    "Flux, diffusers": (
        {f"transformer.single_transformer_blocks.0.attn.to_q.lora_{ab}.weight": torch.ones(4, 4) for ab in "AB"},
        UnknownFormat,
        "layer of Flux",
    ),
    "unknown modules": (lora("lora_unet_down_block_1_attn_to_q"), UnknownFormat, "0 of 1 modules are layers of SD1, SD2 or SDXL"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(tmp_path: Path, case: str) -> None:
    tensors, error, message = CASES[case]
    with pytest.raises(error, match=message):
        raise refused(tmp_path, tensors)


def test_a_handful_of_strange_keys_is_a_report(tmp_path: Path) -> None:
    tensors = {**lora(M), **lora(N), f"{M}.extra": torch.ones(1), **lora(M.replace("to_q", "to_w")), "note": torch.ones(1)}
    save_file(tensors, tmp_path / "a.safetensors")
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert len(adapter.modules) == 2
    reasons = dict(adapter.unmatched)
    assert set(reasons) == {f"{M}.extra", f"{M[:-1]}w.{UP}", f"{M[:-1]}w.{DOWN}", "note"}
    assert reasons[f"{M}.extra"].startswith("unknown kind of tensor 'extra'.")
    assert "Did you mean 'lora_unet_" in reasons[f"{M[:-1]}w.{UP}"]
    assert reasons["note"] == "not named as kohya files name their tensors"


def test_more_than_half_is_a_refusal(tmp_path: Path) -> None:
    strange = {k: v for n in ("to_w", "to_x") for k, v in lora(M.replace("to_q", n)).items()}
    refused(tmp_path, {**lora(), **strange})


def test_hints_do_not_take_forever(tmp_path: Path) -> None:
    many = {f"{M}_{n}.{leaf}": t for n in range(200) for leaf, t in ((DOWN, torch.ones(1, 8)), (UP, torch.ones(12, 1)))}
    assert "0 of 200 modules" in str(refused(tmp_path, many))


def test_files_that_are_no_tensors(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_text("<!DOCTYPE html>")
    with pytest.raises(MalformedFile):
        read_adapter(tmp_path / "bad.safetensors")


def test_wrong_or_missing_base() -> None:
    module, _ = build_module({"oft_blocks": torch.zeros(4, 3, 3)})
    assert module is not None
    with pytest.raises(SourceNeeded, match="oft module changes the weight of its own base"):
        module.delta()
    with pytest.raises(MalformedAdapter, match=r"for a weight of \[12, 0\], the base has \[13, 4\]"):
        module.delta(torch.ones(13, 4))
    assert module.fits((12, 5, 3, 3))
    assert not module.fits((13, 5))
    ia3, _ = build_module({"weight": torch.ones(8), "on_input": torch.tensor(1)})
    assert ia3 is not None
    with pytest.raises(MalformedAdapter, match="8 channels"):
        ia3.delta(torch.ones(4, 9))


def test_hints_for_people() -> None:
    assert str(BaseHint()) == "an unnamed base"
    assert str(BaseHint("x", "ab" * 32, "01234567")) == "x sha256 ababababab… [01234567]"
    assert Native(1, True, False, {LayerId(Component.UNET, "conv_in"): (0.0, 0.0, 0.0, 0.0)}).k == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_number_is_found(bad: float) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        values = torch.full((50, 50), torch.finfo(dtype).max, dtype=dtype)
        assert all_finite(values)
        values[7, 3] = bad
        assert not all_finite(values)
    assert all_finite(torch.ones(3, dtype=torch.int64))
