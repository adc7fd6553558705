"""Exported files that several tests run, made once."""

from __future__ import annotations

import pytest

from cn2.trainer.presets import PRESETS
from exported import Exported, export_to, lively_detector
from factories import tiny_config


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector."""
    config = tiny_config()
    return export_to(tmp_path_factory.mktemp("tiny"), lively_detector(config), config)


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The preset nano with fresh weights."""
    config = PRESETS["nano"]()
    return export_to(tmp_path_factory.mktemp("nano"), lively_detector(config), config)
