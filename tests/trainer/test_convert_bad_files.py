"""`cn2 convert` on torn, foreign and malicious files: one line, nothing run, nothing left."""

from __future__ import annotations

import io
import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import save_checkpoint
from command_line import Ran, cn2
from factories import tiny_config
from pickle_gadgets import FAMILIES, LIVE, runs_in_python, whole_pickle

Capture = pytest.CaptureFixture[str]
LIMIT_S = 5.0  # for each file, asked for by the issue


def refused(capfd: Capture, path: Path, *options: object) -> str:
    """The one line that a conversion ends in; nothing is left beside the input."""
    before = sorted(path.parent.iterdir())
    start = time.process_time()
    ran = cn2(capfd, "convert", path, "-o", path.parent / "out.safetensors", *options)
    assert time.process_time() - start < LIMIT_S
    assert sorted(path.parent.iterdir()) == before
    return error_of(ran)


def error_of(ran: Ran) -> str:
    assert ran.code == 2, ran
    assert ran.out == ""
    assert len(ran.errors) == 1
    assert ran.notes == []
    return ran.errors[0]


def archive(path: Path, entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    """A zip as torch.save makes it, of these entries."""
    with zipfile.ZipFile(path, "w", how) as file:
        for name, data in entries.items():
            file.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gadget_runs_nothing(family: str, tmp_path: Path, capfd: Capture) -> None:
    canary = tmp_path / "canary"
    content = whole_pickle(family, canary)
    folder = tmp_path / "files"
    folder.mkdir()
    plain = folder / "model.pkl"
    plain.write_bytes(content)
    parts = {"data.pkl": content, "byteorder": b"little", "version": b"3\n", "data/0": b"0" * 64}
    zipped = archive(folder / "model.pth", parts)
    legacy = folder / "legacy.pth"  # torch.save before 1.6: magic number, protocol, system, data
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = (0x1950A86A20F9469CFC6C, 1001, system)
    legacy.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in head) + content)
    for path in (plain, zipped, legacy):
        assert refused(capfd, path).startswith(f"{path}: ")
        assert not canary.exists()


@pytest.mark.parametrize("family", LIVE)
def test_the_gadgets_are_live(family: str, tmp_path: Path) -> None:
    assert runs_in_python(family, tmp_path / "canary")


def test_the_error_names_what_was_asked_for(tmp_path: Path, capfd: Capture) -> None:
    content = whole_pickle("os.system", tmp_path / "canary")
    plain = tmp_path / "model.pkl"
    plain.write_bytes(content)
    zipped = archive(tmp_path / "model.pth", {"data.pkl": content, "version": b"3\n"})
    for path in (plain, zipped):
        line = refused(capfd, path)
        assert "refused, as it asks for 'os.system'" in line
        assert "nothing in it was run" in line


def test_a_whole_yolo_model_is_recognised(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "yolov5s.pt"
    content = b"\x80\x02}X\x05\x00\x00\x00modelcmodels.yolo\nModel\n)\x81s."
    archive(path, {"data.pkl": content, "version": b"3\n"})
    assert "this is not CenterNet2: it looks like a whole YOLO model" in refused(capfd, path)


WEIGHTS = {"model": {f"layer{k}.weight": torch.full((4, k), 0.5) for k in range(1, 12)}}


def saved(path: Path) -> Path:
    """A small whole file of the kind that the name says."""
    if path.suffix == ".pkl":
        arrays = {name: value.numpy() for name, value in WEIGHTS["model"].items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "nobody"}))
    elif path.suffix == ".safetensors":
        save_checkpoint(
            path, build_detector(tiny_config()), tiny_config(), license="", provenance=""
        )
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=path.stem != "legacy")
    return path


@pytest.mark.parametrize("name", ["model.pth", "legacy.pth", "model.pkl"])
def test_truncated_at_fifty_places(name: str, tmp_path: Path, capfd: Capture) -> None:
    path = saved(tmp_path / name)
    assert "this is not CenterNet2" in refused(capfd, path)  # it is read while it is whole
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:place])
        line = refused(capfd, path)
        assert line.startswith(f"{path}: expected "), (place, line)


def test_our_checkpoint_truncated_at_fifty_places(tmp_path: Path, capfd: Capture) -> None:
    path = saved(tmp_path / "ours.safetensors")
    assert "is a checkpoint of cn2 already" in refused(capfd, path)
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:place])
        for command in (("info", path), ("convert", path, "-o", tmp_path / "out.safetensors")):
            assert error_of(cn2(capfd, *command)).startswith(f"{path}: "), place
    assert list(tmp_path.iterdir()) == [path]


def safetensors_bytes(header: object, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        # 100,000 tensors of a megabyte each, and no data
        safetensors_bytes(
            {
                f"t{k}": {
                    "dtype": "F32",
                    "shape": [1 << 18],
                    "data_offsets": [k << 20, k + 1 << 20],
                }
                for k in range(100_000)
            }
        ),
        safetensors_bytes({}, length=1 << 62),  # a header of exabytes
        safetensors_bytes({"t": {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 4]}}),
        safetensors_bytes([]),
    ],
)
def test_safetensors_headers_that_lie(content: bytes, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "expected a safetensors file" in refused(capfd, path)
    assert "expected a safetensors file" in error_of(cn2(capfd, "info", path))


def pickle_of(*opcodes: bytes) -> bytes:
    return b"\x80\x04" + b"".join(opcodes) + b"."


@pytest.mark.parametrize(
    "content",
    [
        pickle_of(b"B" + (1 << 31).to_bytes(4, "little")),  # claims 2 GB of bytes
        pickle_of(b"\x8e" + (1 << 60).to_bytes(8, "little")),  # and an exabyte
        pickle_of(b"\x96" + (1 << 60).to_bytes(8, "little")),  # of a bytearray
        pickle_of(b"\x95" + (1 << 60).to_bytes(8, "little")),  # of a frame
        pickle_of(b"N" + b"r" + (0xFFFFFFF0).to_bytes(4, "little")),  # a memo of four billion
        pickle_of(b"(" * 100_000),
        pickle_of(b"]" * 100_000),
        pickle_of(b"N"),
        pickle_of(b"I1\n"),
        b"\x80\xff",
        b"\x80\x04" + bytes(range(256)),
        b"not a pickle at all",
        b"\x00" * 1000,
    ],
)
def test_pickles_that_lie(content: bytes, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    refused(capfd, path)


def test_a_text_is_not_a_pickle(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "model.pth"
    path.write_text("not weights but a letter\n")
    assert "got a file that is not a pickle" in refused(capfd, path)


def array_pickle(shape: tuple[int, ...], data: bytes, code: str = "f4") -> bytes:
    """A pickle of {"model": {"w": array}} as numpy makes it, whatever the parts."""

    class Forged:
        def __reduce__(self) -> tuple[object, ...]:
            make = np.zeros(1).__reduce__()[0]
            return make, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(code), False, data)

    return pickle.dumps({"model": {"w": Forged()}})


@pytest.mark.parametrize(
    ("shape", "data"),
    [((1 << 40,), b"1234"), ((-1, -4), b"1" * 16), ((3,), b"1234"), ((1,), b"12345678")],
)
def test_arrays_whose_data_do_not_fill_their_shape(
    shape: tuple[int, ...], data: bytes, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(array_pickle(shape, data))
    assert f"w: expected data of shape {shape}, got {len(data)} bytes" in refused(capfd, path)


def test_archives_that_are_bombs(tmp_path: Path, capfd: Capture) -> None:
    zeros = bytes(200_000_000)
    packed = archive(
        tmp_path / "packed.pth",
        {"data.pkl": pickle_of(b"}"), "data/0": zeros},
        zipfile.ZIP_DEFLATED,
    )
    assert packed.stat().st_size < 1_000_000
    assert "got a packed one" in refused(capfd, packed)
    overlapping = tmp_path / "overlapping.pth"
    with zipfile.ZipFile(overlapping, "w") as file:
        file.writestr("archive/data.pkl", pickle_of(b"}"))
        file.writestr("archive/data/0", bytes(1000))
        file.filelist += [file.filelist[-1]] * 1_000  # all of them the same bytes
    assert "got overlapping parts" in refused(capfd, overlapping)
    structure = archive(tmp_path / "structure.pth", {"data.pkl": bytes(40_000_000)})
    assert "expected at most 32000000 bytes beside the tensors" in refused(capfd, structure)


def test_archives_of_another_kind(tmp_path: Path, capfd: Capture) -> None:
    path = archive(tmp_path / "photos.pth", {"photo.jpg": b"1"})
    assert "expected an archive by torch.save, got another one" in refused(capfd, path)
    path = archive(tmp_path / "script.pt", {"data.pkl": b"1", "code/__torch__.py": b"1"})
    assert "got a TorchScript program" in refused(capfd, path)


def test_a_tensor_larger_than_its_storage(tmp_path: Path, capfd: Capture) -> None:
    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.zeros(3, 7)}}, buffer)
    with zipfile.ZipFile(buffer) as file:
        parts = {n.partition("/")[2]: file.read(n) for n in file.namelist()}
    sides = b"K\x03K\x07\x86"
    assert parts["data.pkl"].count(sides) == 1
    parts["data.pkl"] = parts["data.pkl"].replace(sides, b"J\xff\xff\xff\x7fK\x07\x86")
    path = archive(tmp_path / "model.pth", parts)
    assert "cannot read it (RuntimeError" in refused(capfd, path)


def test_paths_that_cannot_be(tmp_path: Path, capfd: Capture) -> None:
    def line(source: Path, out: Path) -> str:
        return error_of(cn2(capfd, "convert", source, "-o", out))

    good, out = saved(tmp_path / "model.pth"), tmp_path / "out.safetensors"
    empty = tmp_path / "empty.pth"
    empty.touch()
    assert "got an empty file" in line(empty, out)
    assert "got a folder" in line(tmp_path, out)
    assert "no such file" in line(tmp_path / "none.pth", out)
    assert "ends in .safetensors" in line(good, tmp_path / "out.onnx")
    assert "ends in .safetensors" in line(good, good)
    ours = saved(tmp_path / "same.safetensors")
    before = ours.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(ours)
    assert "got one that is read" in line(ours, ours)
    assert "got one that is read" in line(ours, link)
    assert ours.read_bytes() == before
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert "got a folder" in line(good, folder)
    assert "cannot be written" in line(good, good / "out.safetensors")  # its folder is a file


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, capfd: Capture) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    good = saved(tmp_path / "model.pth")
    ran = cn2(capfd, "convert", good, "-o", locked / "out.safetensors")
    assert "cannot be written" in error_of(ran)


MANY = 100_000


@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model.safetensors"])
def test_very_many_tensors(name: str, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / name
    names = [f"proposal_generator.centernet_head.bbox_tower.{k}.weight" for k in range(MANY)]
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({key: np.ones(2, np.float32) for key in names}))
    elif path.suffix == ".pth":
        torch.save({key: torch.ones(2) for key in names}, path)
    else:
        save_file({key: torch.ones(2) for key in names}, path)
        for command in (("info", path), ("export", path, "-o", tmp_path / "out.onnx")):
            start = time.process_time()
            assert "found no cn2.config" in error_of(cn2(capfd, *command))
            assert time.process_time() - start < LIMIT_S
    got = "more" if path.suffix == ".pkl" else MANY  # a pickle is read no further
    assert f"expected at most 5000 tensors, got {got}" in refused(capfd, path)


def test_many_tensors_of_the_older_form(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "model.pth"
    values = {f"t{k}": torch.ones(1) for k in range(10_001)}
    torch.save(values, path, _use_new_zipfile_serialization=False)
    assert "expected at most 5000 tensors, got more" in refused(capfd, path)
