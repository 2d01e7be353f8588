"""The LoRA-X file: docs/format.md is its specification, in MUSTs.

A σ file has one tensor per module, ``<kohya module name>.lorax_sigma`` [k]; a self-contained file has ordinary factors under
kohya's names. Both have the same ``lorax.*`` metadata.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from lorax.adapter import Adapter, BaseHint, Fingerprint, Native, Spectral
from lorax.archs import kohya_name, kohya_names
from lorax.errors import MalformedAdapter, UnknownFormat
from lorax.layers import LayerId
from lorax.linalg import all_finite
from lorax.structure import Arch

FORMAT_VERSION = "1"
_KINDS = ("diagonal", "full")


def native_metadata(
    arch: Arch, fingerprints: Mapping[LayerId, Fingerprint], *, k: int, diagonal: bool, self_contained: bool, base: BaseHint
) -> dict[str, str]:
    """What makes a file a LoRA-X file.

    fingerprints: of every module's ΔW as the stored numbers give it on the base. k: rank of the bases (a module of a smaller
    weight has fewer values).
    """
    named = {kohya_name(arch, layer): f for layer, f in fingerprints.items()}
    return named_metadata(named, k=k, diagonal=diagonal, self_contained=self_contained, base=base)


def named_metadata(
    fingerprints: Mapping[str, Fingerprint], *, k: int, diagonal: bool, self_contained: bool, base: BaseHint
) -> dict[str, str]:
    """`native_metadata` with the modules under the names that they have in the file."""
    packed = np.array([f for _, f in sorted(fingerprints.items())], dtype="<f4").tobytes()
    hints = {"name": base.name, "sha256": base.sha256, "autov1": base.autov1, "digest": base.digest}
    return {
        "lorax.format_version": FORMAT_VERSION,
        "lorax.k": str(k),
        "lorax.kind": "diagonal" if diagonal else "full",
        "lorax.self_contained": "true" if self_contained else "false",
        "lorax.fingerprints": base64.b64encode(packed).decode("ascii"),
        **{f"lorax.base_{name}": value for name, value in hints.items() if value},
    }


def sigma_tensors(sigmas: Mapping[LayerId, Tensor], arch: Arch, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The tensors of a σ file: σ of each module, [k], under the module's kohya name."""
    stored = {f"{kohya_name(arch, layer)}.lorax_sigma": s.detach().cpu().to(dtype).contiguous() for layer, s in sigmas.items()}
    for name, sigma in stored.items():
        if sigma.ndim != 1 or not all_finite(sigma):
            raise MalformedAdapter(f"'{name}' is not a vector of finite numbers in {str(dtype).removeprefix('torch.')}.")
    return stored


def read_native(adapter: Adapter, keys: Iterable[str]) -> Native | None:
    """What the metadata of a LoRA-X file says; None for other adapters.

    Raises MalformedAdapter where a MUST of the format is broken, UnknownFormat for a later version of it.
    """
    metadata = adapter.metadata
    has_sigma = any(isinstance(m, Spectral) for m in adapter.modules.values())
    version = metadata.get("lorax.format_version")
    if version is None:
        if has_sigma:
            raise MalformedAdapter(f"'{adapter.name}' holds σ without 'lorax.format_version': nothing can tell which base it belongs to.")
        return None
    if version != FORMAT_VERSION:
        raise UnknownFormat(f"'{adapter.name}' is a LoRA-X file of version '{version}', this program reads {FORMAT_VERSION}: update it.")
    kind, k = metadata.get("lorax.kind", ""), metadata.get("lorax.k", "")
    if kind not in _KINDS or not k.isascii() or not k.isdigit() or int(k) < 1:
        raise MalformedAdapter(f"'{adapter.name}' is damaged: lorax.kind '{kind}' is not of {_KINDS}, or lorax.k '{k}' is no rank.")
    if has_sigma and kind == "full":
        raise MalformedAdapter(f"'{adapter.name}' is damaged: a full ΔΣ comes with its factors, not as σ.")
    return Native(int(k), kind == "diagonal", not has_sigma, _fingerprints(adapter, keys))


def _fingerprints(adapter: Adapter, keys: Iterable[str]) -> dict[LayerId, Fingerprint]:
    modules = sorted({key.partition(".")[0] for key in keys if key.endswith((".lorax_sigma", ".lora_up.weight"))})
    try:
        packed = base64.b64decode(adapter.metadata.get("lorax.fingerprints", ""), validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    if len(packed) != 16 * len(modules):
        raise MalformedAdapter(
            f"'{adapter.name}' is damaged: lorax.fingerprints has {len(packed)} bytes, {len(modules)} modules need {16 * len(modules)}."
        )
    values = np.frombuffer(packed, dtype="<f4").reshape(-1, 4).tolist()
    names = kohya_names(adapter.arch)
    return {names[m]: (v[0], v[1], v[2], v[3]) for m, v in zip(modules, values, strict=True) if m in names}
