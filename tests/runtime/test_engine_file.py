"""An engine's JSON: the same after a round trip; plans and texts that do not fit are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cn2.runtime.engine_file import (
    EngineProfile,
    read_engine,
    read_plan,
    read_sidecar,
    sidecar_path,
)
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.info_engine import engine_facts, inspect_engine
from engine_files import PLAN, make_engine_file, write_engine
from fake_backend import make_manifest

DELETE = object()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    about = make_engine_file(build={"seconds": 1.5, "audit": {"fp16_share": 1.0}})
    path = write_engine(tmp_path / "a.engine", about)
    assert sidecar_path(path) == tmp_path / "a.engine.json"
    assert read_sidecar(path) == about
    assert read_engine(path) == about
    assert read_plan(path) == (about, PLAN)


def test_the_json_has_the_keys_that_other_readers_use() -> None:
    values = json.loads(make_engine_file().to_json())
    assert values["manifest"] == json.loads(make_manifest().to_json())
    assert values["sha256"] == hashlib.sha256(PLAN).hexdigest()
    assert (values["runtime"], values["version"]) == ("tensorrt-rtx", "1.7.1.116")
    assert (values["targets"], values["device"]) == (["sm_75", "sm_86"], "")
    assert values["profiles"] == [
        {"batch": [1, 1, 4], "height": [64, 64, 128], "width": [64, 96, 128]}
    ]
    assert values["precision"] == "fp32"


@pytest.mark.parametrize(
    ("size", "profile"),
    [
        ((1, 64, 64), 0),  # the smallest
        ((4, 128, 128), 0),  # the largest
        ((5, 128, 128), 1),  # of the second profile alone
        ((9, 64, 64), None),
        ((1, 32, 64), None),
        ((1, 64, 160), None),
        ((0, 64, 64), None),
    ],
)
def test_the_profile_of_a_size(size: tuple[int, int, int], profile: int | None) -> None:
    many = EngineProfile(batch=(1, 8, 8), height=(64, 128, 128), width=(64, 128, 128))
    about = make_engine_file(profiles=(*make_engine_file().profiles, many))
    assert about.profile_for(*size) == profile


@pytest.mark.parametrize(
    ("built", "compatible", "version", "runs"),
    [
        ("10.14.1", False, "10.14.1", True),
        ("10.14.1", False, "10.14.2", False),
        ("10.14.1", True, "10.14.1", True),
        ("10.9.0", True, "10.14.1", True),  # numbers, not texts, are compared
        ("10.14.1", True, "10.9.0", False),  # older
        ("10.14.1", True, "11.0.0", False),  # another major
    ],
)
def test_versions_that_run_it(built: str, compatible: bool, version: str, runs: bool) -> None:
    about = make_engine_file(
        runtime="tensorrt",
        version=built,
        build={"options": {"version_compatible": compatible}},
    )
    assert about.is_version_compatible is compatible
    assert about.runs_with(version) is runs


@pytest.mark.parametrize("build", [{}, {"options": None}, {"options": {"version_compatible": 1}}])
def test_engines_are_not_version_compatible_by_accident(build: dict[str, Any]) -> None:
    assert not make_engine_file(build=build).is_version_compatible


def test_a_plan_of_another_hash_is_refused(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", make_engine_file())
    for plan in (PLAN[:-1], PLAN + b"\0", b""):
        path.write_bytes(plan)
        with pytest.raises(ModelFormatError, match=r"as a\.engine\.json says.*build it again"):
            read_engine(path)


def test_both_files_must_be_there(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", make_engine_file())
    path.unlink()
    with pytest.raises(ModelFormatError, match=r"a\.engine: cannot be read \(No such file"):
        read_engine(path)
    path.write_bytes(PLAN)
    sidecar_path(path).unlink()
    with pytest.raises(ModelFormatError, match=r"expected a\.engine\.json beside it, found none"):
        read_engine(path)


def changed(**changes: Any) -> str:
    values = json.loads(make_engine_file().to_json())
    for key, value in changes.items():
        if value is DELETE:
            del values[key]
        else:
            values[key] = value
    return json.dumps(values)


PROFILE = {"batch": [1, 2, 4], "height": [64, 64, 64], "width": [64, 64, 64]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "expected an object with a manifest"),
        (changed(manifest=DELETE), "expected an object with a manifest"),
        (changed(manifest={"format_version": 99}), "manifest has format version 99.*upgrade cn2"),
        (changed(sha256=DELETE), "sha256: "),
        (changed(sha256="ab"), "sha256: expected 64 hexadecimal digits, got 'ab'"),
        (changed(runtime="onnx"), "runtime: .*got 'onnx'"),
        (changed(version=1), "version: .*got 1"),
        (changed(targets=[]), "expected at least one of targets and of profiles, got none"),
        (changed(profiles=[]), "expected at least one of targets and of profiles, got none"),
        (changed(profiles=[{**PROFILE, "batch": [1, 2]}]), "profiles: 0: batch: 2: "),
        (changed(profiles=[{**PROFILE, "batch": [2, 1, 4]}]), "min <= opt <= max, got 2, 1, 4"),
        (changed(profiles=[{**PROFILE, "width": [0, 1, 4]}]), "width: expected 1 <= min"),
        (changed(precision="fp16"), "precision: expected fp32, as the manifest says, got 'fp16'"),
        (changed(extra=1), "extra: unknown key, expected manifest, sha256"),
    ],
)
def test_unsound_texts_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", make_engine_file())
    sidecar_path(path).write_text(text)
    with pytest.raises(ModelFormatError, match=message) as caught:
        read_engine(path)
    assert str(caught.value).startswith(str(sidecar_path(path)))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", make_engine_file())
    sidecar_path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(ModelFormatError, match="cannot be read"):
        read_engine(path)


def test_a_precision_that_the_manifest_has_not_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="precision: expected fp16"):
        make_engine_file(manifest=make_manifest(precision="fp16"), precision="fp32")


@pytest.mark.parametrize(
    ("build", "work"),
    [
        (
            {"audit": {"multiply_adds": {"fp16": 1_932_902_400, "fp32": 9_028_608}}},
            "1.94 G multiply-adds a run of the best size: 99.5% fp16, 0.5% fp32",
        ),
        ({}, None),
        ({"audit": {"multiply_adds": {"fp16": "many"}}}, None),
    ],
)
def test_info_tells_the_audit(build: dict[str, Any], work: str | None, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", make_engine_file(build=build))
    assert engine_facts(inspect_engine(path)).get("work") == work
