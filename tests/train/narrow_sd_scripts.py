"""Run a script of kohya's sd-scripts on a narrow base model: ``python narrow_sd_scripts.py FOLDER WIDTHS.json SCRIPT ARGS…``.

sd-scripts writes the widths of Stable Diffusion as constants. This sets them to a small model's before the script starts. It changes
one thing more: accelerate 1.6, which sd-scripts asks for, wraps a model of which nothing is trained in several processes on CPUs, which
torch refuses whatever network module is trained; here it leaves such a model as it is, as it does on GPUs. The script
``add-vae IN OUT`` is ours: it puts a random VAE into a base file, which sd-scripts asks for.
Run by the interpreter that has sd-scripts' packages.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

folder, widths_file, script, *rest = sys.argv[1:]
W = json.loads(Path(widths_file).read_text())
sys.path.insert(0, folder)

from accelerate import Accelerator, DistributedType  # noqa: E402
from library import model_util, original_unet, sdxl_model_util, sdxl_original_unet  # noqa: E402

channels = W["channels"]
model_util.UNET_PARAMS_MODEL_CHANNELS = channels[0]
model_util.UNET_PARAMS_CHANNEL_MULT = [c // channels[0] for c in W["channels"]]
model_util.UNET_PARAMS_CONTEXT_DIM = W["text1"]
model_util.UNET_PARAMS_NUM_HEADS = W["heads"]
model_util.VAE_PARAMS_CH = 32
model_util.VAE_PARAMS_CH_MULT = W.get("vae", [1, 1, 1, 1])
model_util.VAE_PARAMS_NUM_RES_BLOCKS = 1
original_unet.BLOCK_OUT_CHANNELS = tuple(channels)
original_unet.TIMESTEP_INPUT_DIM = channels[0]
original_unet.TIME_EMBED_DIM = 4 * channels[0]
sdxl_original_unet.MODEL_CHANNELS = channels[0]
sdxl_original_unet.TIME_EMBED_DIM = 4 * channels[0]
sdxl_original_unet.CONTEXT_DIM = W["text1"] + W["text2"]
sdxl_original_unet.ADM_IN_CHANNELS = 6 * 256 + W["text2"]


class Transformer2DModel(sdxl_original_unet.Transformer2DModel):
    """Its cross-attention as wide as the small model's text."""

    def __init__(self, *args: Any, **said: Any) -> None:
        super().__init__(*args, **{**said, "cross_attention_dim": W["text1"] + W["text2"]})


sdxl_original_unet.Transformer2DModel = Transformer2DModel


def narrow_text(config: Callable[..., Any]) -> Callable[..., Any]:
    """CLIPTextConfig with the small model's width in place of the real one's."""

    def made(**said: Any) -> Any:
        width = W["text1"] if said.get("hidden_size") == 768 else W["text2"]
        narrow = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width, "num_attention_heads": W["heads"]}
        return config(**{**said, **narrow, "vocab_size": W["vocabulary"]})

    return made


def prepare_frozen(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """`Accelerator.prepare_model` that leaves a frozen model as it is on CPUs."""

    def prepared(self: Accelerator, model: Any, *args: Any, **said: Any) -> Any:
        frozen = not any(p.requires_grad for p in model.parameters())
        return model if frozen and self.distributed_type == DistributedType.MULTI_CPU else prepare(self, model, *args, **said)

    return prepared


Accelerator.prepare_model = prepare_frozen(Accelerator.prepare_model)

for module in (model_util, sdxl_model_util):
    module.CLIPTextConfig = narrow_text(module.CLIPTextConfig)

if script == "add-vae":
    import torch
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    vae = AutoencoderKL(**model_util.create_vae_diffusers_config())
    stored = model_util.convert_vae_state_dict(vae.state_dict())
    tensors = load_file(rest[0]) | {f"first_stage_model.{name}": t.contiguous() for name, t in stored.items()}
    save_file(tensors, rest[1])
else:
    sys.argv = [str(Path(folder) / script), *rest]
    runpy.run_path(sys.argv[0], run_name="__main__")
