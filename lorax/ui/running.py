"""How long work is started, shown and stopped: by the queue and the progress bar of a WebUI, or by our own."""

# pyright: reportMissingImports=false

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gradio as gr

from lorax.errors import Cancelled
from lorax.hosts.base import page
from lorax.render.views import error_view, progress_view, told_view
from lorax.ui.compat import at_once, nothing, quick, script
from lorax.ui.jobs import Estimate, Job, line_of

Work = Callable[..., Iterator[Sequence[Any]]]
"""``work(progress, *values of the inputs)`` yields values of the outputs, the last of them the result."""

POLL = 0.25
"""Seconds between two looks at a job."""


@dataclass(frozen=True)
class Controls:
    """What starts and stops one kind of work, and shows how it goes."""

    start: gr.Button
    cancel: gr.Button
    bar: gr.HTML
    message: gr.HTML


def controls(name: str, label: str) -> Controls:
    """A row with both buttons, and what lies under it. name: part of the elements' ids."""
    with gr.Row():
        start = gr.Button(label, variant="primary", elem_id=f"lorax_{name}_start")
        cancel = gr.Button("Cancel", elem_id=f"lorax_{name}_cancel")
    with gr.Row(elem_classes="lorax-bar"):
        bar = gr.HTML(elem_id=f"lorax_{name}_bar")
    message = gr.HTML(elem_id=f"lorax_{name}_message")
    return Controls(start, cancel, bar, message)


@dataclass(frozen=True)
class Part:
    """A panel that was added to a page."""

    lists: Sequence[tuple[Any, Callable[[], list[str]]]]
    """Its lists of files, and what fills them."""
    written: Sequence[Any] = ()
    """The events after which there may be new files."""


class Runner(Protocol):
    after: str
    """JavaScript for when there are new files, or empty."""

    def connect(self, shown: Controls, work: Work, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Let the buttons start and stop `work`. Gives the event, for what comes after it."""
        ...


class OwnRunner:
    """For a page of our own: one job at a time, in a thread, looked at by a handler that streams."""

    after = ""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._lock = threading.Lock()

    def connect(self, shown: Controls, work: Work, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        def handler(*values: Any) -> Iterator[Any]:
            unchanged = [nothing()] * len(outputs)
            with self._lock:
                busy = self._job is not None and self._job.running
                job = None if busy else Job(lambda progress: work(progress, *values))
                self._job = job or self._job
            if job is None:
                yield (*unchanged, "", error_view("another job is running: wait for it, or cancel it"))
                return
            seen: Any = None
            while job.running:
                new, seen = job.latest is not seen, job.latest
                estimate = job.estimate
                yield (*(seen if new else unchanged), progress_view(estimate.text, estimate.share, estimate.seconds_left), "")
                job.wait(POLL)
            yield (*(job.latest or unchanged), "", ending(job.stopped, job.error))

        quick(shown.cancel.click, self.stop, [], [])
        return shown.start.click(handler, list(inputs), [*outputs, shown.bar, shown.message], show_progress="hidden")

    def stop(self) -> None:
        if self._job is not None:
            self._job.stop()


class HostRunner:
    """In a WebUI: waits its turn among the pictures, and has their progress bar, remaining time and Interrupt."""

    after = "() => gradioApp().querySelectorAll('[id*=lora][id$=_extra_refresh_internal]').forEach(button => button.click())"

    def connect(self, shown: Controls, work: Work, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        def handler(_task: str, *values: Any) -> Sequence[Any]:
            estimate = Estimate()

            def progress(text: str, done: int, total: int) -> None:
                estimate(text, done, total)
                page.tell(estimate.text, estimate.share)

            latest: Sequence[Any] = [nothing()] * len(outputs)
            message = ""
            try:
                for found in work(progress, *values):
                    latest = found
            except Cancelled:
                message = ending(True, None)
            except Exception as error:
                message = ending(False, line_of(error))
            return [*latest, message]

        task = gr.Textbox(visible=False)
        queued = page.queued(handler, [nothing()] * len(outputs))
        quick(shown.start.click, lambda: "", [], [shown.message])
        quick(shown.cancel.click, page.stop, [], [])
        code = script(submit(str(shown.bar.elem_id)))
        return shown.start.click(queued, [task, *inputs], [*outputs, shown.message], show_progress="hidden", **code)


def submit(bar: str) -> str:
    """JavaScript that gives the task an id and asks the WebUI to show its progress above `bar`."""
    return (
        "(...values) => { const id = randomId(); const bar = gradioApp().getElementById('" + bar + "');"
        " if (bar) requestProgress(id, bar, null, () => {}); values[0] = id; return values; }"
    )


def ending(stopped: bool, error: str | None) -> str:
    """What stands under the buttons when the work is over."""
    if stopped:
        return told_view("Stopped. Nothing was half-written.")
    return error_view(error) if error else ""


class Previews:
    """Handlers that show what would be done, as soon as it is chosen; a newer choice stops the look at an older one."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def connect(self, components: Sequence[Any], work: Work, inputs: Sequence[Any], output: Any, enders: Sequence[gr.Button]) -> None:
        """Call `work` whenever one of `components` changes; it yields what `output` shows, until one of `enders` is pressed."""
        client = gr.Textbox(value=new_client, visible=False)

        def stop(key: str) -> None:
            if job := self._jobs.pop(key, None):
                job.stop()

        def handler(key: str, *values: Any) -> Iterator[Any]:
            stop(key)
            job = self._jobs[key] = Job(lambda progress: work(progress, *values))
            while job.running and not job.stopped:
                estimate = job.estimate
                yield (job.latest or "") + progress_view(f"preview: {estimate.text}", estimate.share, None)
                job.wait(POLL)
            if job.stopped:
                yield nothing()
                return
            self._jobs.pop(key, None)
            yield error_view(job.error) if job.error else job.latest

        for button in enders:
            quick(button.click, stop, [client], [])
        for component in components:
            quick(component.change, stop, [client], [])
            at_once(component.change, handler, [client, *inputs], [output])


def new_client() -> str:
    """A name for one open page."""
    return uuid.uuid4().hex
