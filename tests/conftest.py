"""Families of small base models, written once a session."""

from __future__ import annotations

import pytest
import torch

from tests.families import Family, write_family


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small matrices are slower on several threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return write_family(tmp_path_factory.mktemp("sd1"), "sd1", "bk-sdm-base")


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return write_family(tmp_path_factory.mktemp("sdxl"), "sdxl", "ssd-1b")
