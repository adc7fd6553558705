"""`cn2 detect` as a user calls it, on a tiny ONNX file that finds two known boxes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime.manifest import FORMAT_VERSION, METADATA_KEY
from cn2.runtime.pictures import open_picture
from command_line import cn2, write_grey, write_png_of_zeros
from fake_backend import make_manifest
from fake_tensorrt import write_engine
from tiny_onnx import tiny_model, write_tiny_onnx

Capture = pytest.CaptureFixture[str]
MODEL_KEYS = {
    *("file", "preset", "precision", "backend", "device"),
    *("class_names", "category_ids", "checkpoint_sha256"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Finds the whole picture (red, 0.9) and a second box (blue, half its grey level / 255)."""
    return write_tiny_onnx(tmp_path / "tiny.onnx")


def detections_of(document: dict[str, Any]) -> list[list[str]]:
    return [[one["label"] for one in image["detections"]] for image in document["images"]]


def test_json_of_one_picture(model: Path, tmp_path: Path, capfd: Capture) -> None:
    picture = write_grey(tmp_path / "a.png", level=200, size=(64, 96))  # the canvas as it is
    ran = cn2(capfd, "detect", model, picture, "--json", tmp_path / "new" / "found.json")
    assert (ran.code, ran.errors) == (0, [])
    document = json.loads((tmp_path / "new" / "found.json").read_text())
    assert set(document) == {"model", "images", "failed"}
    assert set(document["model"]) == MODEL_KEYS
    assert document["model"]["backend"] == "onnxruntime"
    assert document["failed"] == []
    (image,) = document["images"]
    assert (image["file"], image["width"], image["height"]) == (str(picture), 96, 64)
    first, second = image["detections"]
    assert first == {"box": [0, 0, 96, 64], "score": 0.9, "class_id": 0, "label": "red"}
    assert second["box"] == [1, 2, 11, 22]
    assert second["score"] == pytest.approx(100 / 255, abs=1e-6)
    assert (second["class_id"], second["label"]) == (2, "blue")


def test_boxes_are_in_pixels_of_the_picture(model: Path, tmp_path: Path, capfd: Capture) -> None:
    picture = write_grey(tmp_path / "a.png", level=200, size=(128, 192))  # twice the canvas
    document = cn2(capfd, "detect", model, picture, "--json", "-").json()
    boxes = [one["box"] for one in document["images"][0]["detections"]]
    assert boxes == [[0, 0, 192, 128], [2, 4, 22, 44]]


def test_json_on_stdout_is_alone_there(model: Path, tmp_path: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "detect", model, write_grey(tmp_path / "a.png"), "--json", "-")
    assert len(ran.json()["images"]) == 1
    assert any(line.startswith("file") for line in ran.notes)  # the table moved to stderr


def test_table_and_its_sum(model: Path, tmp_path: Path, capfd: Capture) -> None:
    write_grey(tmp_path / "p" / "b.png", level=10)
    write_grey(tmp_path / "p" / "a.jpg", level=200)
    ran = cn2(capfd, "detect", model, tmp_path / "p")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["file", "objects", "ms"]
    assert [line.split()[:2] for line in lines[1:3]] == [
        [str(tmp_path / "p" / "a.jpg"), "2"],
        [str(tmp_path / "p" / "b.png"), "1"],  # the second box's score is 0.02
    ]
    assert lines[4].startswith("2 pictures, 3 objects, ")
    assert lines[4].endswith(" images/s")
    assert ran.notes == [f"cn2: {model}: onnxruntime on cpu"]


@pytest.mark.parametrize(
    ("score", "labels"),
    [
        ("0.95", []),
        ("0.3", ["red"]),
        ("0.05", ["red"]),  # the model's own
        ("0.02", ["red", "blue"]),  # below the model's own: lowered at run time
    ],
)
def test_score_raises_and_lowers_the_threshold(
    score: str, labels: list[str], model: Path, tmp_path: Path, capfd: Capture
) -> None:
    picture = write_grey(tmp_path / "a.png", level=20)  # the second box's score is 0.039
    document = cn2(capfd, "detect", model, picture, "--score", score, "--json", "-").json()
    assert detections_of(document) == [labels]


def test_a_score_below_the_lowest_is_an_error(model: Path, tmp_path: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "detect", model, write_grey(tmp_path / "a.png"), "--score", "0.001")
    assert ran.code == 2
    (line,) = ran.errors
    assert "expected 0.01 (the lowest of this model) to 1, got 0.001" in line


def test_batches_change_no_result(model: Path, tmp_path: Path, capfd: Capture) -> None:
    sizes = [(64, 96), (96, 64), (64, 96), (30, 50), (64, 96)]
    for index, size in enumerate(sizes):
        write_grey(tmp_path / "p" / f"{index}.png", level=40 * index, size=size)
    one, four = (
        cn2(capfd, "detect", model, tmp_path / "p", "--batch", batch, "--json", "-").json()
        for batch in (1, 4)
    )
    assert one == four
    assert [Path(image["file"]).name for image in one["images"]] == [f"{i}.png" for i in range(5)]


def test_pictures_with_boxes_keep_name_and_size(
    model: Path, tmp_path: Path, capfd: Capture
) -> None:
    write_grey(tmp_path / "p" / "a.png", size=(64, 96))
    write_grey(tmp_path / "p" / "x" / "a.png", size=(50, 40))
    write_grey(tmp_path / "p" / "c.gif")
    assert cn2(capfd, "detect", model, tmp_path / "p", "--out", tmp_path / "o").code == 0
    found = sorted(str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*.*"))
    assert found == ["a.png", "c.gif.png", "x/a.png"]
    drawn = open_picture(tmp_path / "o" / "a.png")
    assert drawn.shape == (64, 96, 3)
    assert (drawn[0] != 128).any()  # the first box's upper side
    assert open_picture(tmp_path / "o" / "x" / "a.png").shape == (50, 40, 3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("word", ["p", "p/a.png", "p/*.png"])
def test_the_folder_of_the_sources_is_refused_for_results(
    word: str, model: Path, tmp_path: Path, capfd: Capture
) -> None:
    folder = write_grey(tmp_path / "p" / "orig.png").parent
    (folder / "a.png").symlink_to("orig.png")
    write_grey(folder / "a-2.png")  # the user's own, not last time's result
    before = contents(folder)
    for _ in range(2):
        ran = cn2(capfd, "detect", model, tmp_path / word, "--out", folder)
        assert (ran.code, ran.out, ran.notes) == (2, "", [])  # the model was not even opened
        (line,) = ran.errors
        assert line.startswith(f"{folder}: expected a folder for results alone, got the one")
    assert contents(folder) == before
    assert (folder / "a.png").is_symlink()


def test_results_replace_those_of_the_last_run_and_links(
    model: Path, tmp_path: Path, capfd: Capture
) -> None:
    picture = write_grey(tmp_path / "p" / "ok.png", size=(64, 96))
    before = picture.read_bytes()
    out = tmp_path / "p" / "o"  # below the sources: not searched
    out.mkdir()
    (out / "ok.png").symlink_to(picture)
    for _ in range(3):
        ran = cn2(capfd, "detect", model, tmp_path / "p", "--out", out, "--json", "-")
        assert [image["file"] for image in ran.json()["images"]] == [str(picture)]
        assert [path.name for path in out.iterdir()] == ["ok.png"]
        assert not (out / "ok.png").is_symlink()
        assert picture.read_bytes() == before


@pytest.mark.parametrize("victim", ["a.png", "b.png", "link.json", "tiny.onnx"])
def test_json_replaces_nothing_that_is_read(
    victim: str, model: Path, tmp_path: Path, capfd: Capture
) -> None:
    for name in ("a.png", "b.png"):
        write_grey(tmp_path / name)
    (tmp_path / "link.json").symlink_to("b.png")
    before = contents(tmp_path)
    ran = cn2(capfd, "detect", model, tmp_path, "--json", tmp_path / victim)
    assert (ran.code, ran.notes) == (2, [])
    (line,) = ran.errors
    assert line.startswith(f"{tmp_path / victim}: expected a file to write, got one that is read")
    assert contents(tmp_path) == before


def test_json_says_where_the_pictures_with_boxes_are(
    model: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_grey(Path("p/a.png"))
    write_grey(Path("q/a.png"))
    write_grey(Path("p/b.gif"))
    Path("o/b.gif.png").mkdir(parents=True)  # cannot be replaced
    ran = cn2(capfd, "detect", model, "p", "q", "--out", "o", "--json", "-")
    drawn = {image["file"]: image.get("drawn") for image in ran.json()["images"]}
    assert drawn == {"p/a.png": "o/a.png", "p/b.gif": None, "q/a.png": "o/a-2.png"}
    assert [entry["file"] for entry in ran.json()["failed"]] == ["p/b.gif"]
    found = cn2(capfd, "detect", model, "p/a.png", "--json", "-").json()
    assert "drawn" not in found["images"][0]


def test_when_all_sources_fail_there_is_no_table(
    model: Path, tmp_path: Path, capfd: Capture
) -> None:
    ran = cn2(capfd, "detect", model, tmp_path / "gone.png")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.errors) == 1


def write_odd_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Legal pictures of every kind; name -> (width, height) of the upright picture."""
    folder.mkdir()
    rgb = Image.fromarray(np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3))
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("RGBA").save(folder / "rgba.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.arange(1500, dtype=np.uint16).reshape(30, 50)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    rgb.save(folder / "turned.jpg", exif=exif)
    write_grey(folder / "dot.png", size=(1, 1))
    write_grey(folder / "line.png", size=(1, 10_000))
    write_grey(folder / "pole.png", size=(10_000, 1))
    usual = dict.fromkeys(("grey.png", "rgba.png", "cmyk.jpg", "deep.png"), (50, 30))
    odd = {"turned.jpg": (30, 50), "dot.png": (1, 1)}
    return {**usual, **odd, "line.png": (10_000, 1), "pole.png": (1, 10_000)}


def test_legal_pictures_of_every_kind(model: Path, tmp_path: Path, capfd: Capture) -> None:
    sizes = write_odd_pictures(tmp_path / "p")
    ran = cn2(capfd, *("detect", model, tmp_path / "p", "--out", tmp_path / "o", "--json", "-"))
    assert (ran.code, ran.errors) == (0, [])
    found = {Path(i["file"]).name: (i["width"], i["height"]) for i in ran.json()["images"]}
    assert found == sizes
    assert {path.name for path in (tmp_path / "o").iterdir()} == set(sizes)


def write_bad_pictures(folder: Path) -> dict[str, str]:
    """One of each kind of bad picture; name -> what its line must say."""
    whole = write_grey(folder / "whole.jpg", size=(200, 300)).read_bytes()
    (folder / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "words.jpg").write_text("not an image at all")
    write_png_of_zeros(folder / "bomb.png", 30_000, 30_000)
    (folder / "whole.jpg").unlink()
    return {
        "torn.jpg": "cannot be decoded",
        "empty.jpg": "an empty file (0 bytes)",
        "words.jpg": "expected a picture",
        "bomb.png": "expected at most 100 megapixels, got 30000x30000",
    }


def test_bad_pictures_cost_a_line_each_and_nothing_else(
    model: Path, tmp_path: Path, capfd: Capture
) -> None:
    good = [write_grey(tmp_path / "p" / name) for name in ("a.png", "m.png", "z.png")]
    bad = write_bad_pictures(tmp_path / "p")
    gone = tmp_path / "gone.jpg"
    words = [tmp_path / "p", gone, tmp_path / "*.tif"]
    options = ["--batch", "4", "--out", tmp_path / "o", "--json", tmp_path / "found.json"]
    ran = cn2(capfd, "detect", model, *words, *options)
    assert ran.code == 2
    messages = {line.partition(": ")[0]: line for line in ran.errors[:-1]}
    assert len(ran.errors[:-1]) == len(bad) + 2
    for name, part in bad.items():
        assert part in messages[str(tmp_path / "p" / name)]
    assert "No such file" in messages[str(gone)]
    assert "no file matches" in messages[str(tmp_path / "*.tif")]
    assert ran.errors[-1].startswith("6 of 9 sources failed")
    assert ran.errors[-1].endswith("the results of the others are complete")
    document = json.loads((tmp_path / "found.json").read_text())
    assert [image["file"] for image in document["images"]] == [str(path) for path in good]
    assert {entry["file"] for entry in document["failed"]} == set(messages)
    assert all(entry["error"] for entry in document["failed"])
    assert {path.name for path in (tmp_path / "o").iterdir()} == {path.name for path in good}


def test_a_single_bad_picture_costs_a_single_line(
    model: Path, tmp_path: Path, capfd: Capture
) -> None:
    for name, part in write_bad_pictures(tmp_path).items():
        ran = cn2(capfd, "detect", model, tmp_path / name)
        assert (ran.code, ran.out, len(ran.errors)) == (2, "", 1)
        assert part in ran.errors[0]
    ran = cn2(capfd, "detect", model, tmp_path / "empty.jpg", tmp_path / "words.jpg")
    assert (ran.code, len(ran.errors)) == (2, 3)
    assert ran.errors[-1] == "2 of 2 sources failed, see above; none is left"


RUN_AND_WEIGH = """
import sys
from cn2.runtime.cli import run
from cn2.runtime.machine import peak_rss_mb
code = run(sys.argv[1:])
print(peak_rss_mb())
sys.exit(code)
"""


def test_an_enormous_picture_costs_no_memory(model: Path, tmp_path: Path) -> None:
    """Decoded it would take 2.7 GB; the whole process stays below 0.6."""
    bomb = write_png_of_zeros(tmp_path / "bomb.png", 30_000, 30_000)
    assert bomb.stat().st_size < 1_000_000
    command = [sys.executable, "-c", RUN_AND_WEIGH, "detect", str(model), str(bomb)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "30000x30000" in done.stderr
    assert float(done.stdout.splitlines()[-1]) < 600


def test_the_size_limit_is_an_option(model: Path, tmp_path: Path, capfd: Capture) -> None:
    picture = write_grey(tmp_path / "a.png", size=(48, 64))
    assert cn2(capfd, "detect", model, picture, "--max-pixels", "3072").code == 0
    ran = cn2(capfd, "detect", model, picture, "--max-pixels", "3071")
    assert ran.code == 2
    assert "expected at most 0.003071 megapixels, got 64x48" in ran.errors[0]
    assert "--max-pixels" in ran.errors[0]


def test_no_source_at_all_still_writes_the_json(
    model: Path, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    ran = cn2(capfd, "detect", model, tmp_path / "empty", "--json", tmp_path / "x.json")
    assert ran.code == 2
    assert "no picture in this folder" in ran.errors[0]
    document = json.loads((tmp_path / "x.json").read_text())
    assert (document["images"], len(document["failed"])) == ([], 1)


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_an_unwritable_output_is_told_before_the_work(
    option: str, model: Path, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "file").touch()
    ran = cn2(
        capfd, *("detect", model, write_grey(tmp_path / "a.png"), option, tmp_path / "file" / "o")
    )
    assert ran.code == 2
    (line,) = ran.errors
    assert "expected a folder that can be written, got none" in line
    assert ran.notes == []  # the model was not even opened


def foreign(path: Path) -> None:
    write_tiny_onnx(path, metadata={"author": "somebody else"})


def newer(path: Path) -> None:
    values = json.loads(make_manifest().to_json())
    text = json.dumps({**values, "format_version": FORMAT_VERSION + 1, "new_key": 1})
    write_tiny_onnx(path, metadata={METADATA_KEY: text})


def torn(path: Path) -> None:
    content = tiny_model(make_manifest()).SerializeToString()
    path.write_bytes(content[: len(content) // 2])


def torn_engine(path: Path) -> None:
    write_engine(path)
    path.write_bytes(b"half")


BAD_MODELS = [
    ("a.onnx", foreign, "no cn2 manifest in its metadata; was it exported with cn2 export?"),
    (
        "a.onnx",
        newer,
        f"version {FORMAT_VERSION + 1}, this cn2 reads up to {FORMAT_VERSION}; upgrade",
    ),
    ("a.onnx", torn, "expected an ONNX file"),
    ("a.onnx", lambda path: path.write_text("words"), "expected an ONNX file"),
    ("a.onnx", lambda path: path.touch(), "expected an ONNX file"),
    ("a.onnx", lambda path: None, "no such file"),
    ("a.plan", lambda path: path.touch(), "expected a model file (.onnx, .engine, .safetensors)"),
    ("a.engine", lambda path: path.touch(), "expected a.engine.json beside it, found none"),
    ("a.engine", torn_engine, "torn or mixed up, build it again"),
]


@pytest.mark.parametrize("command", ["detect", "info", "bench", "eval"])
@pytest.mark.parametrize(("name", "make", "message"), BAD_MODELS)
def test_a_bad_model_is_one_line_for_every_command(
    command: str, name: str, make: Any, message: str, tmp_path: Path, capfd: Capture
) -> None:
    model = tmp_path / name
    make(model)
    picture = write_grey(tmp_path / "p" / "a.png")
    annotations = tmp_path / "a.json"
    annotations.write_text('{"images": [], "annotations": [], "categories": []}')
    words = {
        "detect": [model, picture],
        "info": [model],
        "bench": [model, "--images", picture],
        "eval": [model, "--annotations", annotations, "--images", tmp_path],
    }
    ran = cn2(capfd, command, *words[command])
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.errors
    assert line.startswith(str(model))
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score", "7"], "Invalid value for '--score'"),
        (["--batch", "0"], "Invalid value for '--batch'"),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--backend", "trt"], "backend: expected auto, onnxruntime, native, tensorrt, torch"),
        (["--backend", "tensorrt"], "the backend tensorrt reads .engine files only"),
        (["--device", "gpu"], "device: expected auto, cpu, cuda"),
        (["--device", "cuda"], "device 'cuda'"),  # asked for by name: no silent fallback
    ],
)
def test_bad_options(
    options: list[str], message: str, model: Path, tmp_path: Path, capfd: Capture
) -> None:
    if options == ["--device", "cuda"] and Path("/proc/driver/nvidia").exists():
        pytest.skip("CUDA may work here")
    ran = cn2(capfd, "detect", model, write_grey(tmp_path / "a.png"), *options)
    assert ran.code == 2
    (line,) = ran.errors
    assert message in line


def test_threads_are_not_for_engines(tmp_path: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "detect", tmp_path / "a.engine", "a.png", "--threads", "2")
    assert ran.code == 2
    assert ran.errors == [
        "threads: expected none for a.engine, which runs on a GPU; leave --threads out"
    ]


def test_threads_are_not_for_torch(tmp_path: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "detect", tmp_path / "a.safetensors", "a.png", "--threads", "2")
    assert ran.code == 2
    assert ran.errors == [
        "threads: expected none for torch, which takes them from its environment; "
        "set OMP_NUM_THREADS=2 instead"
    ]
