"""`cn2 info`: manifest, graph and what can run it; the onnx package is the oracle."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from safetensors.numpy import save_file

from cn2.runtime import doctor, info
from cn2.runtime.backends.opening import READERS
from cn2.runtime.onnx_summary import summarize_onnx
from command_line import cn2
from fake_backend import make_manifest
from tiny_onnx import write_tiny_onnx

Capture = pytest.CaptureFixture[str]

NESTED = """
<ir_version: 8, opset_import: ["": 17, "custom": 1]>
outer (bool b, float[N, 3, 7] x) => (float[N, 3, 7] y) {
    z = custom.Twist (x)
    y = If (b) <
        then_branch = then_graph () => (t) { u = Neg(z) t = Neg(u) },
        else_branch = else_graph () => (e) { e = Abs(z) }
    >
}
"""


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs here is doctor's business, tested there."""
    monkeypatch.setattr(doctor, "run_probe", lambda backend, device: {"works": device == "cpu"})


def count_operators(graph: onnx.GraphProto) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node in graph.node:
        counts[f"{node.domain}::{node.op_type}" if node.domain else node.op_type] += 1
        for attribute in node.attribute:
            if attribute.HasField("g"):
                counts += count_operators(attribute.g)
    return counts


@pytest.mark.parametrize("kind", ["tiny", "nested"])
def test_operators_are_counted_as_onnx_counts_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    if kind == "tiny":
        write_tiny_onnx(path)
    else:
        onnx.save(parser.parse_model(NESTED), path)
    summary = summarize_onnx(path)
    model = onnx.load(path)
    assert summary.operators == dict(count_operators(model.graph))
    counts = list(summary.operators.values())
    assert counts == sorted(counts, reverse=True)
    assert summary.opset == model.opset_import[0].version


def test_nested_graphs_and_foreign_domains(tmp_path: Path) -> None:
    onnx.save(parser.parse_model(NESTED), tmp_path / "a.onnx")
    summary = summarize_onnx(tmp_path / "a.onnx")
    assert summary.operators == {"Neg": 2, "custom::Twist": 1, "If": 1, "Abs": 1}
    assert summary.inputs == {"b": "bool []", "x": "float32 [N, 3, 7]"}
    assert summary.outputs == {"y": "float32 [N, 3, 7]"}
    assert (summary.parameters, summary.opset) == (0, 17)


@pytest.mark.parametrize("shape", [(), (0,), (300,), (2, 3, 200)])  # 200, 300: two-byte numbers
def test_parameters_are_the_initializers_numbers(shape: tuple[int, ...], tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.zeros(shape, np.float32), "w")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("Neg", ["w"], ["y"])], "g", [], [output], [value])
    onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
    assert summarize_onnx(tmp_path / "a.onnx").parameters == int(np.prod(shape))


def test_json_of_an_onnx_file(tmp_path: Path, capfd: Capture) -> None:
    path = write_tiny_onnx(tmp_path / "a.onnx")
    ran = cn2(capfd, "info", path, "--json", "-")
    assert (ran.code, ran.errors) == (0, [])
    found = ran.json()
    assert set(found) == {"file", "size_bytes", "manifest", "graph", "runs_here"}
    assert found["size_bytes"] == path.stat().st_size
    assert found["manifest"]["class_names"] == ["red", "green", "blue"]
    assert found["graph"]["inputs"] == {
        "images": "uint8 [B, H, W, 3]",
        "image_sizes": "int32 [B, 2]",
        "score_threshold": "float32 [], optional",
    }
    assert found["graph"]["outputs"]["boxes"] == "float32 [B, 2, 4]"
    assert [(row["backend"], row["device"], row["works"]) for row in found["runs_here"]] == [
        ("onnxruntime", "cpu", True),
        ("onnxruntime", "cuda", False),
        ("native", "cpu", True),
        ("native", "cuda", False),
    ]


def test_text_of_an_onnx_file(tmp_path: Path, capfd: Capture) -> None:
    names = tuple(f"class number {index}" for index in range(40))
    manifest = make_manifest(class_names=names, category_ids=tuple(range(40)), provenance="a test")
    path = write_tiny_onnx(tmp_path / "a.onnx", manifest)
    out = cn2(capfd, "info", path).out
    for part in ("preset", "fake", "40: class number 0, class number 1", "linear resize"):
        assert part in out
    for part in ("any", "CC0-1.0", "a test", "lowest 0.01", "uint8 [B, H, W, 3]", "23 nodes"):
        assert part in out
    assert max(map(len, out.replace(str(path), "a.onnx").splitlines())) <= 80


def test_fused_operators_say_what_runs_them(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_onnx(tmp_path / "a.onnx", make_manifest(ops="fused"))
    row = {"works": False, "reason": "it is not here", "fix": "make it"}
    monkeypatch.setattr(doctor, "run_probe", lambda backend, device: row)
    ran = cn2(capfd, "info", path, "--json", "-")
    assert ran.json()["fused_operators"] == row
    out = " ".join(cn2(capfd, "info", path).out.split())
    assert "operators fused, opset 18;" in out
    assert "fused here onnxruntime runs their standard form: it is not here; make it" in out


def test_a_fixed_canvas_is_said(tmp_path: Path, capfd: Capture) -> None:
    from cn2.runtime.canvas import CanvasRule

    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, fixed=(64, 128))
    path = write_tiny_onnx(tmp_path / "a.onnx", make_manifest(canvas=rule, batch=4))
    out = cn2(capfd, "info", path).out
    assert "64x128 (height x width), pictures scaled to fit" in " ".join(out.split())
    assert "batch               4\n" in out


def write_checkpoint(path: Path, metadata: dict[str, str] | None = None) -> Path:
    config: dict[str, Any] = {"preset": "tiny", "class_names": ["disc"], "input": {"divisor": 32}}
    usual = {
        "cn2.config": json.dumps(config),
        "cn2.format_version": "1",
        "cn2.license": "CC0-1.0",
    }
    tensors = {"a": np.zeros((3, 4), np.float32), "b": np.zeros((), np.int64)}
    save_file(tensors, path, usual if metadata is None else metadata)
    return path


def test_a_checkpoint_needs_no_torch(tmp_path: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "info", write_checkpoint(tmp_path / "a.safetensors"), "--json", "-")
    found = ran.json()
    assert (found["tensors"], found["parameters"]) == (2, 13)
    assert found["types"] == {"F32": 1, "I64": 1}
    assert found["checkpoint"]["license"] == "CC0-1.0"
    assert {row["backend"] for row in found["runs_here"]} == {"torch"}
    out = cn2(capfd, "info", tmp_path / "a.safetensors").out
    assert "1: disc" in out
    assert "CC0-1.0" in out


TENSOR = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}


def headed(header: dict[str, Any]) -> bytes:
    """A safetensors file of four bytes of data."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a safetensors file"),
        (b"\xff" * 20, "expected a safetensors file"),  # a header of 2^64 bytes
        ((5).to_bytes(8, "little") + b"{}", "expected a safetensors file"),  # torn
        ((2).to_bytes(8, "little") + b"[]", "expected a safetensors file"),
        ((2).to_bytes(8, "little") + b"{}", "found no cn2.config in its metadata"),
        ((2).to_bytes(8, "little") + b"{}more", "expected a safetensors file"),
        (headed({"a": {"dtype": "F32", "data_offsets": [0, 4]}}), "expected a safetensors file"),
        (headed({"a": {**TENSOR, "shape": ["4"]}}), "expected a safetensors file"),
        (headed({"a": {**TENSOR, "shape": None}}), "expected a safetensors file"),
        (headed({"a": {**TENSOR, "dtype": 1}}), "expected a safetensors file"),
        (headed({"a": {**TENSOR, "data_offsets": [0]}}), "expected a safetensors file"),
        (headed({"a": {**TENSOR, "data_offsets": [0, 8]}}), "expected a safetensors file"),  # torn
        (headed({"a": []}), "expected a safetensors file"),
        (headed({"__metadata__": []}), "expected a safetensors file"),
        (headed({"__metadata__": {"cn2.config": {}}}), "expected a safetensors file"),
    ],
)
def test_bad_checkpoints(content: bytes, message: str, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    ran = cn2(capfd, "info", path)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.errors
    assert line.startswith(f"{path}: ")
    assert message in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cn2.config": "{"}, "its config cannot be read: Expecting"),
        ({"cn2.config": "[" * 100_000}, "its config cannot be read"),
        ({"cn2.config": "[]"}, "its config cannot be read: expected an object .*got \\[\\]"),
        ({"cn2.config": '{"class_names": 5}'}, "its config cannot be read: expected an object"),
        ({"cn2.config": '{"class_names": [5]}'}, "its config cannot be read: expected an object"),
        ({"cn2.config": '{"input": {"fixed": 5}}'}, "its config cannot be read: expected an"),
        ({"cn2.config": '{"input": []}'}, "its config cannot be read: expected an object"),
        ({"cn2.format_version": "3"}, "format version 3, this package reads up to 2; update cn2"),
        ({"cn2.format_version": "two"}, "expected a cn2 checkpoint"),
    ],
)
def test_what_loading_refuses_info_refuses(
    changes: dict[str, str], message: str, tmp_path: Path, capfd: Capture
) -> None:
    usual = {"cn2.config": "{}", "cn2.format_version": "1"}
    path = write_checkpoint(tmp_path / "a.safetensors", {**usual, **changes})
    ran = cn2(capfd, "info", path)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.errors
    assert re.match(f"{path}: {message}", line)


def test_checkpoint_version_is_the_trainers() -> None:
    from cn2.trainer.checkpoint import FORMAT_VERSION

    assert info.CHECKPOINT_VERSION == FORMAT_VERSION


def test_a_graph_that_cannot_be_read_is_one_line(tmp_path: Path, capfd: Capture) -> None:
    path = write_tiny_onnx(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes().replace(b"ReduceMean", b"Reduce\xff\xfe\xff\xfe"))
    ran = cn2(capfd, "info", path)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.errors
    assert line.startswith(f"{path}: its graph cannot be read (")


def test_doctor_knows_every_kind_of_model_file() -> None:
    known = {(row.reads, row.backend) for row in doctor.BACKENDS}
    assert known == {(suffix, name) for suffix, names in READERS.items() for name in names}


def test_json_makes_its_folders(tmp_path: Path, capfd: Capture) -> None:
    path = write_tiny_onnx(tmp_path / "a.onnx")
    target = tmp_path / "new" / "er" / "info.json"
    assert cn2(capfd, "info", path, "--json", target).code == 0
    assert json.loads(target.read_text())["file"] == str(path)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_json_does_not_replace_the_model(suffix: str, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / f"a{suffix}"
    write_tiny_onnx(path) if suffix == ".onnx" else write_checkpoint(path)
    before = path.read_bytes()
    ran = cn2(capfd, "info", path, "--json", path)
    assert ran.code == 2
    assert "got one that is read" in ran.errors[0]
    assert path.read_bytes() == before
