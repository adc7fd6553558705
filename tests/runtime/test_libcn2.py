"""ctypes against the header: every struct, field, function and number; loading, and what fails."""

from __future__ import annotations

import ctypes
import re
import subprocess
from ctypes import c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import pytest

from cn2.runtime.backends import libcn2
from cn2.runtime.errors import BackendUnavailableError, PluginError
from native_libraries import INCLUDE, compile_c, fake_library

# Comments are left out; what is left is plain C.
HEADER = re.sub(r"/\*.*?\*/", "", (INCLUDE / "cn2.h").read_text(encoding="utf-8"), flags=re.DOTALL)
STRUCTS: dict[str, type[ctypes.Structure]] = {
    "cn2_model_options": libcn2.ModelOptions,
    "cn2_model_info": libcn2.ModelInfo,
    "cn2_image": libcn2.Image,
    "cn2_detection": libcn2.Detection,
    "cn2_detect_options": libcn2.DetectOptions,
    "cn2_timings": libcn2.Timings,
    "cn2_raw_detections": libcn2.RawDetections,
}
CONSTANTS = {
    **{f"CN2_{name}": getattr(libcn2, name) for name in ("ABI_VERSION", "ANTIALIAS", "LINEAR")},
    **{f"CN2_{name}": getattr(libcn2, name) for name in ("RGB8", "BGR8", "RGBA8", "BGRA8")},
    **{f"CN2_{name}": getattr(libcn2, name) for name in ("GREY8", "NV12", "HOST", "CUDA")},
    **{f"CN2_LOG_{name}": getattr(libcn2, f"LOG_{name}") for name in ("DEBUG", "INFO")},
    **{f"CN2_LOG_{name}": getattr(libcn2, f"LOG_{name}") for name in ("WARNING", "ERROR")},
}
STATUSES = ("INVALID_ARGUMENT", "MODEL_ERROR", "UNAVAILABLE", "INFERENCE_ERROR", "OUT_OF_MEMORY")
CTYPES: dict[str, Any] = {
    "void": None,
    "const char *": c_char_p,
    "uint32_t": c_uint32,
    "int32_t": c_int32,
    "cn2_status": c_int32,
    "int64_t": c_int64,
    "size_t": c_size_t,
    "float": c_float,
    "cn2_log_callback": libcn2.LogCallback,
    **dict.fromkeys(["void *", "const void *", "uint8_t *", "const uint8_t *"], c_void_p),
    **dict.fromkeys(["const int32_t *", "cn2_detection *", "size_t *"], c_void_p),
    **dict.fromkeys(
        [f"{const}cn2_{kind} *" for const in ("", "const ") for kind in ("model", "context")],
        c_void_p,
    ),
    **dict.fromkeys(["cn2_model **", "cn2_context **"], ctypes.POINTER(c_void_p)),
    **{
        f"{const}{name} *": ctypes.POINTER(kind)
        for name, kind in STRUCTS.items()
        for const in ("", "const ")
        if name != "cn2_detection"
    },
}


def declared_fields(name: str) -> list[str]:
    body = re.search(rf"typedef struct {name} \{{(.*?)\}} {name};", HEADER, re.DOTALL)
    assert body is not None, name
    return re.findall(r"(\w+)(?:\[\d+\])?;", body[1])


def declared_functions() -> dict[str, tuple[str, list[str]]]:
    """Name -> the type it returns and those of its arguments, blanks as in "const void *"."""
    found = {}
    for result, name, arguments in re.findall(
        r"CN2_API ([\w ]+?\*? ?)(cn2_\w+)\((.*?)\);", HEADER, re.DOTALL
    ):
        kinds = [
            re.sub(r"\w+$", "", " ".join(word.split())).strip() for word in arguments.split(",")
        ]
        found[name] = (result.strip(), [] if arguments == "void" else kinds)
    return found


def test_every_function_and_struct_is_known() -> None:
    assert set(declared_functions()) == {f"cn2_{name}" for name in libcn2.FUNCTIONS}
    assert set(re.findall(r"typedef struct (\w+) \{", HEADER)) == set(STRUCTS)
    declared = set(re.findall(r"\b(CN2_[A-Z0-9_]+) = \d", HEADER)) | {"CN2_ABI_VERSION"}
    statuses = {"CN2_OK", "CN2_INTERNAL_ERROR", *(f"CN2_{name}" for name in STATUSES)}
    assert declared == statuses | set(CONSTANTS)


@pytest.mark.parametrize("name", libcn2.FUNCTIONS)
def test_signatures(name: str) -> None:
    result, arguments = declared_functions()[f"cn2_{name}"]
    assert libcn2.FUNCTIONS[name] == (CTYPES[result], [CTYPES[word] for word in arguments])


@pytest.mark.parametrize("name", STRUCTS)
def test_fields_in_order(name: str) -> None:
    assert [field[0] for field in STRUCTS[name]._fields_] == declared_fields(name)


def test_sizes_offsets_and_numbers_are_the_compilers(tmp_path: Path) -> None:
    lines = [f'P("{name}", sizeof({name}))' for name in STRUCTS]
    lines += [
        f'P("{name}.{field}", offsetof({name}, {field}))'
        for name in STRUCTS
        for field in declared_fields(name)
    ]
    lines += [f'P("{name}", {name})' for name in CONSTANTS]
    lines += [f'P("CN2_{name}", CN2_{name})' for name in (*STATUSES, "INTERNAL_ERROR")]
    program = tmp_path / "print.c"
    program.write_text(
        "#include <cn2.h>\n#include <stdio.h>\n#define P(name, value) "
        'printf("%s %zu\\n", name, (size_t)(value));\nint main(void) {\n'
        + "\n".join(lines)
        + "\nreturn 0; }\n"
    )
    run = subprocess.run(
        [compile_c(program, tmp_path / "print")], capture_output=True, text=True, check=True
    )
    found = {name: int(value) for name, value in map(str.split, run.stdout.splitlines())}
    expected = {name: ctypes.sizeof(kind) for name, kind in STRUCTS.items()}
    for name, kind in STRUCTS.items():
        for field, *_ in kind._fields_:
            expected[f"{name}.{field}"] = getattr(kind, field).offset
    expected |= CONSTANTS
    expected |= {f"CN2_{name}": code for code, name in enumerate((*STATUSES, "INTERNAL_ERROR"), 1)}
    assert found == expected
    assert len(found) > 60


@pytest.mark.parametrize("kind", [k for k in STRUCTS.values() if k is not libcn2.Detection])
def test_structs_know_their_size(kind: type[ctypes.Structure]) -> None:
    assert kind().struct_size == ctypes.sizeof(kind)


def test_loading_a_library(tmp_path: Path) -> None:
    library = libcn2.Libcn2(fake_library(tmp_path))
    assert (library.version(), library.abi_version()) == (b"9.9.9", 1)
    assert library.model_category_id(ctypes.c_void_p(1), 5) == 5 << 40  # all of 64 bits
    with pytest.raises(AttributeError, match="libcn2 has no function cn2_detach"):
        library.detach()


def test_another_abi_is_refused(tmp_path: Path) -> None:
    path = fake_library(tmp_path, "-DFAKE_ABI=2")
    with pytest.raises(PluginError, match=r"libcn2.so: ABI 2, this package needs 1; run make nat"):
        libcn2.Libcn2(path)


def test_what_is_no_library(tmp_path: Path) -> None:
    text = tmp_path / "libcn2.so"
    text.write_text("no library")
    with pytest.raises(PluginError, match=r"libcn2.so: cannot be loaded \(.*; run make") as caught:
        libcn2.Libcn2(text)
    assert "\n" not in str(caught.value)
    (tmp_path / "other.c").write_text("int other(void) { return 1; }\nint other(void);\n")
    other = compile_c(tmp_path / "other.c", tmp_path / "libother.so", "-shared", "-fPIC")
    with pytest.raises(PluginError, match="undefined symbol: cn2_status_name"):
        libcn2.Libcn2(other)


def test_a_library_that_was_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    with pytest.raises(BackendUnavailableError, match="libcn2 is not here; make native in a sou"):
        libcn2.open_library()
