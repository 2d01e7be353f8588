"""Keeps the networks in the host's list those that were made for the active checkpoint."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from lorax.errors import Cancelled, LoraxError, one_line
from lorax.hosts.a1111 import models
from lorax.hosts.a1111.hook import is_native
from lorax.hosts.a1111.placing import Maker, StandIn, remove
from lorax.hosts.base import Carried, KnownBase, Service, Wish, webui
from lorax.transfer.types import Progress


class Follower:
    """What was asked for last, and what stands for it on the active model.

    Between `activate` and `deactivate` a picture is being made: a switch then (hires checkpoint, refiner, next batch) is
    followed at once. Otherwise the networks are taken out, and the next picture brings its own.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.problems: list[str] = []
        """One line each, since the picture began; those that concern it are shown with it."""
        self.notes: list[str] = []
        """What the user should see although it worked."""
        self.applied: dict[str, Carried] = {}
        self.names: set[str] = set()
        """Every network name that was ever given to the host."""
        self._wishes: tuple[Wish, ...] = ()
        self._stand_ins: list[StandIn] = []
        self._ours: list[Any] = []
        self._live = False
        self._suspended = False
        self._lost = False
        self._maker = Maker()
        self._content: OrderedDict[Hashable, tuple[str, ...]] = OrderedDict()

    @property
    def wishes(self) -> Sequence[Wish]:
        return self._wishes

    def suspend(self) -> None:
        """A checkpoint is being loaded and asks for the encoding of no prompt."""
        self._suspended = self._lost = True
        self._withdraw()

    def begin(self, wishes: Sequence[Wish], asked: Hashable) -> None:
        """A picture (or its hires pass) wants these and no others. asked: the tags as written."""
        self._suspended, self._live = False, True
        self._wishes = tuple(wishes)
        self._sync_own()
        self._remember(("lorax", asked), [f"{n.name}*{n.te_multiplier}" for n in self._ours])

    def end(self) -> None:
        """The picture is done."""
        self._live = False

    def stop(self) -> None:
        """Take everything out for good."""
        self._wishes, self._live = (), False
        self._withdraw()
        self._stand_ins = []
        self._maker.forget()

    def around_load_networks(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The built-in empties its list and fills it with what ``<lora:…>`` names: put ours back, behind."""
        result = original(*args, **kwargs)
        networks = webui.networks()
        if networks is not None and not self._suspended:
            self._stand_ins = [StandIn.of(n) for n in networks.loaded_networks if is_native(n.network_on_disk)]
            self._sync_stand_ins()
            self._join()
            named = tuple((s.path, s.te, s.unet) for s in self._stand_ins)
            self._remember(("lora", named), [s.placed.name for s in self._stand_ins])
        return result

    def around_reload(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Every switch of checkpoints ends here, with or without a callback."""
        before = _point()
        try:
            return original(*args, **kwargs)
        finally:
            self._suspended = False
            if self._lost or _point() != before:
                self._lost = False
                self._follow()

    def _follow(self) -> None:
        if self._live:
            self._sync_own()
            self._sync_stand_ins()
            self._join()
            return
        self._withdraw()
        base = models.base_of(models.active_model())
        if base is not None and webui.option("lorax_warm") is not False and self._wishes:
            self.service.warm(self._wishes, base, webui.options())

    def _sync_own(self) -> None:
        self._withdraw_own()
        self.applied = {}
        for wish in self._wishes:
            if wish.silent:
                continue
            network = self._make(wish.name, lambda base, options, progress, w=wish: self.service.carry(w, base, options, progress))
            if network is not None:
                network.te_multiplier, network.unet_multiplier, network.dyn_dim = wish.te, wish.unet, None
                self._ours.append(network)
        self._join()

    def _sync_stand_ins(self) -> None:
        networks = webui.networks()
        for stand_in in list(self._stand_ins):
            name = stand_in.mentioned_name or stand_in.path.stem
            network = self._make(name, lambda base, options, progress, s=stand_in: self.service.carry_file(s.path, base, options, progress))
            loaded = [] if networks is None else networks.loaded_networks
            at = next((i for i, n in enumerate(loaded) if n is stand_in.placed), None)
            if at is not None:
                del loaded[at]
            if network is None:
                self._stand_ins.remove(stand_in)
                continue
            stand_in.placed = stand_in.dress(network)
            loaded.insert(self._stand_ins.index(stand_in) if at is None else at, stand_in.placed)

    def _make(self, name: str, carry: Callable[[KnownBase, Any, Progress], Carried]) -> Any | None:
        """A network for the active model, or None with a problem said."""
        networks, model = webui.networks(), models.active_model()
        base = models.base_of(model)
        if networks is None or base is None:
            self._problem(name, webui.NO_BUILT_IN if networks is None else "no checkpoint is loaded")
            return None
        try:
            carried = carry(base, webui.options(), webui.progress)
            network = self._maker.network(networks, carried, base.name, model, int(webui.option("lorax_keep") or 4))
        except Cancelled as error:
            self._problem(name, str(error))
            return None
        except LoraxError as error:
            self._problem(name, str(error))
            return None
        except Exception as error:  # the picture is made without it, whatever it was
            webui.report_exception(f"'{name}' could not be applied")
            self._problem(name, f"{type(error).__name__}: {error}")
            return None
        finally:
            webui.progress_over()
        if carried.note and carried.note not in self.notes:
            self.notes.append(carried.note)
        self.applied[name] = carried
        self.names.add(network.name)
        return network

    def _problem(self, name: str, what: str) -> None:
        line = one_line(f"'{name}' is not applied: {what}")
        if line not in self.problems:
            self.problems.append(line)

    def _join(self) -> None:
        networks = webui.networks()
        if networks is not None:
            remove(networks, self._ours)
            networks.loaded_networks.extend(self._ours)

    def _withdraw_own(self) -> None:
        networks = webui.networks()
        if networks is not None:
            remove(networks, self._ours)
        self._ours = []

    def _withdraw(self) -> None:
        networks = webui.networks()
        if networks is not None:
            remove(networks, [*self._ours, *(s.placed for s in self._stand_ins)])
        self._ours = []

    def _remember(self, asked: Hashable, content: Sequence[str]) -> None:
        """Forget text encodings where the same tags on the same checkpoint mean something else than before."""
        key = asked, _point()
        if self._content.get(key, tuple(content)) != tuple(content):
            webui.forget_conds()
        self._content[key] = tuple(content)
        self._content.move_to_end(key)
        while len(self._content) > 64:
            self._content.popitem(last=False)


def _point() -> tuple[int, str]:
    """Which weights are active: the model object and the file behind it."""
    model = models.active_model()
    base = models.base_of(model)
    return id(model), "" if base is None else str(base.path)
