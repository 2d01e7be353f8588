"""Quantised bases in real hosts: a GGUF file, and fp8 by the command line where there is no setting for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from converter.__main__ import main
from tests.hosts import real_forge
from tests.hosts.adapters import Adapters, write_random, write_sigma
from tests.hosts.bench import Refused


def boot(kind: str, *flags: str) -> real_forge.RealForge:
    if reason := real_forge.why_not(kind):
        pytest.skip(reason)
    return real_forge.RealForge(kind, flags=flags)


@pytest.mark.parametrize("kind", ["REFORGE", "CLASSIC"])
def test_fp8_by_the_command_line(kind: str) -> None:
    bench = boot(kind, "--unet-in-fp8-e4m3fn")
    try:
        adapters = Adapters(bench)
        write_random(adapters.lora / "plain.safetensors", adapters.checkpoint("a"), seed=3)
        for checkpoint in ("a", "b"):
            adapters.export("plain", "a", checkpoint)
            bench.switch(checkpoint)
            without = bench.picture("a cat").pixels
            exported = bench.picture(f"a cat <lora:plain-for-{checkpoint}:1>").pixels
            assert bench.picture("a cat <lorax:plain:1>").pixels == exported != without
            assert bench.picture("a cat").pixels == without
    finally:
        bench.close()


@pytest.mark.parametrize("kind", ["FORGE", "NEO"])
def test_gguf(kind: str) -> None:
    """Bases are computed from the GGUF file, with the text encoder from its own."""
    bench = boot(kind)
    try:
        if "split" not in bench.checkpoints:
            pytest.skip("LORAX_FORGE_MODELS has no checkpoint 'deep'")
        target = write_gguf(bench.models / "Stable-diffusion" / "quantised.gguf", bench.models / "Stable-diffusion" / "split.safetensors")
        bench.post("/sdapi/v1/refresh-checkpoints")
        bench.set(forge_additional_modules=["clip.safetensors", "vae.safetensors"], sd_model_checkpoint="quantised.gguf")
        try:
            without = bench.picture("a cat").pixels
        except Refused as error:
            pytest.skip(f"the host itself does not load it: {error}")
        lora, deep = Adapters(bench).lora, bench.models / "Stable-diffusion" / "deep.safetensors"
        write_random(lora / "deeper.safetensors", deep, seed=7)
        write_sigma(lora / "native.safetensors", lora / "deeper.safetensors", deep)
        base = f"{target}+{bench.models / 'text_encoder' / 'clip.safetensors'}"
        for name in ("deeper", "native"):
            output = lora / f"{name}-exported.safetensors"
            files = [str(lora / f"{name}.safetensors"), "--source", str(deep), "--target", base, "--output", str(output)]
            assert main(["transfer", *files, "--dtype", "fp32"]) == 0
            exported = bench.picture(f"a cat <lora:{name}-exported:1>").pixels
            assert bench.picture(f"a cat <lorax:{name}:1>").pixels == exported != without
            assert bench.picture("a cat").pixels == without
        assert "Traceback" not in bench.log().partition("Startup time")[2]
    finally:
        bench.close()


def write_gguf(path: Path, checkpoint: Path) -> Path:
    """The UNet of a checkpoint, its linear weights as Q8_0."""
    gguf: Any = pytest.importorskip("gguf")
    writer, prefix = gguf.GGUFWriter(path, "sd1"), "model.diffusion_model."
    for name, tensor in load_file(checkpoint).items():
        if not name.startswith(prefix):
            continue
        values = tensor.float().numpy()
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name.removeprefix(prefix), gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name.removeprefix(prefix), tensor.half().numpy())
    for write_part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write_part()
    return path
