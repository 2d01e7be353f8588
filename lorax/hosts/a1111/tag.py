"""``<lorax:…>`` in prompts: what the WebUI's extra networks call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lorax.errors import LoraxError
from lorax.hosts.a1111 import models
from lorax.hosts.a1111.follower import Follower
from lorax.hosts.base import Wish, parse_wish, webui
from lorax.hosts.base.infotext import PROBLEMS
from lorax.hosts.base.pictures import strengthened, write_infotext


class LoraxTag:
    """An extra network of the WebUI, by the methods that it calls."""

    name = "lorax"

    def __init__(self, follower: Follower, take_place: Callable[[], bool]) -> None:
        """take_place: makes sure that the wrappers are in place."""
        self._follower = follower
        self._take_place = take_place

    def activate(self, p: Any, params_list: Sequence[Any]) -> None:
        """For every picture and hires pass, with no parameters where the prompt has no tag."""
        self._take_place()
        if not params_list and models.is_empty_prompt(p):
            self._follower.suspend()
            return
        follower = self._follower
        wishes: list[Wish] = []
        for params in params_list:
            try:
                wishes.append(strengthened(parse_wish([str(i) for i in params.items]), p))
            except LoraxError as error:
                follower.problems.append(str(error))
        follower.begin(wishes, tuple(tuple(str(i) for i in params.items) for params in params_list))
        if models.fp8_keeps_last_only() and follower.applied:
            follower.notes.append("with fp8 and 'Cache FP16 weight for LoRA' the WebUI applies only the last network that touches a layer")
        self._tell(p)
        if follower.applied:
            write_infotext(p, follower.applied)

    def deactivate(self, p: Any) -> None:
        """The picture is done; what went wrong since (at the refiner) is said now."""
        self._tell(p)
        self._follower.end()

    def _tell(self, p: Any) -> None:
        follower = self._follower
        for line in (*follower.problems, *follower.notes):
            webui.report(line)
            p.comment(f"LoRA-X: {line}")
        if follower.problems:
            before = p.extra_generation_params.get(PROBLEMS)
            p.extra_generation_params[PROBLEMS] = "; ".join([*([before] if before else []), *follower.problems])
        follower.problems, follower.notes = [], []
