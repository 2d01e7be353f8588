"""What the WebUI loads: settings, and a place in the host."""

from lorax import retarget
from lorax.hosts import a1111
from lorax.ui import settings

settings.register()
a1111.start(retarget.make_service)
