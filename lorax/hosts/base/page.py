"""What the page of the extension asks of the WebUI: a tab, the queue, the progress bar, the cards."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorax.errors import Cancelled
from lorax.hosts.base import webui

STEPS = 1000
"""A job's share that is done is told to the WebUI in so many steps."""


def add_tab(build: Callable[[], Any]) -> None:
    """A tab of its own; build: makes its ``gr.Blocks`` when the page is made, which API-only mode never does."""
    from modules import script_callbacks

    script_callbacks.on_ui_tabs(lambda: [(build(), "LoRA-X", "lorax")])


def queued(work: Callable[..., Sequence[Any]], empty: Sequence[Any]) -> Callable[..., Any]:
    """`work` as a handler that waits its turn among the pictures and has the WebUI's progress bar.

    work: its first argument is the task's id; the last thing that it gives is HTML. empty: what stands in its place after an error.
    """
    from modules import call_queue

    return call_queue.wrap_gradio_gpu_call(work, extra_outputs=list(empty))


def tell(text: str, share: float) -> None:
    """Show how far a job is (share: 0 to 1), and obey Interrupt."""
    from modules import shared

    state = shared.state
    state.job_count, state.job_no = 1, 0
    state.sampling_steps, state.sampling_step = STEPS, round(share * STEPS)
    state.textinfo = f"LoRA-X: {text}"
    if state.interrupted or state.skipped:
        raise Cancelled("stopped; nothing was half-written")


def stop() -> None:
    """What the WebUI's Interrupt does."""
    from modules import shared

    shared.state.interrupt()


def built_in_folder() -> Path:
    """Where the WebUI keeps its LoRA files."""
    from modules import paths, shared

    return Path(getattr(shared.cmd_opts, "lora_dir", None) or Path(paths.models_path) / "Lora")


def checkpoint_folders() -> tuple[Path, ...]:
    """Where the WebUI looks for checkpoints."""
    from modules import paths, shared

    own = Path(paths.models_path) / "Stable-diffusion"
    more = getattr(shared.cmd_opts, "ckpt_dir", None)
    several = getattr(shared.cmd_opts, "ckpt_dirs", None) or ()
    return tuple(dict.fromkeys(Path(f) for f in (own, more, *several) if f and Path(f).is_dir()))


def list_again() -> None:
    """Make the built-in and its cards look at their folders again."""
    networks = webui.networks()
    if networks is not None:
        networks.list_available_networks()
