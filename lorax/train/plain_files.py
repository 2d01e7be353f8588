"""LoRA-X files of models that are of no known architecture: the same tensors and metadata, under names of our own.

The names are ``lorax_`` and the module's path with underscores. Other programs have no use for such a file; `Network.load` has.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorax.adapter import BaseHint, Fingerprint
from lorax.errors import MalformedAdapter, UnknownFormat
from lorax.formats.native import FORMAT_VERSION, named_metadata
from lorax.linalg import Factors
from lorax.safefile import TensorFile, open_tensors, write_safetensors
from lorax.train.module import SpectralLayer


def write(
    path: Path,
    modules: Mapping[str, SpectralLayer],
    k: int,
    full: bool,
    base: BaseHint,
    metadata: Mapping[str, str],
    dtype: torch.dtype,
    overwrite: bool,
) -> None:
    """σ of every module, or its ΔΣ [k, k] in factors where it is full."""
    tensors: dict[str, Tensor] = {}
    prints: dict[str, Fingerprint] = {}
    for name, module in modules.items():
        sigma = module.stored_sigma(dtype)
        prints[name] = module.fingerprint(sigma)
        if full:
            basis = module.basis()
            tensors[f"{name}.lora_up.weight"] = (basis.U @ sigma.float()).contiguous()
            tensors[f"{name}.lora_down.weight"] = basis.V.T.contiguous()
        else:
            tensors[f"{name}.lorax_sigma"] = sigma
    ours = named_metadata(prints, k=k, diagonal=not full, self_contained=full, base=base)
    write_safetensors(path, tensors, {**metadata, **ours}, overwrite=overwrite)


def read(path: Path) -> tuple[dict[str, Tensor | Factors], dict[str, Fingerprint], int, bool, BaseHint]:
    """(values, fingerprints, k, diagonal, base) of a file that `write` made."""
    with open_tensors(path) as file:
        said = file.metadata
        if said.get("lorax.format_version") != FORMAT_VERSION:
            raise UnknownFormat(f"'{path.name}' is not a LoRA-X file of version {FORMAT_VERSION}.")
        names = sorted({key.partition(".")[0] for key in file.tensors})
        values = {name: _value(file, name) for name in names}
    try:
        packed = np.frombuffer(base64.b64decode(said.get("lorax.fingerprints", ""), validate=True), dtype="<f4").reshape(-1, 4).tolist()
        k = int(said.get("lorax.k", ""))
    except (binascii.Error, ValueError):
        packed, k = [], 0
    if len(packed) != len(names) or k < 1:
        raise MalformedAdapter(f"'{path.name}' is damaged: it has {len(names)} modules and {len(packed)} fingerprints, k = {k}.")
    prints: dict[str, Fingerprint] = {name: (f[0], f[1], f[2], f[3]) for name, f in zip(names, packed, strict=True)}
    base = BaseHint(*(said.get(f"lorax.base_{hint}") for hint in ("name", "sha256", "autov1", "digest")))
    return values, prints, k, said.get("lorax.kind") == "diagonal", base


def _value(file: TensorFile, name: str) -> Tensor | Factors:
    if f"{name}.lorax_sigma" in file.tensors:
        return file.read(f"{name}.lorax_sigma").float()
    return Factors(file.read(f"{name}.lora_up.weight").float(), file.read(f"{name}.lora_down.weight").float())
