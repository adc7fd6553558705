"""The operators' library: found, checked, added to a session, and what comes of a wrong one."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cn2.plugins import FOLDER_VARIABLE, library_path
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.backends.ort_operators import LIBRARY, add_operators, check_library, runs_on_cuda
from cn2.runtime.errors import BackendUnavailableError, ModelFormatError, PluginError
from fake_backend import make_manifest
from tiny_onnx import tiny_model, write_tiny_onnx

FUSED = make_manifest(ops="fused")
NAME = f"lib{LIBRARY}.so"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of libraries, as $CN2_LIBRARY_DIR."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


def write_other_library(folder: Path) -> None:
    """Some shared library that is not ours."""
    other = next(Path(onnxruntime.__file__).parent.rglob("*.so*"))
    shutil.copy(other, folder / NAME)


def write_fused_onnx(path: Path) -> Path:
    """The tiny model with a ProposalNMS in its graph, whose body gives boxes of -1.

    Kernels and body differ, so that the result tells which one ran: row 0 of `boxes` is the body's
    [-1, -1, -1, -1], or [0, 0, width, height].
    """
    model = tiny_model(FUSED)
    rename = {"boxes": "plain_boxes", "scores": "plain_scores"}
    for node in model.graph.node:
        node.output[:] = [rename.get(name, name) for name in node.output]
    make = helper.make_node
    outputs = ["boxes", "scores"]
    node = make("ProposalNMS", list(rename.values()), outputs, domain="cn2", plugin_namespace="cn2")
    node.attribute.append(helper.make_attribute("proposals", 2))
    node.attribute.append(helper.make_attribute("iou_threshold", 1.0))
    model.graph.node.append(node)
    one = helper.make_tensor("", TensorProto.FLOAT, [], [-1.0])
    body = [
        make("Mul", ["in_boxes", "zero"], ["none"]),
        make("Constant", [], ["zero"], value_float=0.0),
        make("Constant", [], ["one"], value=one),
        make("Add", ["none", "one"], ["kept_boxes"]),
        make("Identity", ["in_scores"], ["kept_scores"]),
    ]
    body.sort(key=lambda node: node.op_type != "Constant")
    model.functions.append(
        helper.make_function(
            "cn2",
            "ProposalNMS",
            ["in_boxes", "in_scores"],
            ["kept_boxes", "kept_scores"],
            body,
            [helper.make_opsetid("", 18)],
            ["proposals", "iou_threshold", "plugin_namespace"],
        )
    )
    model.opset_import.append(helper.make_opsetid("cn2", 1))
    helper.set_model_props(model, FUSED.metadata())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def first_box(backend: OnnxRuntimeBackend) -> list[float]:
    images = np.full((1, 64, 96, 3), 200, np.uint8)
    return backend.infer(images, np.array([[64, 96]], np.int32)).boxes[0, 0].tolist()


BODY, KERNEL = [-1.0] * 4, [0.0, 0.0, 96.0, 64.0]


# --- the library


def test_library_path(folder: Path) -> None:
    assert library_path(LIBRARY) is None
    (folder / NAME).touch()
    assert library_path(LIBRARY) == folder / NAME


def test_no_variable_is_the_packages_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    found = library_path(LIBRARY)
    assert found is None or found.parent.name == "lib"
    assert library_path("cn2_no_such_library") is None


def test_our_library_is_accepted(operator_library: Path) -> None:
    check_library(operator_library)


def test_what_is_no_library_is_refused(folder: Path) -> None:
    (folder / NAME).write_text("no library")
    with pytest.raises(PluginError, match=r"ort_ops\.so: cannot be loaded .*run make native again"):
        check_library(folder / NAME)


def test_another_library_is_refused(folder: Path) -> None:
    write_other_library(folder)
    with pytest.raises(PluginError, match="expected our operator library, got another one"):
        check_library(folder / NAME)


def test_another_version_is_refused(
    operator_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cn2.runtime.backends.ort_operators.VERSION", 2)
    message = r"libcn2_ort_ops\.so: operators of version 1, this package needs 2; run make"
    with pytest.raises(PluginError, match=message):
        check_library(operator_library)


# --- the backend


def test_kernels_run_where_the_library_is(
    tmp_path: Path, operator_library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_fused_onnx(tmp_path / "m.onnx")
    caplog.set_level(logging.INFO)
    for wanted, box, words in (
        (None, KERNEL, "onnxruntime on cpu, fused operators by kernels"),
        (True, KERNEL, "onnxruntime on cpu, fused operators by kernels"),
        (False, BODY, "onnxruntime on cpu, fused operators by bodies"),
    ):
        caplog.clear()
        backend = OnnxRuntimeBackend.open(path, device="cpu", fused=wanted)
        assert backend.fused == (box is KERNEL)
        assert first_box(backend) == box
        assert words in caplog.text


def test_without_a_library_the_bodies_run(tmp_path: Path, folder: Path) -> None:
    path = write_fused_onnx(tmp_path / "m.onnx")
    backend = OnnxRuntimeBackend.open(path, device="cpu")
    assert (backend.fused, first_box(backend)) == (False, BODY)
    with pytest.raises(BackendUnavailableError, match="need libcn2_ort_ops, found none; make nat"):
        OnnxRuntimeBackend.open(path, device="cpu", fused=True)


def test_a_library_that_does_not_load_is_a_warning_or_an_error(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_fused_onnx(tmp_path / "m.onnx")
    (folder / NAME).write_text("no library")
    backend = OnnxRuntimeBackend.open(path, device="cpu")
    assert (backend.fused, first_box(backend)) == (False, BODY)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot be loaded" in record.message
    assert record.message.endswith("the model runs without it, more slowly")
    with pytest.raises(PluginError, match="cannot be loaded"):
        OnnxRuntimeBackend.open(path, device="cpu", fused=True)


def test_a_file_of_standard_operators_needs_no_library(tmp_path: Path, folder: Path) -> None:
    (folder / NAME).write_text("no library")  # not even looked at
    path = write_tiny_onnx(tmp_path / "m.onnx")
    backend = OnnxRuntimeBackend.open(path, device="cpu")
    assert (backend.fused, first_box(backend)) == (False, KERNEL)
    with pytest.raises(ModelFormatError, match="expected fused operators, got standard ones"):
        OnnxRuntimeBackend.open(path, device="cpu", fused=True)


def test_auto_that_ends_on_the_cpu_has_the_kernels(
    tmp_path: Path, operator_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with onnxruntime-gpu where there is no GPU: it offers CUDA and uses the CPU."""
    path = write_fused_onnx(tmp_path / "m.onnx")
    asked: list[str] = []

    def providers(device: str, _tf32: bool) -> list[str]:
        asked.append(device)
        cpu = "CPUExecutionProvider"
        return [cpu] if device == "cpu" else ["AzureExecutionProvider", cpu]

    real = onnxruntime.InferenceSession.get_providers
    monkeypatch.setattr("cn2.runtime.backends.onnxruntime._providers", providers)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda s: real(s)[-1:])
    for wanted in (None, True):
        backend = OnnxRuntimeBackend.open(path, device="auto", fused=wanted)
        assert (backend.fused, first_box(backend)) == (True, KERNEL)
    assert asked == ["auto", "cpu"]  # kernels that must run are the CPU's


def test_on_a_gpu_without_its_kernels_the_bodies_run(
    tmp_path: Path, operator_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = onnxruntime.SessionOptions()
    path = tmp_path / "m.onnx"
    assert runs_on_cuda(operator_library) == (shutil.which("nvcc") is not None)
    monkeypatch.setattr("cn2.runtime.backends.ort_operators.runs_on_cuda", lambda _: True)
    assert add_operators(options, FUSED, path, on_cpu=False, wanted=None)
    monkeypatch.setattr("cn2.runtime.backends.ort_operators.runs_on_cuda", lambda _: False)
    assert not add_operators(options, FUSED, path, on_cpu=False, wanted=None)
    with pytest.raises(BackendUnavailableError, match="kernels for the CPU alone"):
        add_operators(options, FUSED, path, on_cpu=False, wanted=True)
