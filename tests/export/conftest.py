"""Exported files that several tests run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cn2.export.describe import open_checkpoint
from cn2.runtime.demo import CHECKPOINT
from exported import Exported, export_to, lively_detector
from factories import tiny_config, tiny_one_stage_config


@pytest.fixture(scope="session", autouse=True)
def _quick_export(quick_export: None) -> None:
    """For all exports of this folder."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector."""
    config = tiny_config()
    return export_to(tmp_path_factory.mktemp("tiny"), lively_detector(config), config)


@pytest.fixture(scope="session")
def tiny_fused(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector with fused operators."""
    config, folder = tiny_config(), tmp_path_factory.mktemp("tiny-fused")
    return export_to(folder, lively_detector(config), config, "fused")


@pytest.fixture(scope="session")
def tiny_fp16(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector in fp16, with fused operators."""
    config, folder = tiny_config(), tmp_path_factory.mktemp("fp16")
    return export_to(folder, lively_detector(config), config, "fused", "fp16")


@pytest.fixture(scope="session")
def one_stage(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector without a second stage."""
    config = tiny_one_stage_config()
    return export_to(tmp_path_factory.mktemp("one-stage"), lively_detector(config), config)


@pytest.fixture(scope="session")
def nano(nano_onnx: Path) -> Exported:
    """The preset nano with the bundled weights."""
    model, config, _ = open_checkpoint(CHECKPOINT)
    return Exported(model=model.eval(), config=config, path=nano_onnx)


@pytest.fixture(scope="session")
def nano_fused(nano: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same with fused operators."""
    return export_to(tmp_path_factory.mktemp("nano-fused"), nano.model, nano.config, "fused")
