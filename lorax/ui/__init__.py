"""What the extension shows in a WebUI."""
