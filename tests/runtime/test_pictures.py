"""Opening pictures: every kind becomes RGB, every broken file gives one line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cn2.runtime.errors import PictureError
from cn2.runtime.pictures import MAX_PIXELS, open_picture

GRADIENT = np.add.outer(np.arange(6) * 40, np.arange(5) * 10).astype(np.uint8)  # (6, 5), 0..240
COLORS = np.dstack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]])  # (6, 5, 3)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_rgb(tmp_path: Path, suffix: str) -> None:
    found = open_picture(save(tmp_path / f"a{suffix}", Image.fromarray(COLORS)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, COLORS)
    found[:] = 0  # the caller may write into it


@pytest.mark.parametrize(
    ("convert", "expected"),
    [
        # grey is repeated
        (lambda image: image.convert("L"), lambda rgb: grey_of(rgb)),
        # alpha is dropped, the colours below it stay: the picture is half transparent
        (lambda image: with_alpha(image), lambda rgb: rgb),
        (lambda image: with_alpha(image.convert("L"), "LA"), lambda rgb: grey_of(rgb)),
        # 256 colours hold all of these 30
        (lambda image: image.quantize(256), lambda rgb: rgb),
        # one bit: black and white
        (lambda image: image.convert("1", dither=0), lambda rgb: (grey_of(rgb) > 127) * 255),
    ],
    ids=["grey", "RGBA", "grey and alpha", "palette", "one bit"],
)
def test_other_modes(
    tmp_path: Path,
    convert: Callable[[Image.Image], Image.Image],
    expected: Callable[[np.ndarray], np.ndarray],
) -> None:
    found = open_picture(save(tmp_path / "a.png", convert(Image.fromarray(COLORS))))
    np.testing.assert_array_equal(found, expected(COLORS))


def with_alpha(image: Image.Image, mode: str = "RGBA") -> Image.Image:
    image = image.convert(mode)
    image.putalpha(100)
    return image


def grey_of(rgb: np.ndarray) -> np.ndarray:
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    return np.repeat(grey[:, :, None], 3, axis=2)


def test_transparent_palette_warns_of_nothing(tmp_path: Path) -> None:
    image = Image.fromarray(COLORS).quantize(64)
    path = save(tmp_path / "a.png", image, transparency=bytes(range(64)))
    assert open_picture(path).shape == (6, 5, 3)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 5, 3), level, np.uint8)) for level in (0, 255)]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert open_picture(path).max() == 0


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 511], [512, 32767, 32768, 65535]], dtype=np.uint16)
    found = open_picture(save(tmp_path / f"a{suffix}", Image.fromarray(values)))
    np.testing.assert_array_equal(found[:, :, 0], [[0, 0, 1, 1], [2, 127, 128, 255]])
    assert (found == found[:, :, :1]).all()


def test_sixteen_bit_colours(tmp_path: Path) -> None:
    import cv2

    values = COLORS.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), values[:, :, ::-1])
    np.testing.assert_array_equal(open_picture(tmp_path / "a.png"), COLORS)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cmyk = Image.fromarray(COLORS).convert("CMYK")
    found = open_picture(save(tmp_path / "a.jpg", cmyk, quality=100))
    assert np.abs(found.astype(int) - COLORS).mean() < 12  # JPEG's loss, on a tiny gradient


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = 255  # white at the top left
    undo = {  # how a camera held so stores it: the inverse of what a viewer does
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    found = open_picture(save(tmp_path / f"a{suffix}", stored, exif=exif))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() < 20


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", [0, *range(1, 10)])  # 0 and 9 mean nothing
def test_turned_jpegs_equal_pillows(tmp_path: Path, orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for size in ((7, 5), (1, 5), (7, 1), (1, 1)):
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        path = save(tmp_path / "a.jpg", Image.fromarray(noise).convert(mode), exif=exif)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        found = open_picture(path)
        np.testing.assert_array_equal(found, expected)
        assert found.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 10_000), (10_000, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_extreme_sizes(tmp_path: Path, height: int, width: int, suffix: str) -> None:
    image = Image.new("RGB", (width, height), (10, 200, 30))
    found = open_picture(save(tmp_path / f"a{suffix}", image))
    assert found.shape == (height, width, 3)
    assert np.abs(found.astype(int) - (10, 200, 30)).max() <= 2


def test_jpegs_equal_pillows(shared: Path) -> None:
    """The fast path: on 30 real pictures, some of them grey, not one grey level off."""
    paths = sorted((shared / "data/coco128/images").rglob("*.jpg"))
    images = {path: Image.open(io.BytesIO(path.read_bytes())) for path in paths}
    grey = [path for path, image in images.items() if image.mode == "L"]
    assert grey
    for path in {*paths[:29], *grey}:
        expected = np.asarray(images[path].convert("RGB"))
        np.testing.assert_array_equal(open_picture(path), expected, err_msg=path.name)


def test_jpeg_with_something_behind_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(COLORS))
    expected = open_picture(path)
    path.write_bytes(path.read_bytes() + b"\0\0more")
    np.testing.assert_array_equal(open_picture(path), expected)


def test_array_is_taken_as_it_is() -> None:
    assert open_picture(COLORS) is COLORS


@pytest.mark.parametrize(
    "array",
    [
        COLORS.astype(np.float32),
        GRADIENT,
        COLORS[None],
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "grey", "batch", "RGBA", "no rows"],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) with H, W >= 1, got .*\(") as caught:
        open_picture(array)
    assert str(array.shape) in str(caught.value)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a path or an .* array, got bytes"):
        open_picture(b"abc")  # type: ignore[arg-type]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header says so many pixels, of one bit; it holds at most the first 64 rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 64))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_enormous_picture_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(30_000, 30_000))
    monkeypatch.setattr("cn2.runtime.pictures._decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(
        PictureError, match=r"bomb.png: expected at most 100 megapixels, got 30000x"
    ):
        open_picture(path)


def test_limit_is_a_parameter(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (30, 20)))
    assert open_picture(path, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(PictureError, match=r"got 30x20 = 0.0006; raise max_pixels"):
        open_picture(path, max_pixels=599)


def test_limit_may_exceed_pillows_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (30, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_picture(path).shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert MAX_PIXELS == 100_000_000


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a picture .*, got an empty file"),
        (b"hello, this is text", "expected a picture .*, got something else"),
        (jpeg_bytes()[:200], "cannot be decoded|got something else"),
        (jpeg_bytes()[:-200], "cannot be decoded .*truncated"),
        (jpeg_bytes()[:-2], "cannot be decoded .*truncated"),
        (png_of_size(64, 64)[:-30], "cannot be decoded|truncated"),
        (png_of_size(64, 64)[:20], "got something else|cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "got something else"),
    ],
    ids=["empty", "text", "header", "torn", "no end", "torn PNG", "PNG header", "PostScript"],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=message) as caught:
        open_picture(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_half_jpeg_with_an_end_marker_is_decoded_as_pillow_does(
    progressive: bool, tmp_path: Path
) -> None:
    """Neither library tells that data are missing; see the module's docstring."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(noise), progressive=progressive)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    with Image.open(path) as image:
        np.testing.assert_array_equal(open_picture(path), np.asarray(image))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"none.jpg: cannot be read \(No such file"):
        open_picture(tmp_path / "none.jpg")
    with pytest.raises(PictureError, match=r"cannot be read \(Is a directory\)"):
        open_picture(str(tmp_path))


def test_more_than_sixteen_bits_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.tif", Image.fromarray(np.array([[0, 70_000]], np.int32)))
    with pytest.raises(PictureError, match="expected at most 16 bits a channel, got 70000"):
        open_picture(whole)
    real = save(tmp_path / "b.tif", Image.fromarray(np.array([[0.5]], np.float32)))
    with pytest.raises(PictureError, match="got floating point"):
        open_picture(real)
