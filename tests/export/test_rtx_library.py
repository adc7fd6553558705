"""TensorRT-RTX is opened so that it takes our plugins. Whole files: test_fused_file.py."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cn2.export.rtx_library import open_rtx
from cn2.runtime.backends.tensorrt_library import open_tensorrt
from cn2.runtime.errors import BackendUnavailableError, PluginError
from native_libraries import built_library
from rtx_networks import Parsed, logged, rtx_with_plugins


@pytest.fixture(scope="module")
def rtx() -> ModuleType:
    """TensorRT-RTX with our plugins."""
    return rtx_with_plugins()


def deform_conv_file(path: Path) -> Path:
    """One standard DeformConv, as torch's exporter writes it."""
    import onnx
    from onnx import TensorProto, helper

    shapes = {"x": [1, 4, 8, 8], "w": [6, 4, 3, 3], "o": [1, 18, 8, 8], "b": [6], "m": [1, 9, 8, 8]}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    node = helper.make_node(
        "DeformConv", list(shapes), ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
        strides=[1, 1], dilations=[1, 1], group=1, offset_group=1,
    )  # fmt: skip
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 8, 8])
    graph = helper.make_graph([node], "one", values, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path)
    return path


def test_the_standard_deformable_convolution_is_a_plugin(rtx: ModuleType, tmp_path: Path) -> None:
    parsed = Parsed(rtx, deform_conv_file(tmp_path / "one.onnx"))
    assert parsed.plugins() == [[(1, 6, 8, 8)]]
    assert logged(rtx) == []


def test_what_a_plugin_refuses_is_one_line(
    rtx: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On standard error: while it parses, TensorRT-RTX has no logger for plugins."""
    import onnx

    model = onnx.load(deform_conv_file(tmp_path / "one.onnx"))
    (pads,) = [a for a in model.graph.node[0].attribute if a.name == "pads"]
    pads.ints[:] = [1, 1]
    assert not Parsed(rtx, model.SerializeToString()).succeeded
    said = "cn2 DeformConv: attribute pads: expected 4 numbers, got 2\n"
    assert capfd.readouterr().err == said


def test_plugins_are_loaded_once(rtx: ModuleType) -> None:
    names = [creator.name for creator in rtx.get_plugin_registry().all_creators]
    open_tensorrt("tensorrt-rtx").load_plugins()
    assert [creator.name for creator in rtx.get_plugin_registry().all_creators] == names


PARSE = """
import sys
from cn2.export.rtx_library import open_rtx
from cn2.runtime.backends.tensorrt_library import open_tensorrt
trt = open_rtx()
assert open_tensorrt("tensorrt-rtx").load_plugins()
logger = trt.Logger(trt.Logger.ERROR)
network = trt.Builder(logger).create_network(0)
assert trt.OnnxParser(network, logger).parse_from_file(sys.argv[1])
print(network.num_layers)
"""


def test_a_fresh_process(rtx: ModuleType, tmp_path: Path) -> None:
    """Without the library of the other name, it would end at the first plugin."""
    path = deform_conv_file(tmp_path / "one.onnx")
    command = [sys.executable, "-c", PARSE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 1


# --- Without


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))


def test_without_tensorrt_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'cn2\[tensorrt-rtx\]'"):
        open_rtx()


def test_without_the_library_of_the_other_name(
    nothing_built: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", ModuleType("tensorrt_rtx"))
    with pytest.raises(PluginError, match=r"libcn2_rtx_name\.so: expected .*; run make native"):
        open_rtx()
    (tmp_path / "libcn2_rtx_name.so").write_bytes(b"not a library")
    with pytest.raises(PluginError, match=r"libcn2_rtx_name\.so: does not load"):
        open_rtx()


def test_the_library_of_the_other_name_needs_nothing_else() -> None:
    """Where TensorRT-RTX is not loaded, it does not load; else only the name is new."""
    path = built_library("cn2_rtx_name")
    if "tensorrt_rtx" not in sys.modules:
        with pytest.raises(OSError, match=r"libtensorrt_rtx\.so\.1"):
            ctypes.CDLL(str(path))
