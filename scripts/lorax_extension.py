"""What the WebUI loads: a place in the host, with the service and the widgets that it needs."""

from lorax import retarget
from lorax.hosts import detect
from lorax.ui import parts, settings

Script = detect.start(retarget.make_service, settings.component_of, parts.add)
Accordion = parts.script()
