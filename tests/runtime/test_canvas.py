"""The canvas rule: official sizes, rounding, extreme pictures, fixed canvases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cn2.runtime.canvas import CanvasRule

SQUARE = CanvasRule(short_edge=1560, long_edge=1560, divisor=128, rounding="down")
OFFICIAL = CanvasRule(short_edge=512, long_edge=736, divisor=128)


@pytest.mark.parametrize(
    ("picture", "resized", "canvas"),
    [
        ((480, 640), (512, 683), (512, 768)),  # the conformance page's example
        ((640, 480), (683, 512), (768, 512)),  # portrait
        ((500, 500), (512, 512), (512, 512)),  # square
        ((427, 640), (491, 736), (512, 768)),  # the long edge binds
        ((1, 1), (512, 512), (512, 512)),
        ((1, 10_000), (1, 736), (128, 768)),  # officially 0 x 736
        ((10_000, 1), (736, 1), (768, 128)),
        ((512, 736), (512, 736), (512, 768)),  # nothing to resize
    ],
)
def test_official_sizes(
    picture: tuple[int, int], resized: tuple[int, int], canvas: tuple[int, int]
) -> None:
    assert OFFICIAL.resized_size(*picture) == resized
    assert OFFICIAL.canvas_size(resized) == canvas


def test_sizes_of_all_conformance_fixtures(shared: Path) -> None:
    seen = 0
    for path in sorted((shared / "conformance").glob("*.json")):
        values = json.loads(path.read_text()).get("input")
        if values is None or values["test_input_type"] != "default":
            continue
        rule = CanvasRule(
            short_edge=values["min_size_test"],
            long_edge=values["max_size_test"],
            divisor=values["size_divisibility"],
        )
        resized = rule.resized_size(values["height"], values["width"])
        assert list(resized) == values["resized_hw"], path.name
        assert list(rule.canvas_size(resized)) == values["padded_hw"], path.name
        seen += 1
    assert seen >= 7


@pytest.mark.parametrize(
    ("picture", "resized"),
    [
        ((480, 640), (1170, 1560)),
        ((427, 640), (1040, 1560)),  # 1040.8
        ((640, 427), (1560, 1040)),
        ((500, 500), (1560, 1560)),
        ((3000, 2000), (1560, 1040)),  # shrunk
        ((2, 6001), (1, 1560)),  # officially 0 x 1560
        ((49, 49), (1560, 1560)),
        ((572, 400), (1559, 1090)),  # 572 * (1560 / 572) is less than 1560 in floating point
    ],
)
def test_square_sizes_rounded_down(picture: tuple[int, int], resized: tuple[int, int]) -> None:
    assert SQUARE.resized_size(*picture) == resized


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_square_rule_is_the_official_arithmetic(height: int, width: int) -> None:
    scale = min(1560 / height, 1560 / width)
    expected = max(int(height * scale), 1), max(int(width * scale), 1)
    assert SQUARE.resized_size(height, width) == expected
    canvas = SQUARE.canvas_size(expected)
    assert all(0 <= limit - side < 128 for side, limit in zip(expected, canvas, strict=True))


def test_rounding_down_on_a_fixed_canvas() -> None:
    rule = CanvasRule(short_edge=512, long_edge=736, divisor=32, fixed=(480, 640), rounding="down")
    assert rule.resized_size(427, 640) == (427, 640)
    assert rule.resized_size(999, 1001) == (480, 480)  # 480.96
    assert replace(rule, rounding="nearest").resized_size(999, 1001) == (480, 481)


@pytest.mark.parametrize(
    ("picture", "resized"),
    [
        ((480, 640), (480, 640)),  # shrunk or grown to fit: here neither
        ((240, 320), (480, 640)),
        ((960, 1280), (480, 640)),
        ((640, 480), (480, 360)),  # portrait pictures shrink
        ((1, 10_000), (1, 640)),
        ((333, 1000), (213, 640)),  # 213.12
    ],
)
def test_fixed_canvas(picture: tuple[int, int], resized: tuple[int, int]) -> None:
    rule = CanvasRule(short_edge=512, long_edge=736, divisor=32, fixed=(480, 640))
    assert rule.resized_size(*picture) == resized
    assert rule.canvas_size(resized) == (480, 640)


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from([None, (320, 448), (448, 320), (32, 1024)]),
)
def test_picture_always_fits_the_canvas(
    height: int, width: int, fixed: tuple[int, int] | None
) -> None:
    rule = CanvasRule(short_edge=320, long_edge=512, divisor=32, fixed=fixed)
    resized = rule.resized_size(height, width)
    canvas = rule.canvas_size(resized)
    assert all(1 <= side <= limit for side, limit in zip(resized, canvas, strict=True))
    assert all(limit % 32 == 0 for limit in canvas)
    if fixed is None:
        assert all(limit - side < 32 for side, limit in zip(resized, canvas, strict=True))
        assert max(resized) <= 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_edge": 0}, "1 <= short_edge"),
        ({"short_edge": 800}, "got 800, 736, 128"),
        ({"divisor": 0}, "divisor >= 1"),
        ({"interpolation": "cubic"}, "expected antialias or linear, got 'cubic'"),
        ({"rounding": "up"}, "expected nearest or down, got 'up'"),
        ({"fixed": (512, 700)}, r"multiples of 128, got \(512, 700\)"),
        ({"fixed": (0, 512)}, "multiples of 128"),
    ],
)
def test_impossible_rules(changes: dict[str, object], message: str) -> None:
    values = {"short_edge": 512, "long_edge": 736, "divisor": 128, **changes}
    with pytest.raises(ValueError, match=message):
        CanvasRule(**values)


def test_picture_without_pixels() -> None:
    with pytest.raises(ValueError, match="expected at least 1x1, got 0x5"):
        OFFICIAL.resized_size(0, 5)
