"""Manifests and sidecars through the C interface are judged as by Python."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from c_library import (
    MODEL_ERROR,
    OK,
    UNAVAILABLE,
    Library,
    open_status,
    refused,
)
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.manifest import METADATA_KEY, Manifest
from engine_files import make_engine_file
from engine_files import write_engine as write_python_engine
from fake_backend import make_manifest
from tiny_onnx import write_tiny_onnx

MANIFESTS = {  # a change of a good manifest, as JSON; None removes the key
    "as it is": {},
    "version 1 without rounding": {"format_version": 1},
    "version 3": {"format_version": 3},
    "version 0": {"format_version": 0},
    "version as text": {"format_version": "2"},
    "version 2.0": {"format_version": 2.0},
    "version true": {"format_version": True},
    "no version": {"format_version": None},
    "an unknown key": {"colour": "red"},
    "no preset": {"preset": None},
    "a preset that is a number": {"preset": 5},
    "no classes": {"class_names": [], "category_ids": []},
    "more ids than names": {"category_ids": [1, 2, 3, 4]},
    "a name that is a number": {"class_names": ["a", "b", 3]},
    "an id that is a fraction": {"category_ids": [1, 2, 3.5]},
    "no canvas": {"canvas": None},
    "an unknown canvas key": {"canvas": {"short_edge": 64, "long_edge": 96, "divisor": 32, "x": 1}},
    "a short edge above the long": {"canvas": {"short_edge": 97, "long_edge": 96, "divisor": 32}},
    "a short edge of 0": {"canvas": {"short_edge": 0, "long_edge": 96, "divisor": 32}},
    "no divisor": {"canvas": {"short_edge": 64, "long_edge": 96}},
    "a canvas by default": {"canvas": {"short_edge": 64, "long_edge": 96, "divisor": 32}},
    "bicubic": {
        "canvas": {"short_edge": 64, "long_edge": 96, "divisor": 32, "interpolation": "bicubic"}
    },
    "rounding up": {"canvas": {"short_edge": 64, "long_edge": 96, "divisor": 32, "rounding": "up"}},
    "a fixed size off the divisor": {
        "canvas": {"short_edge": 64, "long_edge": 96, "divisor": 32, "fixed": [64, 97]}
    },
    "one fixed side": {"canvas": {"short_edge": 64, "long_edge": 96, "divisor": 32, "fixed": [64]}},
    "a batch of 0": {"batch": 0},
    "a batch that is true": {"batch": True},
    "no batch": {"batch": None},
    "fp64": {"precision": "fp64"},
    "other ops": {"ops": "mine"},
    "no proposals key": {"proposals": None},
    "proposals of -1": {"proposals": -1},
    "no detections": {"detections": 0},
    "no strides": {"strides": []},
    "strides as text": {"strides": "8"},
    "an unknown score rule": {"score_rule": "max"},
    "a threshold above 1": {"score_threshold": 1.5},
    "a whole threshold": {"score_threshold": 1},
    "a threshold as text": {"score_threshold": "0.5"},
    "a lowest threshold above the threshold": {"lowest_score_threshold": 0.5},
    "a negative lowest threshold": {"lowest_score_threshold": -0.1},
    "a hash that is a number": {"checkpoint_sha256": 5},
    "versions that are numbers": {"versions": {"cn2": 1}},
    "versions as a list": {"versions": ["1"]},
}


def changed(changes: dict[str, Any]) -> str:
    values = {**json.loads(make_manifest().to_json()), **changes}
    return json.dumps({key: v for key, v in values.items() if not (key in changes and v is None)})


def python_accepts(text: str) -> bool:
    try:
        Manifest.from_json(text)
    except ModelFormatError:
        return False
    return True


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_judged_as_by_python(
    library: Library, tmp_path: Path, onnxruntime_path: bytes, name: str
) -> None:
    text = changed(MANIFESTS[name])
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata={METADATA_KEY: text})
    status = open_status(library, path, threads=1, runtime_path=onnxruntime_path)
    if python_accepts(text):
        assert status == OK, library.last_error()
    else:
        refused(library, status, MODEL_ERROR, f"{path}: ")


def test_some_manifests_are_good_and_some_bad() -> None:
    accepted = [name for name in MANIFESTS if python_accepts(changed(MANIFESTS[name]))]
    assert 5 <= len(accepted) <= 8


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1,]", '{"a":1,}', "nul", "01", "+1", "1.", ".5", "1e", "NaN", "Infinity"),
        *('"\x01"', '"\\x"', '"\\u12"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud800\\u0041"'),
        *("[" * 100_000, '{"a":' * 100_000, "1 2", '{"a" 1}', "{1: 2}", '"abc', "1e999", "- 1"),
        *('{"format_version": 2, "format_version": 2}', '{"a": "\\u0000"}', "\ufeff{}", "//"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_texts_that_are_no_json(library: Library, tmp_path: Path, text: str) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata={METADATA_KEY: text})
    refused(library, open_status(library, path), MODEL_ERROR, "its cn2 manifest is no JSON")


def test_json_texts_of_all_kinds_are_read(
    library: Library, tmp_path: Path, onnxruntime_path: bytes
) -> None:
    names = ["ä€𝄞", '"\\/\b\f\n\r\t', "\x7f\u2028"]
    text = json.dumps({**json.loads(make_manifest().to_json()), "class_names": names}, indent=3)
    assert "\\ud834\\udd1e" in text
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata={METADATA_KEY: text})
    model = library.open(path, threads=1, runtime_path=onnxruntime_path)
    assert [library.model_class_name(model.handle, i).decode() for i in range(3)] == names
    assert library.model_manifest(model.handle).decode() == text
    model.close()


def write_engine(folder: Path, **changes: Any) -> Path:
    """A plan of some bytes and its sidecar."""
    path = folder / "m.engine"
    path.write_bytes(b"plan" * 1000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar = {"manifest": json.loads(make_manifest().to_json()), "sha256": digest, **changes}
    sidecar = {key: value for key, value in sidecar.items() if value is not None}
    Path(f"{path}.json").write_text(json.dumps(sidecar))
    return path


def test_engines_are_checked_before_anything_looks_at_them(
    library: Library, tmp_path: Path
) -> None:
    path, sound = write_engine(tmp_path), "an engine runs on a CUDA device"
    refused(library, open_status(library, path, device=b"cpu"), UNAVAILABLE, sound)
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000):  # paddings of the hash
        content = bytes(range(256)) * 4
        path.write_bytes(content[:size])
        refused(library, open_status(library, path), MODEL_ERROR, "expected sha256")
        write = {"sha256": hashlib.sha256(content[:size]).hexdigest()}
        write_engine(tmp_path, **write)
        path.write_bytes(content[:size])
        refused(library, open_status(library, path, device=b"cpu"), UNAVAILABLE, sound)
    known = write_python_engine(path, make_engine_file())  # all keys that `cn2 build` writes
    refused(library, open_status(library, known, device=b"cpu"), UNAVAILABLE, sound)
    for changes, said in (
        ({"sha256": "ab" * 32}, "expected sha256 abab"),
        ({"sha256": None}, "expected a key sha256"),
        ({"manifest": None}, "expected a key manifest"),
        ({"manifest": 5}, "expected a cn2 manifest with a format_version"),
        ({"plan": 1}, 'unknown key "plan"'),
        ({"runtime": "onnx"}, "runtime: expected tensorrt or tensorrt-rtx"),
        ({"version": 10}, "version: expected a text"),
    ):
        refused(library, open_status(library, write_engine(tmp_path, **changes)), MODEL_ERROR, said)
    Path(f"{path}.json").unlink()
    refused(library, open_status(library, path), MODEL_ERROR, ".engine.json: no such file")
