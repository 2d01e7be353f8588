"""The WebUIs that adapters follow a checkpoint in: one module or package per host, and what they share in `lorax.hosts.base`."""
