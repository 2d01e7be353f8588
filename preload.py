"""Command-line arguments that the extension adds to the WebUI's."""

import argparse


def preload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lorax-dir", type=str, default=None, help="folder of LoRA-X adapters (default: models/Lorax)")
