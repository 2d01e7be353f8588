"""LoRA-X: carry any LoRA to another Stable Diffusion checkpoint by weights alone, without training and without data.

The river: ``read_adapter``, ``open_checkpoint`` → ``plan_transfer`` → ``run_plan`` → ``write_adapter`` and ``to_html``.
"""

from __future__ import annotations

from lorax.actions import (
    DTYPES,
    Written,
    base_stem,
    cached_bases,
    carry_out,
    check_folder,
    check_names,
    check_output,
    default_output,
    find_source,
    inspect_file,
    same_file,
)
from lorax.actions import Row as BatchRow
from lorax.actions import Task as BatchTask
from lorax.actions import failed as failed_row
from lorax.actions import work as batch_work
from lorax.adapter import Adapter, AdapterModule, BaseHint, Native, Offset, Spectral
from lorax.archs import ARCHS
from lorax.bake import BakeReport
from lorax.bake import bake as bake_checkpoint
from lorax.bases import Bases
from lorax.cache import Cache, default_folder
from lorax.cachefolder import clear as clear_cache
from lorax.cachefolder import sizes as cache_sizes
from lorax.cachefolder import verify as verify_cache
from lorax.catalog import Catalog
from lorax.checkpoint import BaseHashes, Checkpoint, open_checkpoint
from lorax.device import resolve_device
from lorax.digest import autov1_hash, sha256_file
from lorax.errors import (
    BaseMismatch,
    Cancelled,
    FileError,
    LoraxError,
    MalformedAdapter,
    MalformedCheckpoint,
    MalformedFile,
    MissingPackage,
    NotTransferable,
    SourceNeeded,
    UnknownFormat,
    UnsafeFile,
    WouldOverwrite,
    one_line,
)
from lorax.export import Reformed, export_adapter, to_lorax, to_sigma
from lorax.formats import (
    copy_sidecars,
    fingerprint,
    output_metadata,
    read_adapter,
    write_adapter,
    write_native,
    write_self_contained,
)
from lorax.layers import Component, Layer, LayerId, LayerKind, LayerSpec, Stored, Unit
from lorax.linalg import Factors, flatten_weight
from lorax.render import (
    adapter_to_json,
    bake_to_json,
    bake_to_text,
    checkpoint_to_json,
    index_to_html,
    inspection_to_text,
    plan_to_json,
    plan_to_text,
    reformed_to_json,
    reformed_to_text,
    share_to_text,
    similarity_to_html,
    similarity_to_json,
    similarity_to_markdown,
    similarity_to_text,
    to_html,
    to_json,
    to_markdown,
    to_svg,
    to_text,
)
from lorax.safefile import open_tensors, write_safetensors, write_text
from lorax.spectral import compute_basis
from lorax.structure import Arch, TextStructure, UNetStructure, diffusers_blocks
from lorax.transfer.compare import SimilarityReport, compute_similarity
from lorax.transfer.plan import plan_transfer
from lorax.transfer.relate import Relation, relate
from lorax.transfer.run import Transferred, run_plan
from lorax.transfer.types import Progress, TransferPlan, TransferReport, TransferSettings
from lorax.version import VERSION

__all__ = [
    "ARCHS",
    "DTYPES",
    "VERSION",
    "Adapter",
    "AdapterModule",
    "Arch",
    "BakeReport",
    "BaseHashes",
    "BaseHint",
    "BaseMismatch",
    "Bases",
    "BatchRow",
    "BatchTask",
    "Cache",
    "Cancelled",
    "Catalog",
    "Checkpoint",
    "Component",
    "Factors",
    "FileError",
    "Layer",
    "LayerId",
    "LayerKind",
    "LayerSpec",
    "LoraxError",
    "MalformedAdapter",
    "MalformedCheckpoint",
    "MalformedFile",
    "MissingPackage",
    "Native",
    "NotTransferable",
    "Offset",
    "Progress",
    "Reformed",
    "Relation",
    "SimilarityReport",
    "SourceNeeded",
    "Spectral",
    "Stored",
    "TextStructure",
    "TransferPlan",
    "TransferReport",
    "TransferSettings",
    "Transferred",
    "UNetStructure",
    "Unit",
    "UnknownFormat",
    "UnsafeFile",
    "WouldOverwrite",
    "Written",
    "adapter_to_json",
    "autov1_hash",
    "bake_checkpoint",
    "bake_to_json",
    "bake_to_text",
    "base_stem",
    "batch_work",
    "cache_sizes",
    "cached_bases",
    "carry_out",
    "check_folder",
    "check_names",
    "check_output",
    "checkpoint_to_json",
    "clear_cache",
    "compute_basis",
    "compute_similarity",
    "copy_sidecars",
    "default_folder",
    "default_output",
    "diffusers_blocks",
    "export_adapter",
    "failed_row",
    "find_source",
    "fingerprint",
    "flatten_weight",
    "index_to_html",
    "inspect_file",
    "inspection_to_text",
    "one_line",
    "open_checkpoint",
    "open_tensors",
    "output_metadata",
    "plan_to_json",
    "plan_to_text",
    "plan_transfer",
    "read_adapter",
    "reformed_to_json",
    "reformed_to_text",
    "relate",
    "resolve_device",
    "run_plan",
    "same_file",
    "sha256_file",
    "share_to_text",
    "similarity_to_html",
    "similarity_to_json",
    "similarity_to_markdown",
    "similarity_to_text",
    "to_html",
    "to_json",
    "to_lorax",
    "to_markdown",
    "to_sigma",
    "to_svg",
    "to_text",
    "verify_cache",
    "write_adapter",
    "write_native",
    "write_safetensors",
    "write_self_contained",
    "write_text",
]
