"""A base model is the same whatever layout it comes in: every layer is found, and read as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from converter.samples import TINY, Widths, sample_checkpoint, write_diffusers
from lorax.archs import ARCHS, by_name
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.layers import Component, LayerId
from lorax.safefile import write_safetensors

Q = LayerId(Component.UNET, "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
UNET = "model.diffusion_model."


@lru_cache(maxsize=4)
def sample(name: str, layout: str = "single_file") -> dict[str, Tensor]:
    return sample_checkpoint(by_name(name), layout, TINY)  # type: ignore[arg-type]


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    write_safetensors(path, {name: t.contiguous() for name, t in tensors.items()}, metadata or {})
    return path


def assert_same(first: Checkpoint, second: Checkpoint, components: tuple[Component, ...]) -> None:
    """Equal weights and biases in these components of two files."""
    ids = [i for i in first.layers if i.component in components]
    assert ids == [i for i in second.layers if i.component in components]
    for i in ids:
        a, b = first.layers[i], second.layers[i]
        assert a.shape == b.shape == tuple(first.read(a).shape)
        assert torch.equal(first.read(a), second.read(b))
        bias, other = first.read_bias(a), second.read_bias(b)
        assert (bias is None) == (other is None)
        assert bias is None or other is None or torch.equal(bias, other)


@pytest.mark.parametrize("name", [arch.name for arch in ARCHS])
def test_single_file_and_diffusers_folder_are_the_same_model(name: str, tmp_path: Path) -> None:
    arch = by_name(name)
    file = write(tmp_path / "model.safetensors", sample(name))
    write_diffusers(tmp_path / "folder", arch, sample(name, "diffusers"), TINY)
    with open_checkpoint(file) as single, open_checkpoint(tmp_path / "folder") as folder:
        assert (single.arch.name, folder.arch.name) == (name, name)
        assert (single.layout, folder.layout) == ("single file", "diffusers folder")
        assert (single.name, folder.name) == ("model", "folder")
        assert single.components == folder.components == arch.components
        assert len(single.layers) == len(arch.layers())
        assert [*single.unused, *folder.unused, *single.notes, *folder.notes] == []
        assert_same(single, folder, arch.components)


def test_one_layer_holds_what_was_written(tmp_path: Path) -> None:
    tensors = sample("sd1")
    with open_checkpoint(write(tmp_path / "model.safetensors", tensors)) as base:
        layer = base.layer(Q)
        name = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"
        assert (layer.tensor, layer.rows, layer.bias) == (name, None, None)
        assert layer.spec.unit.path == "down_blocks.1.attentions.0.transformer_blocks.0"
        assert torch.equal(base.read(layer), tensors[name])
        assert base.read_bias(layer) is None
        assert base.stored_dtype(layer) == base.dtypes == "F32"
        assert base.file(Component.UNET).path == base.paths[0]


def test_fused_projections_are_read_by_rows(tmp_path: Path) -> None:
    tensors = sample("sd2")
    fused = tensors["cond_stage_model.model.transformer.resblocks.3.attn.in_proj_weight"]
    bias = tensors["cond_stage_model.model.transformer.resblocks.3.attn.in_proj_bias"]
    width = fused.shape[1]
    with open_checkpoint(write(tmp_path / "model.safetensors", tensors)) as base:
        for part, role in enumerate("qkv"):
            layer = base.layer(LayerId(Component.TE1, f"text_model.encoder.layers.3.self_attn.{role}_proj"))
            assert layer.shape == (width, width)
            assert layer.rows == (part * width, (part + 1) * width)
            assert torch.equal(base.read(layer), fused[part * width : (part + 1) * width])
            read = base.read_bias(layer)
            assert read is not None
            assert torch.equal(read, bias[part * width : (part + 1) * width])


@pytest.mark.parametrize("name", ["sd1", "sdxl", "ssd-1b"])
@pytest.mark.parametrize("style", ["with prefix", "without prefix", "diffusers"])
def test_unet_alone(name: str, style: str, tmp_path: Path) -> None:
    tensors = {n: t for n, t in sample(name).items() if n.startswith(UNET)}
    if style == "without prefix":
        tensors = {n.removeprefix(UNET): t for n, t in tensors.items()}
    elif style == "diffusers":
        tensors = {n.removeprefix("unet."): t for n, t in sample(name, "diffusers").items() if n.startswith("unet.")}
    whole = write(tmp_path / "whole.safetensors", sample(name))
    with open_checkpoint(write(tmp_path / "unet.safetensors", tensors)) as unet, open_checkpoint(whole) as base:
        assert (unet.arch.name, unet.layout, unet.components) == (name, "UNet file", (Component.UNET,))
        assert not unet.unused
        assert [note for note in unet.notes if "te1 is not in the file" in note]
        assert_same(unet, base, (Component.UNET,))


@pytest.mark.parametrize("order", ["unet+te1+te2", "unet+te2+te1", "te1+unet+te2"])
def test_separate_files(order: str, tmp_path: Path) -> None:
    parts = {"unet": UNET, "te1": "conditioner.embedders.0.transformer.", "te2": "text_encoder_2."}
    for part, prefix in parts.items():
        tensors = sample("ssd-1b", "diffusers" if part == "te2" else "single_file")
        write(tmp_path / f"{part}.safetensors", {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    spec = "+".join(str(tmp_path / f"{part}.safetensors") for part in order.split("+"))
    whole = write(tmp_path / "whole.safetensors", sample("ssd-1b"))
    with open_checkpoint(spec) as base, open_checkpoint(whole) as single:
        assert base.layout == "separate files"
        assert base.name == order
        assert_same(base, single, (Component.UNET, Component.TE1, Component.TE2))
        assert base.hashes() is None


def test_a_path_with_plus_signs_is_one_path(tmp_path: Path) -> None:
    whole = write(tmp_path / "a + b+c.safetensors", sample("bk-sdm-tiny"))
    with open_checkpoint(str(whole)) as base:
        assert base.paths == (whole,)
    text = {n.removeprefix("cond_stage_model.transformer."): t for n, t in sample("bk-sdm-tiny").items() if n.startswith("cond_")}
    unet = {n.removeprefix(UNET): t for n, t in sample("bk-sdm-tiny").items() if n.startswith(UNET)}
    paths = (write(tmp_path / "u+net.safetensors", unet), write(tmp_path / "te.safetensors", text))
    with open_checkpoint("+".join(map(str, paths))) as base:
        assert base.paths == paths


def bf16_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Two shards with their index, as `save_pretrained(max_shard_size=…, variant="fp16")` names them."""
    names = sorted(tensors)
    places: dict[str, str] = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"diffusion_pytorch_model.fp16-0000{i + 1}-of-00002.safetensors"
        write(folder / file, {name: tensors[name] for name in part})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))


def variant(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    write(folder / "diffusion_pytorch_model.fp16.safetensors", tensors)


def both(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """The full file beside a variant of other weights: the full one counts."""
    write(folder / "diffusion_pytorch_model.safetensors", tensors)
    write(folder / "diffusion_pytorch_model.non_ema.safetensors", {name: t + 1 for name, t in tensors.items()})
    torch.save({name: t + 1 for name, t in tensors.items()}, folder / "diffusion_pytorch_model.bin")


def pickled(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    torch.save(dict(tensors), folder / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize("save", [bf16_shards, variant, both, pickled])
def test_how_folders_store_a_network(save: Callable[[Path, Mapping[str, Tensor]], None], tmp_path: Path) -> None:
    arch = by_name("bk-sdm-small")
    tensors = sample("bk-sdm-small", "diffusers")
    write_diffusers(tmp_path / "plain", arch, tensors, TINY)
    write_diffusers(tmp_path / "other", arch, tensors, TINY)
    (tmp_path / "other/unet/diffusion_pytorch_model.safetensors").unlink()
    save(tmp_path / "other/unet", {n.removeprefix("unet."): t for n, t in tensors.items() if n.startswith("unet.")})
    with open_checkpoint(tmp_path / "plain") as plain, open_checkpoint(tmp_path / "other") as other:
        assert_same(plain, other, arch.components)


def test_a_unet_folder_by_itself(tmp_path: Path) -> None:
    write_diffusers(tmp_path, by_name("vega"), sample("vega", "diffusers"), TINY)
    with open_checkpoint(tmp_path / "unet") as base:
        assert (base.arch.name, base.layout) == ("vega", "UNet folder")


@pytest.mark.parametrize("layout", ["single_file", "diffusers"])
def test_clip_names_without_text_model(layout: str, tmp_path: Path) -> None:
    """Old LDM files leave `text_model.` out, and so does the CLIPTextModel of transformers 5 in folders."""
    short = {name.replace("text_model.", ""): t for name, t in sample("sd1", layout).items()}
    if layout == "single_file":
        path = write(tmp_path / "model.safetensors", short)
    else:
        path = tmp_path / "folder"
        write_diffusers(path, by_name("sd1"), short, TINY)
    with open_checkpoint(path) as base, open_checkpoint(write(tmp_path / "full.safetensors", sample("sd1"))) as full:
        assert not base.unused
        assert_same(base, full, full.components)


def test_a_pickled_single_file(tmp_path: Path) -> None:
    torch.save({"state_dict": sample("sd1"), "global_step": 7}, tmp_path / "model.ckpt")
    whole = write(tmp_path / "model.safetensors", sample("sd1"))
    with open_checkpoint(tmp_path / "model.ckpt") as base, open_checkpoint(whole) as full:
        assert_same(base, full, full.components)


def test_bk_sdm_tiny_as_the_script_of_diffusers_leaves_it(tmp_path: Path) -> None:
    """The script has no name for attentions in ``up_blocks.0`` and leaves them in diffusers' spelling."""
    mapped = sample("bk-sdm-tiny")
    left = {n.replace("output_blocks.0.1.", "up_blocks.0.attentions.0.").replace("output_blocks.1.1.", "up_blocks.0.attentions.1."): t
            for n, t in mapped.items()}  # fmt: skip
    assert left.keys() != mapped.keys()
    whole = write(tmp_path / "mapped.safetensors", mapped)
    with open_checkpoint(write(tmp_path / "left.safetensors", left)) as base, open_checkpoint(whole) as full:
        assert base.arch == full.arch
        assert_same(base, full, full.components)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "F16"), (torch.bfloat16, "BF16"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_stored_dtypes(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    tensors = sample_checkpoint(by_name("bk-sdm-tiny"), widths=TINY, dtype=dtype)
    with open_checkpoint(write(tmp_path / "model.safetensors", tensors)) as base:
        layer = base.layer(Q)
        assert base.stored_dtype(layer) == name
        assert base.read(layer).dtype == torch.float32
        assert torch.equal(base.read(layer), tensors[layer.tensor].float())


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_row", [False, True])
def test_scaled_fp8(suffix: str, per_row: bool, tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {f"{UNET}scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    for name, t in sample("bk-sdm-tiny").items():
        if not (name.startswith(UNET) and name.endswith(".weight") and t.ndim == 2):
            tensors[name] = t
            continue
        scale = (t.abs().amax(dim=1, keepdim=True) if per_row else t.abs().max()) / 448
        tensors[name] = (t / scale).to(torch.float8_e4m3fn)
        tensors[name.removesuffix("weight") + suffix] = scale
        tensors[name.removesuffix("weight") + "scale_input"] = torch.tensor(1.0)
    with open_checkpoint(write(tmp_path / "model.safetensors", tensors)) as base:
        layer = base.layer(Q)
        wanted = sample("bk-sdm-tiny")[layer.tensor]
        assert (base.read(layer) - wanted).norm() < 0.05 * wanted.norm()
        assert base.dtypes.startswith("F32, F8_E4M3") or base.dtypes.startswith("F8_E4M3")
        assert not base.unused


def test_sd2_folder_without_the_last_text_layer(tmp_path: Path) -> None:
    """As every SD2 folder is: 23 of 24 layers."""
    tensors = {n: t for n, t in sample("sd2", "diffusers").items() if ".layers.23." not in n}
    write_diffusers(tmp_path, by_name("sd2"), tensors, TINY)
    with open_checkpoint(tmp_path) as base:
        assert dict(base.arch.text)[Component.TE1].layers == 23
        assert dict(base.arch.text)[Component.TE1].kind == "openclip"
        assert not base.notes


def test_anonymous_memory_stays_small(tmp_path: Path) -> None:
    """Reading layer by layer holds one layer at a time, not the file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("counts pages as Linux does")
    widths = Widths(channels=(64, 128, 256, 256), vocabulary=16)
    path = write(tmp_path / "model.safetensors", sample_checkpoint(by_name("bk-sdm-base"), widths=widths))
    size = path.stat().st_size

    def anonymous() -> int:
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("RssAnon"))

    with open_checkpoint(path) as base:
        largest = 4 * max(torch.Size(layer.shape).numel() for layer in base.layers.values())
        before = peak = anonymous()
        for layer in base.layers.values():
            weight = base.read(layer)
            peak = max(peak, anonymous())
            del weight
    assert size > 60e6
    assert peak - before < 4 * largest + 8e6 < size / 2
