"""What a picture asked for, and its place on the model that the picture is made with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from lorax.errors import Cancelled, LoraxError, one_line
from lorax.hosts.base import Carried, KnownBase, RetargetOptions, Service, Wish, parse_wish, webui
from lorax.hosts.base.infotext import PROBLEMS
from lorax.hosts.base.pictures import strengthened, write_infotext
from lorax.hosts.forge import encoders
from lorax.hosts.forge.models import active_model, base_of, chosen_base, picture_begins
from lorax.hosts.forge.native import NativeFiles
from lorax.hosts.forge.placing import Part, Placer
from lorax.transfer.types import Progress

SCRIPT = "lorax_extension"
LEFT_OUT = (
    f"it is an inner pass without the script '{SCRIPT}': add that name to the scripts which the other extension lets through "
    "(ADetailer: Settings, 'Script names to apply to ADetailer')"
)


class Follower:
    """The tag says what is wanted; the script's hook, which runs when the built-in is done, puts it on the model."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.applied: dict[str, Carried] = {}
        self.wishes: tuple[Wish, ...] = ()
        self.native = NativeFiles(self._carry_file)
        self._in_use: tuple[Wish, ...] = ()
        self._picture: Any = None
        self._asked: Hashable = ()
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._said: set[str] = set()
        self._placer = Placer()
        self._content: OrderedDict[Hashable, tuple[str, ...]] = OrderedDict()

    def begin(self, p: Any) -> None:
        """A picture starts, on a model that is loaded by now."""
        self._problems, self._notes, self._said = [], [], set()
        self._picture = p
        picture_begins()
        self._placer.withdraw()
        self.native.check(active_model())
        self._without_networks(p)

    def ask(self, p: Any, params_list: Sequence[Any]) -> None:
        """A picture, its hires pass or its refiner wants these and no others."""
        self._picture = p
        self._placer.withdraw()
        self.applied, wishes = {}, list[Wish]()
        for params in params_list:
            try:
                wishes.append(strengthened(parse_wish([str(i) for i in params.items]), p))
            except LoraxError as error:
                self._problems.append(str(error))
        self.wishes = tuple(wishes)
        self._asked = tuple(tuple(str(i) for i in params.items) for params in params_list)
        if not any(getattr(s, "is_lorax", False) for s in getattr(p.scripts, "alwayson_scripts", ())):
            for wish in wishes:
                self._problem(wish.name, LEFT_OUT)
            self._remember(p, ("lorax", self._asked), ())
            self._tell(p)

    def apply(self, p: Any) -> None:
        """The built-in is done: put ours on what it left."""
        self._in_use = self.wishes
        networks, model = webui.networks(), active_model()
        parts: list[Part] = []
        for wish in self.wishes:
            if not wish.silent and (carried := self._carry(networks, model, wish)) is not None:
                self.applied[wish.name] = carried
                parts.append(Part(carried, wish.unet, wish.te))
        placed = parts if networks is not None and model is not None and self._place(networks, model, parts) else []
        if not placed:
            self.applied = {}
        self._notes.extend(self._on_encoders(model, placed))
        self._remember(p, ("lorax", self._asked), tuple(f"{part.carried.digest}*{part.te}" for part in placed))
        for path, digest in self.native.content(model):
            self._remember(p, ("lora", path), (digest,))
        self._tell(p)
        if self.applied:
            write_infotext(p, self.applied)

    def end(self, p: Any) -> None:
        """The picture is done: the model is as the built-in left it."""
        self._tell(p)
        self._placer.withdraw()
        self._without_networks(p)
        self._picture = None

    def stop(self) -> None:
        self.wishes, self._in_use, self.applied = (), (), {}
        self._placer.forget()
        self.native.forget()

    def warm(self) -> None:
        """Another checkpoint was chosen: prepare what was in use, in the background."""
        base = chosen_base()
        if base is not None and self._in_use and webui.option("lorax_warm") is not False:
            self.service.warm(self._in_use, base, webui.options())

    def _carry(self, networks: Any | None, model: Any | None, wish: Wish) -> Carried | None:
        base = base_of(model, self._picture)
        if networks is None or base is None:
            self._problem(wish.name, webui.NO_BUILT_IN if networks is None else "no checkpoint is loaded")
            return None
        return self._guarded(wish.name, lambda: self.service.carry(wish, base, webui.options(), webui.progress))

    def _carry_file(self, carry: Callable[[Service, KnownBase, RetargetOptions, Progress], Carried], name: str) -> Carried | None:
        """For a LoRA-X file that the built-in meets."""
        base = base_of(active_model(), self._picture)
        return None if base is None else self._guarded(name, lambda: carry(self.service, base, webui.options(), webui.progress))

    def _place(self, networks: Any, model: Any, parts: Sequence[Part]) -> bool:
        try:
            refused = self._placer.place(networks, model, parts, int(webui.option("lorax_keep") or 4))
        except LoraxError as error:
            self._problems.append(str(error))
            return False
        except Exception as error:  # the picture is made without it, whatever it was
            webui.report_exception("the adapters could not be applied")
            self._problems.append(f"the adapters are not applied: {type(error).__name__}: {error}")
            return False
        self._problems.extend(refused)
        return True

    @staticmethod
    def _on_encoders(model: Any | None, placed: Sequence[Part]) -> Sequence[str]:
        if model is None or not any(part.te for part in placed):
            return ()
        line = encoders.replaced(model, Path(model.sd_checkpoint_info.filename))
        return (line,) if line else ()

    def _guarded(self, name: str, carry: Callable[[], Carried]) -> Carried | None:
        """What `carry` gives, or None with a problem said."""
        try:
            carried = carry()
        except (LoraxError, Cancelled) as error:
            self._problem(name, str(error))
            return None
        except Exception as error:  # the picture is made without it, whatever it was
            webui.report_exception(f"'{name}' could not be applied")
            self._problem(name, f"{type(error).__name__}: {error}")
            return None
        finally:
            webui.progress_over()
        if carried.note:
            self._notes.append(carried.note)
        return carried

    def _problem(self, name: str, what: str) -> None:
        self._problems.append(one_line(f"'{name}' is not applied: {what}"))

    def _tell(self, p: Any) -> None:
        """Each line once for a picture: in the console, with the picture, and problems in its infotext."""
        problems = [line for line in dict.fromkeys(self._problems) if line not in self._said]
        for line in dict.fromkeys((*problems, *self._notes)):
            if line not in self._said:
                self._said.add(line)
                webui.report(line)
                p.comment(f"LoRA-X: {line}")
        if problems:
            before = p.extra_generation_params.get(PROBLEMS)
            p.extra_generation_params[PROBLEMS] = "; ".join([*([before] if before else []), *problems])
        self._problems, self._notes = [], []

    def _remember(self, p: Any, asked: Hashable, content: tuple[str, ...]) -> None:
        """Forget text encodings where the same tags on the same checkpoint mean something else than before."""
        base = base_of(active_model(), p)
        key = asked, "" if base is None else str(base.path)
        if self._content.get(key, content) != content:
            webui.forget_conds(p)
        self._content[key] = content
        self._content.move_to_end(key)
        while len(self._content) > 64:
            self._content.popitem(last=False)

    def _without_networks(self, p: Any) -> None:
        """Such a picture calls no hook, but its encodings are kept under the same tags as one's with networks."""
        if getattr(p, "disable_extra_networks", False) and "<lorax:" in str((p.prompt, getattr(p, "hr_prompt", ""))):
            webui.forget_conds(p)
