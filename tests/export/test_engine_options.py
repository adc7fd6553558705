"""What `cn2 build` makes of its options: sizes, targets, the line of NVIDIA's tool."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cn2.export.engine.options import (
    BuildOptions,
    check_targets,
    parse_hardware,
    parse_runtime,
    parse_targets,
)
from cn2.export.engine.profiles import make_profile
from cn2.export.engine.tool_line import tool_line
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.engine_file import EngineProfile
from cn2.runtime.manifest import Manifest
from fake_backend import make_manifest

OFFICIAL = CanvasRule(short_edge=800, long_edge=1333, divisor=32)
FIXED = CanvasRule(short_edge=64, long_edge=96, divisor=32, fixed=(64, 96))
PROFILE = EngineProfile(batch=(1, 4, 8), height=(64, 128, 256), width=(96, 160, 288))


@pytest.mark.parametrize(
    ("manifest", "batch", "size", "profile"),
    [
        # a 3:4 photograph becomes 800 x 1067; no canvas is larger than 1333 rounded up
        (
            make_manifest(canvas=OFFICIAL),
            None,
            None,
            ((1, 1, 8), (32, 800, 1344), (32, 1088, 1344)),
        ),
        # a fixed file has one size
        (
            make_manifest(canvas=FIXED, batch=4),
            None,
            None,
            ((4, 4, 4), (64, 64, 64), (96, 96, 96)),
        ),
        (make_manifest(), "3", "64x96", ((3, 3, 3), (64, 64, 64), (96, 96, 96))),
        (
            make_manifest(),
            "1:2:16",
            "32x64:64x96:96X128",
            ((1, 2, 16), (32, 64, 96), (64, 96, 128)),
        ),
        # what is asked for may be what the file has anyway
        (
            make_manifest(canvas=FIXED, batch=4),
            "4",
            "64x96",
            ((4, 4, 4), (64, 64, 64), (96, 96, 96)),
        ),
    ],
)
def test_profiles(
    manifest: Manifest, batch: str | None, size: str | None, profile: tuple[Any, ...]
) -> None:
    made = make_profile(manifest, batch, size)
    assert (made.batch, made.height, made.width) == profile


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (100, 3000), (3000, 100), (500, 500)])
def test_the_rules_profile_takes_every_picture(shape: tuple[int, int]) -> None:
    height, width = OFFICIAL.canvas_size(OFFICIAL.resized_size(*shape))
    assert make_profile(make_manifest(canvas=OFFICIAL), None, None).takes(1, height, width)


@pytest.mark.parametrize(
    ("manifest", "batch", "size", "message"),
    [
        (make_manifest(batch=2), "1", None, "--batch 1: the file takes 2 pictures a run"),
        (make_manifest(), "0", None, "--batch: expected 1 <= MIN"),
        (make_manifest(), "4:2:8", None, "--batch: expected 1 <= MIN <= OPT <= MAX, got '4:2:8'"),
        (make_manifest(), "1:2", None, "--batch: expected N or MIN:OPT:MAX"),
        (make_manifest(), "many", None, "got 'many'"),
        (make_manifest(), None, "64", "--size: expected HxW in pixels"),
        (make_manifest(), None, "64x96:64x96", "--size: expected HxW in pixels"),
        (make_manifest(), None, "64x64:96x32:96x96", "--size: expected 1 <= MIN <= OPT"),
        (make_manifest(), None, "0x32", "--size: expected 1 <= MIN"),
        (make_manifest(), None, "64x100", "--size 64x100: expected sides in multiples of 32"),
        (make_manifest(canvas=FIXED), None, "64x64", "the file's canvas is 64x96, and no other"),
    ],
)
def test_sizes_that_cannot_be(
    manifest: Manifest, batch: str | None, size: str | None, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        make_profile(manifest, batch, size)
    assert message in str(caught.value)


def test_targets_are_read_sorted_and_once() -> None:
    assert parse_targets("sm_86") == ("sm_86",)
    assert parse_targets("sm_120, sm_75,sm_86,sm_75") == ("sm_75", "sm_86", "sm_120")
    for text in ("", "86", "sm_86;sm_89", "sm_8.6", "sm_86,"):
        with pytest.raises(ValueError, match="--target: expected compute capabilities"):
            parse_targets(text)


def test_targets_must_be_known() -> None:
    check_targets(("sm_75", "sm_86"), ("sm_75", "sm_80", "sm_86"))
    with pytest.raises(ValueError, match=r"of sm_75, sm_86, which .* got sm_87, sm_90"):
        check_targets(("sm_86", "sm_87", "sm_90"), ("sm_75", "sm_86"))


def test_names_are_read() -> None:
    assert parse_runtime("tensorrt-rtx") == "tensorrt-rtx"
    assert parse_hardware("ampere") == "ampere"
    with pytest.raises(ValueError, match="--runtime: expected tensorrt or tensorrt-rtx, got 'trt'"):
        parse_runtime("trt")
    with pytest.raises(ValueError, match="--hardware-compatible: expected same or ampere, got 'x'"):
        parse_hardware("x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt", "targets": ("sm_86",)}, "tensorrt builds for the GPU it runs on"),
        ({"runtime": "tensorrt-rtx", "version_compatible": True}, "--version-compatible: "),
        ({"runtime": "tensorrt-rtx", "hardware_compatible": "ampere"}, "with --target"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        BuildOptions(profile=PROFILE, **options)
    assert message in str(caught.value)


def line(options: BuildOptions, manifest: Manifest, **paths: Any) -> list[str]:
    places = {"onnx": Path("a b.onnx"), "engine": Path("e.engine"), "plugins": Path("/p/p.so")}
    return shlex.split(tool_line(options, manifest, **{**places, **paths}))


def test_the_line_for_tensorrt() -> None:
    options = BuildOptions(
        runtime="tensorrt", profile=PROFILE, version_compatible=True, hardware_compatible="ampere"
    )
    assert line(options, make_manifest(), timing_cache=Path("t.cache")) == [
        "trtexec",
        "--onnx=a b.onnx",
        "--saveEngine=e.engine",
        "--staticPlugins=/p/p.so",
        "--stronglyTyped",
        "--minShapes=images:1x64x96x3,image_sizes:1x2",
        "--optShapes=images:4x128x160x3,image_sizes:4x2",
        "--maxShapes=images:8x256x288x3,image_sizes:8x2",
        "--noTF32",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
        "--timingCacheFile=t.cache",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]


def test_the_line_for_tensorrt_rtx() -> None:
    options = BuildOptions(runtime="tensorrt-rtx", profile=PROFILE, targets=("sm_75", "sm_120"))
    fixed = make_manifest(canvas=FIXED, batch=1)
    assert line(replace(options, tf32=True), fixed) == [
        "tensorrt_rtx",
        "--onnx=a b.onnx",
        "--saveEngine=e.engine",
        "--staticPlugins=/p/p.so",
        "--computeCapabilities=75,120",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
