"""Networks that a library filled with other weights than the file's are found out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converter.demo_trained import TRAINED
from lorax.checkpoint import open_checkpoint
from lorax.errors import LoraxError

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[train]")

from lorax.train.parts import _check_complete, check_loaded, load_parts


@pytest.mark.parametrize(
    ("network", "component", "dtype"),
    [("text_encoder", "te1", torch.float32), ("unet", "unet", torch.float32), ("unet", "unet", torch.float16)],
)
def test_weights_of_another_file_are_refused(network: str, component: str, dtype: torch.dtype) -> None:
    with open_checkpoint(TRAINED / "source") as checkpoint:
        pipe = load_parts(checkpoint, None, dtype).pipe
        check_loaded(checkpoint, pipe, dtype)
        for parameter in getattr(pipe, network).parameters():
            parameter.data = torch.randn_like(parameter)
        with pytest.raises(LoraxError, match=f"did not load the {component} of 'source'"):
            check_loaded(checkpoint, pipe, dtype)


def test_weights_that_the_configuration_has_and_the_file_has_not_are_named() -> None:
    """diffusers leaves them on the meta device."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    with pytest.raises(LoraxError, match=r"'a\.safetensors' has no '1\.weight' for the Sequential .* \(2 weights are missing\).*--config"):
        _check_complete(Path("a.safetensors"), network)
    _check_complete(Path("a.safetensors"), network[0])
