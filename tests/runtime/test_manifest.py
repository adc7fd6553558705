"""The manifest: the same after a round trip, refused in one line when it is not sound."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from typing import Any

import pytest

from cn2.runtime.canvas import CanvasRule
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.manifest import FORMAT_VERSION, METADATA_KEY, Manifest, manifest_from_metadata
from fake_backend import make_manifest

FIXED = CanvasRule(short_edge=64, long_edge=96, divisor=32, fixed=(64, 96))


@pytest.mark.parametrize(
    "manifest",
    [
        make_manifest(),
        make_manifest(canvas=FIXED, batch=4, versions={"torch": "2.14.1"}),
        make_manifest(class_names=("größe", 'a "quote"', "列"), score_rule="product"),
        make_manifest(canvas=replace(FIXED, rounding="down")),
        make_manifest(score_rule="class"),
        make_manifest(lowest_score_threshold=0.0, score_threshold=1.0),
    ],
)
def test_round_trip(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text
    assert manifest_from_metadata(manifest.metadata(), "m.onnx") == manifest


def test_a_file_of_version_1_rounds_to_the_nearest_pixel() -> None:
    values = json.loads(changed(format_version=1))
    del values["canvas"]["rounding"]
    assert Manifest.from_json(json.dumps(values)) == make_manifest(format_version=1)


def test_keys_for_other_tools() -> None:
    metadata = make_manifest(canvas=FIXED).metadata()
    assert ast.literal_eval(metadata["names"]) == {0: "red", 1: "green", 2: "blue"}
    assert (metadata["stride"], metadata["imgsz"]) == ("32", "[64, 96]")


def changed(**changes: Any) -> str:
    values = json.loads(make_manifest().to_json())
    for key, value in changes.items():
        if value is None:
            del values[key]
        else:
            values[key] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "expected a cn2 manifest with a format_version, got None"),
        (changed(format_version=None), "expected a cn2 manifest with a format_version, got None"),
        (changed(format_version="1"), "got '1'"),
        (changed(format_version=True), "got True"),
        (changed(format_version=FORMAT_VERSION + 1), f"reads up to {FORMAT_VERSION}; upgrade cn2"),
        (changed(preset=None), "not valid: preset: "),
        (changed(proposal=5), "proposal: unknown key; did you mean 'proposals'"),
        (changed(proposals="5"), "proposals: .*integer, got '5'"),
        (changed(precision="fp8"), "precision: .*got 'fp8'"),
        (changed(class_names=["one"]), "got 1 names and 3 ids"),
        (changed(score_threshold=1.5), r"score_threshold <= 1, got 0.01, 1.5"),
        (changed(lowest_score_threshold=0.5), "got 0.5, 0.05"),
        (changed(batch=0), "batch >= 1"),
        (changed(strides=[]), "some strides"),
        (changed(canvas={**json.loads(changed())["canvas"], "rounding": "up"}), "got 'up'"),
        (changed(canvas={"short_edge": 64}), "canvas: long_edge: "),
        (changed(canvas={**json.loads(changed())["canvas"], "fixed": [64, 95]}), "multiples of 32"),
    ],
)
def test_unsound_manifests_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message) as caught:
        Manifest.from_json(text, "some/model.onnx")
    assert str(caught.value).startswith("some/model.onnx: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_files_of_others_are_told_apart() -> None:
    with pytest.raises(ModelFormatError, match=r"^m.onnx: no cn2 manifest in its metadata; was it"):
        manifest_from_metadata({"names": "{}"}, "m.onnx")
    assert METADATA_KEY == "cn2.manifest"  # fixed: files carry it
