"""Every way to go wrong through the C interface: a status, a text of one line, nothing changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from c_library import (
    INFERENCE_ERROR,
    INVALID_ARGUMENT,
    MODEL_ERROR,
    OK,
    OUT_OF_MEMORY,
    UNAVAILABLE,
    Failed,
    Library,
    Model,
    image,
    open_status,
    refused,
)
from cn2.runtime.backends.libcn2 import (
    Detection,
    LogCallback,
    ModelInfo,
    RawDetections,
    Timings,
)
from cn2.runtime.backends.onnx_header import read_metadata
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.manifest import METADATA_KEY, Manifest
from fake_backend import make_manifest
from tiny_onnx import write_tiny_onnx

GREY = np.full((64, 96, 3), 204, np.uint8)


def test_constants_and_names(library: Library) -> None:
    assert library.abi_version() == 1
    assert library.version().decode().count(".") == 2
    names = [library.status_name(status).decode() for status in range(-1, 8)]
    assert names[0] == names[-1] == "unknown status"
    assert len(set(names)) == 8
    assert names[2] == "invalid argument"


def test_null_pointers(library: Library, tiny: Model, tiny_path: Path) -> None:
    handle = c_void_p()
    path = str(tiny_path).encode()
    info, timings = ModelInfo(), Timings()
    raw, counts = RawDetections(), (c_size_t * 1)()
    picture, found, sizes = image(GREY), (Detection * 5)(), np.array([[64, 96]], np.int32)
    canvas, at_sizes = GREY.ctypes.data, sizes.ctypes.data
    context = tiny.context
    for name, function, arguments in (
        ("path", library.model_open, (None, None, byref(handle))),
        ("model", library.model_open, (path, None, None)),
        ("model", library.model_get_info, (None, byref(info))),
        ("info", library.model_get_info, (tiny.handle, None)),
        ("model", library.context_create, (None, byref(handle))),
        ("context", library.context_create, (tiny.handle, None)),
        ("context", library.context_get_timings, (None, byref(timings))),
        ("timings", library.context_get_timings, (context, None)),
        ("context", library.detect, (None, byref(picture), 1, None, found, 5, counts)),
        ("images", library.detect, (context, None, 1, None, found, 5, counts)),
        ("detections", library.detect, (context, byref(picture), 1, None, None, 5, counts)),
        ("counts", library.detect, (context, byref(picture), 1, None, found, 5, None)),
        ("context", library.infer, (None, canvas, 1, 64, 96, at_sizes, None, byref(raw))),
        ("canvases", library.infer, (context, None, 1, 64, 96, at_sizes, None, byref(raw))),
        ("picture_sizes", library.infer, (context, canvas, 1, 64, 96, None, None, byref(raw))),
        ("raw", library.infer, (context, canvas, 1, 64, 96, at_sizes, None, None)),
    ):
        refused(library, function(*arguments), INVALID_ARGUMENT, f"{name}: expected")
    assert library.model_manifest(None) is library.model_runtime(None) is None
    assert library.model_class_name(None, 0) is None
    assert library.model_category_id(None, 0) == -1
    library.model_close(None)
    library.context_destroy(None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": -1}, "threads"),
        ({"threads": 1025}, "threads"),
        ({"device": b"gpu"}, "device"),
        ({"device": b"cuda:"}, "device"),
        ({"device": b"cuda:-1"}, "device"),
        ({"device": b"cuda:1x"}, "device"),
        ({"device": b"cuda:99999999999"}, "device"),
        ({"device": b""}, "device"),
    ],
)
def test_bad_options(library: Library, tiny_path: Path, options: dict[str, Any], said: str) -> None:
    refused(library, open_status(library, tiny_path, **options), INVALID_ARGUMENT, said)


def test_cuda_that_is_not_there_is_no_cpu(
    library: Library, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    for device in (b"cuda", b"cuda:1"):
        status = open_status(library, tiny_path, device=device, runtime_path=onnxruntime_path)
        refused(library, status, UNAVAILABLE, "cannot use CUDA")


def test_a_missing_runtime_names_all_places(
    library: Library, tiny_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "libonnxruntime.so"
    status = open_status(library, tiny_path, runtime_path=str(missing).encode())
    refused(library, status, UNAVAILABLE, str(missing))
    missing.write_text("no library")
    status = open_status(library, tiny_path, runtime_path=str(missing).encode())
    refused(library, status, UNAVAILABLE, str(missing))
    monkeypatch.setenv("CN2_ONNXRUNTIME", "/nowhere/libonnxruntime.so")
    code = "import ctypes, sys; sys.path.insert(0, 'tests'); from c_library import Library\n"
    code += "from pathlib import Path; lib = Library(Path(sys.argv[1]))\n"
    code += "print(lib.model_open(sys.argv[2].encode(), None, ctypes.byref(ctypes.c_void_p())))\n"
    code += "print(lib.last_error().decode())"
    said = run_python(code, library.path, tiny_path)
    assert said.startswith(f"{UNAVAILABLE}\n")
    assert "/nowhere/libonnxruntime.so" in said
    monkeypatch.delenv("CN2_ONNXRUNTIME")
    said = run_python(code, library.path, tiny_path)
    assert said.startswith((f"{UNAVAILABLE}\n", f"{OK}\n"))  # a system may have one
    if said.startswith(f"{UNAVAILABLE}"):
        assert "onnxruntime/capi/libonnxruntime.so.*, libonnxruntime.so.1, " in said


OPEN_WITHOUT_A_NAME = """
import ctypes, sys
sys.path.insert(0, "tests")
from pathlib import Path
from c_library import Library
if len(sys.argv) > 3:
    ctypes.CDLL(sys.argv[3])
Library(Path(sys.argv[1])).open(Path(sys.argv[2]), threads=1).close()
print("opened")
"""


def test_the_runtime_of_the_package_beside_it(
    library: Library,
    tiny_path: Path,
    tmp_path: Path,
    onnxruntime_path: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where site-packages holds both: cn2/plugins/lib and onnxruntime/capi."""
    monkeypatch.delenv("CN2_ONNXRUNTIME", raising=False)
    runtime = Path(onnxruntime_path.decode())
    copy = tmp_path / "site" / "cn2" / "plugins" / "lib" / "libcn2.so"
    beside = tmp_path / "site" / "onnxruntime" / "capi" / runtime.name
    for path in (copy, beside):
        path.parent.mkdir(parents=True)
    shutil.copy(library.path, copy)
    beside.symlink_to(runtime)
    assert run_python(OPEN_WITHOUT_A_NAME, copy, tiny_path) == "opened\n"


def test_the_runtime_that_the_process_has_loaded(
    library: Library, tiny_path: Path, onnxruntime_path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CN2_ONNXRUNTIME", raising=False)
    runtime = onnxruntime_path.decode()
    assert run_python(OPEN_WITHOUT_A_NAME, library.path, tiny_path, runtime) == "opened\n"


def run_python(code: str, *arguments: Any) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_library_that_is_not_onnxruntime(library: Library, tiny_path: Path) -> None:
    status = open_status(library, tiny_path, runtime_path=b"libm.so.6")
    refused(library, status, UNAVAILABLE, "no OrtGetApiBase")


def test_files_that_are_no_models(library: Library, tmp_path: Path, tiny_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("hello")
    tiny_path.rename(tmp_path / "model.safetensors")
    for name, said in (
        ("absent.onnx", "no such file"),
        ("model.safetensors", "expected a model file (.onnx, .engine), got '.safetensors'"),
        ("folder", "got 'none'"),
        ("folder.onnx", "expected a file"),
        ("pipe.onnx", "expected a file"),
        ("empty.onnx", "no graph in it"),
        ("text.onnx", "expected an ONNX file"),
    ):
        refused(library, open_status(library, tmp_path / name), MODEL_ERROR, said)


def test_a_truncated_model_is_refused_wherever_it_ends(library: Library, tiny_path: Path) -> None:
    """Before ONNX Runtime sees it: no runtime is given here."""
    content = tiny_path.read_bytes()
    for end in [*range(0, len(content) - 1, 97), len(content) - 1]:
        tiny_path.write_bytes(content[:end])
        refused(library, open_status(library, tiny_path), MODEL_ERROR, "tiny.onnx: ")


def test_damaged_bytes_are_refused_or_run_but_never_crash(
    library: Library, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    """As the Python reader, file by file."""
    content, rng = tiny_path.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 1):
            damaged[place] ^= 1 << int(rng.integers(0, 8))
        tiny_path.write_bytes(damaged)
        try:
            Manifest.from_json(read_metadata(tiny_path)[METADATA_KEY])
            python_reads = True
        except (ModelFormatError, KeyError):
            python_reads = False
        status = open_status(library, tiny_path, threads=1, runtime_path=onnxruntime_path)
        assert status in (OK, MODEL_ERROR)
        assert python_reads or status == MODEL_ERROR
        outcomes.add((python_reads, status))
    assert len(outcomes) == 3


def test_weights_in_other_files_are_refused(library: Library, tiny_path: Path) -> None:
    model = onnx.load(tiny_path)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tiny_path.write_bytes(model.SerializeToString())
    refused(library, open_status(library, tiny_path), MODEL_ERROR, "weights in other files")


def test_graphs_that_break_the_contract(
    library: Library, tmp_path: Path, onnxruntime_path: bytes
) -> None:
    manifest = make_manifest()
    for changes, said in (
        ({"batch": 4}, "expected images of shape (4, any, any, 3) by its manifest, got (any"),
        ({}, "expected the outputs num_detections"),
    ):
        path = write_tiny_onnx(tmp_path / "m.onnx", manifest)
        model = onnx.load(path)
        if changes:
            other = make_manifest(**changes).metadata()
            del model.metadata_props[:]
            onnx.helper.set_model_props(model, other)
        else:
            del model.graph.output[3]
        path.write_bytes(model.SerializeToString())
        status = open_status(library, path, runtime_path=onnxruntime_path)
        refused(library, status, MODEL_ERROR, said)


def test_a_graph_that_fails_while_it_runs(
    library: Library, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    """It gathers a column that is not there; the context is good for more calls."""
    model = onnx.load(tiny_path)
    columns = next(one for one in model.graph.initializer if one.name == "height_width")
    columns.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 9], np.int64), columns.name))
    tiny_path.write_bytes(model.SerializeToString())
    opened = library.open(tiny_path, threads=1, runtime_path=onnxruntime_path)
    for _ in range(2):
        with pytest.raises(Failed, match="ONNX Runtime failed on images of") as caught:
            opened.detect([image(GREY)])
        assert caught.value.status == INFERENCE_ERROR
        assert "\n" not in str(caught.value)
    opened.close()


def test_onnxruntime_without_memory(
    library: Library, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    """The graph wants 150 MB for a canvas, in a process that may take 60 more."""
    code = "import ctypes, resource, sys; sys.path.insert(0, 'tests'); from c_library import *\n"
    code += "from cn2.runtime.backends.libcn2 import *\n"
    code += "import numpy as np; from pathlib import Path; lib = Library(Path(sys.argv[1]))\n"
    code += "model = lib.open(Path(sys.argv[2]), threads=1, runtime_path=sys.argv[3].encode())\n"
    code += "canvas = np.zeros((3200, 3200, 3), np.uint8); sizes = np.full((1, 2), 9, np.int32)\n"
    code += "held = int(open('/proc/self/statm').read().split()[0]) * 4096 + 60_000_000\n"
    code += "resource.setrlimit(resource.RLIMIT_AS, (held, held))\n"
    code += "raw = RawDetections()\n"
    code += "print(lib.infer(model.context, canvas.ctypes.data, 1, 3200, 3200, sizes.ctypes.data,"
    code += " None, ctypes.byref(raw)), lib.last_error().decode())"
    said = run_python(code, library.path, tiny_path, onnxruntime_path.decode())
    assert said.startswith(f"{OUT_OF_MEMORY} {tiny_path}: ONNX Runtime failed"), said


@pytest.mark.parametrize("threshold", [0.001, 1.5, float("inf"), float("nan")])
def test_thresholds_that_no_call_can_have(tiny: Model, threshold: float) -> None:
    with pytest.raises(Failed, match="score_threshold") as caught:
        tiny.detect([image(GREY)], threshold)
    assert caught.value.status == INVALID_ARGUMENT


def test_the_lowest_threshold_can_be_asked_for(tiny: Model) -> None:
    """It is a float in C, and 0.01 is a little less as a double."""
    assert len(tiny.detect([image(GREY)], tiny.info().lowest_score_threshold)[0].scores) == 2


def test_bad_pictures_are_named(tiny: Model) -> None:
    broken = image(GREY)
    broken.pitch = 287
    with pytest.raises(Failed, match=r"images\[2\]: expected a pitch of 0 or at least the 288"):
        tiny.detect([image(GREY), image(GREY), broken])
    with pytest.raises(Failed, match="capacity"):
        tiny.library.check(
            tiny.library.detect(
                *(tiny.context, byref(image(GREY)), 1, None, (Detection * 1)()),
                *(2**62, (c_size_t * 1)()),
            )
        )


def test_the_log_goes_to_the_callback(
    library: Library, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    lines: list[tuple[int, str]] = []
    callback = LogCallback(lambda _, level, message: lines.append((level, message.decode())))
    try:
        assert library.set_log(callback, None, 1) == OK
        library.open(tiny_path, threads=1, runtime_path=onnxruntime_path).close()
        assert [level for level, _ in lines] == [1]
        assert lines[0][1].startswith(f"{tiny_path}: onnxruntime 1.")
        assert library.set_log(callback, None, 3) == OK
        library.open(tiny_path, threads=1, runtime_path=onnxruntime_path).close()
        assert len(lines) == 1
        for level in (-1, 4):
            status = library.set_log(callback, None, level)
            refused(library, status, INVALID_ARGUMENT, "lowest_level")
    finally:
        assert library.set_log(None, None, 0) == OK
    library.open(tiny_path, threads=1, runtime_path=onnxruntime_path).close()
    assert len(lines) == 1


def test_lines_are_lines_of_utf8(
    library: Library, tmp_path: Path, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    lines: list[bytes] = []
    callback = LogCallback(lambda _, level, message: lines.append(message))
    odd = tmp_path / "a\nb.onnx"
    odd.write_bytes(tiny_path.read_bytes())
    try:
        assert library.set_log(callback, None, 1) == OK
        library.open(odd, threads=1, runtime_path=onnxruntime_path).close()
    finally:
        assert library.set_log(None, None, 0) == OK
    assert lines[0].startswith(bytes(tmp_path) + b"/a b.onnx: onnxruntime 1.")
    status = open_status(library, b"/no/\xff\xc3\xa9\t\xe2\x82.onnx")
    refused(library, status, MODEL_ERROR, "/no/?\u00e9 ??.onnx: ")
    long = "\u00e9" * 3000
    assert open_status(library, long.encode() + b".onnx") == MODEL_ERROR
    assert library.last_error() == ("\u00e9" * 511).encode()  # of 1024 bytes, in whole letters


def test_numbers_that_no_memory_holds(tiny: Model) -> None:
    library, counts, found = tiny.library, (c_size_t * 1)(), (Detection * 1)()
    for images, capacity, said in (
        (2**64 - 1, 1, "capacity"),
        (2**64 - 1, 0, "image_count"),
        (2**62, 0, "image_count"),
        (1, 2**63, "capacity"),
    ):
        status = library.detect(
            tiny.context, byref(image(GREY)), images, None, found, capacity, counts
        )
        refused(library, status, INVALID_ARGUMENT, f"{said}: expected what memory can hold")


def test_each_thread_has_its_own_last_error(library: Library) -> None:
    code = "import sys, threading; sys.path.insert(0, 'tests'); from c_library import Library\n"
    code += "from pathlib import Path; lib = Library(Path(sys.argv[1])); said = []\n"
    code += "lib.set_log(None, None, 9)\n"
    code += (
        "t = threading.Thread(target=lambda: said.append(lib.last_error())); t.start(); t.join()"
    )
    code += "\nprint(said, lib.last_error()[:12])"
    assert run_python(code, library.path) == "[b''] b'lowest_level'\n"


def test_a_picture_that_memory_cannot_hold(library: Library) -> None:
    """In a process of limited memory, from the resize's own buffers on."""
    code = "import ctypes, resource, sys; sys.path.insert(0, 'tests')\n"
    code += "import numpy as np; from c_library import *; from pathlib import Path\n"
    code += (
        "lib = Library(Path(sys.argv[1])); given = image(np.zeros((2000, 65000), np.uint8), 4)\n"
    )
    code += "rows = np.zeros((2, 60000 * 3), np.uint8); held = int(open('/proc/self/statm')"
    code += ".read().split()[0]) * 4096\n"
    code += "resource.setrlimit(resource.RLIMIT_AS, (held + 2**20, held + 2**20))\n"
    code += "for kind in (0, 1):\n"
    code += "  print(lib.resize(ctypes.byref(given), kind, rows.ctypes.data, 60000, 2, 0),"
    code += " lib.last_error().decode())"
    lines = run_python(code, library.path).splitlines()
    assert lines[0] == f"{OUT_OF_MEMORY} out of memory"
