"""What the cards, the accordion and the grid's axes ask of a WebUI; its modules are imported where they are used."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def before_page(act: Callable[[], None]) -> None:
    """Call `act` whenever the page is about to be made, also where no page is (API only)."""
    from modules import script_callbacks

    script_callbacks.on_before_ui(act)


def on_server(act: Callable[[Any, Any], None]) -> None:
    """Call `act(page or None, app)` when the server has started."""
    from modules import script_callbacks

    script_callbacks.on_app_started(act)


def on_paste(act: Callable[[str, dict[str, Any]], None]) -> None:
    """Call `act(infotext, parameters)` before an infotext is pasted; it may change the parameters."""
    from modules import script_callbacks

    script_callbacks.on_infotext_pasted(act)


def card_classes() -> tuple[type, type]:
    """(page of cards, editor of user metadata), to be derived from."""
    from modules import ui_extra_networks, ui_extra_networks_user_metadata

    return ui_extra_networks.ExtraNetworksPage, ui_extra_networks_user_metadata.UserMetadataEditor


def add_cards(page: Any) -> None:
    """A page among the extra networks; the list is emptied whenever the UI reloads."""
    from modules import ui_extra_networks

    ui_extra_networks.register_page(page)


def script_class() -> tuple[type, Any]:
    """(class of scripts, what `show` answers for a script that is always there)"""
    from modules import scripts

    return scripts.Script, scripts.AlwaysVisible


def grid() -> Any | None:
    """The module of the built-in X/Y/Z plot, None where it is not there."""
    from modules import scripts

    for data in scripts.scripts_data:
        if getattr(data.module, "axis_options", None) is not None and hasattr(data.module, "AxisOption"):
            return data.module
    return None


def make_picture(p: Any) -> Any:
    """What the WebUI makes of a request."""
    from modules import processing

    return processing.process_images(p)


def expect_pictures(count: int) -> None:
    """How many batches a click on Generate makes, for the progress bar; before the first one."""
    from modules import shared

    if shared.state.job_count == -1:
        shared.state.job_count = count


def interrupted() -> bool:
    from modules import shared

    return bool(shared.state.interrupted or shared.state.skipped)


def idle() -> bool:
    """No picture is being made."""
    from modules import shared

    return not shared.state.job


def picture_format() -> str:
    """The suffix of saved pictures, without dot."""
    from modules import shared

    return str(shared.opts.samples_format)


def descriptions_are_html() -> bool:
    """The user lets descriptions of cards hold HTML."""
    from modules import shared

    return bool(getattr(shared.opts, "extra_networks_card_description_is_html", False))
