"""lycoris-lora rebuilds the same ΔW as we do, for every kind that it trains."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from lorax.adapter import Decomposed
from lorax.formats.leaves import KNOWN, build_module
from lorax.linalg import flatten_weight

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lycoris.modules.boft import ButterflyOFTModule
    from lycoris.modules.diag_oft import DiagOFTModule
    from lycoris.modules.full import FullModule
    from lycoris.modules.glora import GLoRAModule
    from lycoris.modules.ia3 import IA3Module
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule
    from lycoris.modules.norms import NormModule

LAYERS = {
    "linear": lambda: nn.Linear(24, 32),
    "wide": lambda: nn.Linear(48, 16, bias=False),
    "conv3": lambda: nn.Conv2d(12, 16, 3, padding=1),
    "conv1": lambda: nn.Conv2d(12, 16, 1),
}
LOW_RANK = {
    "lora": (LoConModule, {"lora_dim": 4, "alpha": 2.0}),
    "lora rank-stabilised": (LoConModule, {"lora_dim": 4, "alpha": 2.0, "rs_lora": True}),
    "locon tucker": (LoConModule, {"lora_dim": 4, "alpha": 3.0, "use_tucker": True}),
    "loha": (LohaModule, {"lora_dim": 3, "alpha": 2.0}),
    "loha tucker": (LohaModule, {"lora_dim": 3, "alpha": 2.0, "use_tucker": True}),
    "lokr": (LokrModule, {"lora_dim": 1, "alpha": 2.0, "factor": 4}),
    "lokr both": (LokrModule, {"lora_dim": 1, "alpha": 3.0, "decompose_both": True, "factor": 4}),
    "lokr whole": (LokrModule, {"lora_dim": 4, "alpha": 2.0, "full_matrix": True}),
    "lokr tucker": (LokrModule, {"lora_dim": 1, "alpha": 2.0, "use_tucker": True, "factor": 4}),
    "lokr unbalanced": (LokrModule, {"lora_dim": 1, "alpha": 2.0, "factor": 2, "unbalanced_factorization": True}),
}
WITH_BASE = {
    "glora": (GLoRAModule, {"lora_dim": 4, "alpha": 2.0}),
    "ia3": (IA3Module, {}),
    "ia3 on input": (IA3Module, {"train_on_input": True}),
    "oft": (DiagOFTModule, {"lora_dim": 4}),
    "oft constrained": (DiagOFTModule, {"lora_dim": 4, "constraint": 0.01}),
    "oft rescaled": (DiagOFTModule, {"lora_dim": 4, "constraint": 0.5, "rescaled": True}),
    "boft": (ButterflyOFTModule, {"lora_dim": 4}),
    "boft rescaled": (ButterflyOFTModule, {"lora_dim": 4, "constraint": 0.01, "rescaled": True}),
}


def made(kind: type, layer: nn.Module, **kwargs: object) -> tuple[nn.Module, dict[str, Tensor]]:
    """A LyCORIS module with random weights on a layer with random weights, and its state as it is saved."""
    torch.manual_seed(0)
    module = kind("m", layer, **kwargs)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if name in ("rescale", "dora_scale") else 0.0))
    return module, {k: v.detach().clone() for k, v in module.state_dict().items()}


def rebuilt(module: nn.Module, layer: nn.Module) -> Tensor:
    """ΔW as LyCORIS' forward pass applies it: the response of the layer's operation, which is linear in the weight."""
    if isinstance(module, (LohaModule, LokrModule)):  # their get_diff_weight multiplies with alpha / r twice in 4.1.3
        diff = module.get_weight(None).reshape(module.shape)
    elif isinstance(module, LoConModule):
        diff = module.make_weight() * module.scale
    else:
        return module.get_diff_weight(1)[0].detach()
    if getattr(module, "wd", False):
        return (module.apply_weight_decompose(layer.weight + diff) - layer.weight).detach()
    return diff.detach()


def check(module: nn.Module, state: dict[str, Tensor], layer: nn.Module) -> None:
    assert state.keys() <= KNOWN
    ours, _ = build_module(state)
    theirs = flatten_weight(rebuilt(module, layer))
    delta = ours.delta(layer.weight.detach() if ours.needs_base else None)
    assert delta.shape == theirs.shape
    assert ours.fits(layer.weight.shape)
    torch.testing.assert_close(delta, theirs, rtol=1e-4, atol=1e-5)
    if (factors := ours.factors()) is not None:
        torch.testing.assert_close(factors.dense(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", LOW_RANK)
def test_deltas_without_base(kind: str, layer: str) -> None:
    cls, kwargs = LOW_RANK[kind]
    base = LAYERS[layer]()
    module, state = made(cls, base, **kwargs)
    check(module, state, base)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("on_output", [True, False])
@pytest.mark.parametrize("kind", ["lora", "locon tucker", "loha", "lokr"])
def test_dora_on_both_axes(kind: str, on_output: bool, layer: str) -> None:
    cls, kwargs = LOW_RANK[kind]
    base = LAYERS[layer]()
    module, state = made(cls, base, weight_decompose=True, wd_on_out=on_output, **kwargs)
    ours, _ = build_module(state)
    assert isinstance(ours, Decomposed)
    assert ours.on_output == on_output
    check(module, state, base)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", WITH_BASE)
def test_deltas_on_their_base(kind: str, layer: str) -> None:
    cls, kwargs = WITH_BASE[kind]
    base = LAYERS[layer]()
    module, state = made(cls, base, **kwargs)
    check(module, state, base)


@pytest.mark.parametrize("layer", LAYERS)
def test_forward_pass_agrees(layer: str) -> None:
    """The oracle's own oracle: LoHa's and LoKr's scale is applied once in the forward pass."""
    base = LAYERS[layer]()
    x = torch.randn(2, 48 if layer == "wide" else 24) if layer in ("linear", "wide") else torch.randn(2, 12, 5, 5)
    for cls, kwargs in (LOW_RANK["loha"], LOW_RANK["lokr"]):
        module, state = made(cls, base, **kwargs)
        plain = base(x)
        delta = build_module(state)[0].delta().reshape(base.weight.shape)
        op = nn.functional.linear if delta.ndim == 2 else nn.functional.conv2d
        with torch.no_grad():
            theirs = module(x) - plain
        pad = {} if delta.ndim == 2 else {"padding": base.padding}
        torch.testing.assert_close(theirs, op(x, delta, **pad), rtol=1e-3, atol=1e-4)


def test_full_differences_and_norms() -> None:
    base = nn.Linear(8, 6)
    _, state = made(FullModule, base)
    ours, offset = build_module({k: v.detach() for k, v in state.items()})
    torch.testing.assert_close(ours.delta(), state["diff"])
    torch.testing.assert_close(offset.bias, state["diff_b"])
    norm, saved = made(NormModule, nn.LayerNorm(6))
    ours, offset = build_module({k: v for k, v in saved.items() if k in KNOWN})
    assert ours is None
    torch.testing.assert_close(offset.weight, norm.w_norm.detach())
    torch.testing.assert_close(offset.bias, norm.b_norm.detach())
