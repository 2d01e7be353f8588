"""Loaded into the WebUI by the tests: tells what stands in the places that LoRA-X wraps, and reloads the UI."""

import sys
import time

from modules import extra_networks, script_callbacks, sd_models, shared

_seen = shared.__dict__.setdefault("_lorax_probe", {})


def places():
    networks = sys.modules.get("networks")
    return {
        "load_networks": getattr(networks, "load_networks", None),
        "reload_model_weights": sd_models.reload_model_weights,
        "module_types": list(getattr(networks, "module_types", [])),
        "registered": sorted(extra_networks.extra_network_registry),
    }


if not _seen:
    _seen.update({**places(), "reloads": 0})
else:
    _seen["reloads"] += 1


def trace():
    now = places()
    networks = sys.modules.get("networks")
    model = sd_models.model_data.sd_model
    names = {n[0] for m in model.modules() for n in getattr(m, "network_current_names", ())} if model is not None else set()
    return {
        "reloads": _seen["reloads"],
        "load_networks": now["load_networks"] is _seen["load_networks"],
        "reload_model_weights": now["reload_model_weights"] is _seen["reload_model_weights"],
        "module_types": now["module_types"] == _seen["module_types"],
        "registered": now["registered"],
        "loaded": [n.name for n in getattr(networks, "loaded_networks", [])],
        "patched": sorted(names),
        "memory": sorted(getattr(networks, "networks_in_memory", {})),
        "hashes": sorted(getattr(networks, "available_network_hash_lookup", {})),
    }


def paste(infotext: str):
    from modules import infotext_utils

    params = infotext_utils.parse_generation_parameters(infotext)
    script_callbacks.infotext_pasted_callback(infotext, params)
    return {"prompt": params.get("Prompt"), "settings": infotext_utils.get_override_settings(params)}


def reload_ui():
    shared.state.request_restart()


def hold_transfer():
    """The next transfer takes a minute, unless it is stopped."""
    from lorax.retarget import service

    real = service.work

    def held(job, bases, relations, progress):
        service.work = real
        for tenth in range(600):
            progress("held by a test", tenth, 600)
            time.sleep(0.1)
        return real(job, bases, relations, progress)

    service.work = held


def routes(_demo, app):
    app.add_api_route("/probe/trace", trace, methods=["GET"])
    app.add_api_route("/probe/reload", reload_ui, methods=["POST"])
    app.add_api_route("/probe/hold-transfer", hold_transfer, methods=["POST"])
    app.add_api_route("/probe/paste", paste, methods=["GET"])


script_callbacks.on_app_started(routes)
