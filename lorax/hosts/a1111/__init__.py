"""AUTOMATIC1111's WebUI 1.10: ``<lorax:…>`` through the built-in Lora extension's own networks."""

from __future__ import annotations

from lorax.hosts.a1111.host import A1111, start

__all__ = ["A1111", "start"]
