"""What a run needs to go on where it stopped: written whole or not at all, and only taken up on the same base."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lorax.errors import FileError, LoraxError, MalformedFile
from lorax.safefile import write_text
from lorax.train.network import Network

_ADAPTER, _OPTIMIZER, _SAID = "adapter.safetensors", "optimizer.pt", "state.json"


def save_state(
    folder: Path, network: Network, optimizer: Any, step: int, bound: Mapping[str, str], losses: list[float], scaler: Any = None
) -> None:
    """Adapter (with its fingerprints), σ in fp32, optimizer and step. The step file comes last, so a broken write is seen.

    scaler: of gradients, where there is one (fp16).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder / _ADAPTER, dtype=torch.float32, overwrite=True)
        new = folder / f"{_OPTIMIZER}.new"
        held = {"sigma": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(held | ({} if scaler is None else {"scaler": scaler.state_dict()}), new)
        new.replace(folder / _OPTIMIZER)
        write_text(folder / _SAID, json.dumps({"step": step, "settings": dict(bound), "losses": losses}), overwrite=True)
    except OSError as error:
        raise FileError(f"the state cannot be saved in '{folder}': {error.strerror or error}.") from error


def load_state(folder: Path, network: Network, optimizer: Any, bound: Mapping[str, str], scaler: Any = None) -> tuple[int, list[float]]:
    """(step, losses) of a saved run, whose values are then in `network`, `optimizer` and `scaler`.

    LoraxError where there is none, where its settings were others, BaseMismatch where its base was another.
    """
    if not (folder / _SAID).is_file():
        raise LoraxError(f"there is nothing to resume: '{folder}' has no {_SAID}; start without --resume.")
    try:
        said = json.loads((folder / _SAID).read_text(encoding="utf-8"))
        before, step, losses = dict(said["settings"]), int(said["step"]), [float(x) for x in said["losses"]]
    except (ValueError, KeyError, TypeError, OSError):
        raise MalformedFile(f"'{folder / _SAID}' is damaged: start without --resume.") from None
    changed = [name for name, value in bound.items() if before.get(name) != value]
    if changed:
        name, option = changed[0], "--rank" if changed[0] == "k" else f"--{changed[0].replace('_', '-')}"
        raise LoraxError(
            f"the run to resume had {option} {before.get(name)}, this one has {bound[name]}: give the same, or start without --resume."
        )
    network.load(folder / _ADAPTER)
    try:
        stored = torch.load(folder / _OPTIMIZER, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        raise MalformedFile(f"'{folder / _OPTIMIZER}' is damaged: start without --resume.") from None
    network.load_state_dict(stored["sigma"])
    optimizer.load_state_dict(stored["optimizer"])
    if scaler is not None and "scaler" in stored:
        scaler.load_state_dict(stored["scaler"])
    if stored["step"] != step:
        raise MalformedFile(f"'{folder}' is of two different moments (steps {step} and {stored['step']}): start without --resume.")
    return step, losses
