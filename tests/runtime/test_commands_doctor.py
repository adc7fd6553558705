"""`cn2 doctor`: what works, why not, and the fix; a probe that dies harms nobody."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import pytest

from cn2.runtime import doctor, probe
from command_line import cn2
from native_libraries import needs_library
from tiny_onnx import write_tiny_onnx

Capture = pytest.CaptureFixture[str]


def test_onnxruntime_works_on_this_cpu() -> None:
    assert doctor.run_probe("onnxruntime", "cpu") == {"works": True}


def test_a_probe_that_dies_is_a_reason() -> None:
    answer = doctor.run_probe("no such backend", "cpu")
    assert answer["works"] is False
    assert answer["reason"] == "it ended with code 1: KeyError: 'no such backend'"


def test_a_probe_that_hangs_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.01)
    assert doctor.run_probe("onnxruntime", "cpu")["reason"] == "no answer within 0.01 s"


def test_cuda_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: False)
    for backend in probe.PROBES:
        answer = probe.probe(backend, "cuda")
        assert answer["works"] is False
        assert "no NVIDIA driver" in answer["reason"]


class FakeSession:
    """Falls back to the CPU without an exception, as ONNX Runtime does."""

    def __init__(self, model: bytes, providers: list[str]) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("providers", "reason"),
    [
        (["CPUExecutionProvider"], "this onnxruntime is built for the CPU alone"),
        (["CUDAExecutionProvider"], "ONNX Runtime could not load CUDA"),
    ],
)
def test_cuda_that_onnxruntime_lacks_or_cannot_load(
    providers: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake: Any = ModuleType("onnxruntime")
    fake.get_available_providers = lambda: providers
    fake.InferenceSession = FakeSession
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    answer = probe.probe("onnxruntime", "cuda")
    assert (answer["works"], answer["reason"]) == (False, reason)
    assert answer["fix"]


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [(None, "this torch is built for the CPU alone"), ("13.0", "torch 2.0 sees no GPU")],
)
def test_cuda_that_torch_lacks(
    cuda: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False),
        version=SimpleNamespace(cuda=cuda),
        __version__="2.0",
    )
    monkeypatch.setattr(probe.importlib, "import_module", lambda _: fake)
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    answer = probe.probe("torch", "cuda")
    assert (answer["works"], answer["reason"]) == (False, reason)


@pytest.mark.parametrize(("backend", "extra"), [("onnxruntime", "cpu"), ("torch", "export")])
def test_a_missing_library_names_the_pip_line(
    backend: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(probe.importlib, "import_module", missing)
    answer = probe.probe(backend, "cpu")
    assert answer["fix"] == f"pip install 'cn2[{extra}]'"
    assert f"No module named {backend!r}" in answer["reason"]


def test_native_that_was_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    answer = doctor.run_probe("native", "cpu")
    assert (answer["works"], answer["reason"]) == (False, "libcn2 is not here")
    assert answer["fix"].startswith("make native in a source tree, or install a wheel")
    (tmp_path / "libcn2.so").write_text("no library")
    answer = doctor.run_probe("native", "cpu")
    assert answer["reason"].startswith(f"{tmp_path}/libcn2.so: cannot be loaded (")
    assert answer["fix"] == "run make native again, or install the package again"


@needs_library("cn2")
def test_native_works_on_this_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cn2 import __version__

    assert doctor.run_probe("native", "cpu") == {"works": True, "version": __version__}
    monkeypatch.setenv("CN2_ONNXRUNTIME", str(tmp_path / "none.so"))
    answer = doctor.run_probe("native", "cpu")
    assert answer["works"] is False
    assert answer["reason"].endswith("/none.so")
    assert answer["fix"].startswith("pip install onnxruntime, or set CN2_ONNXRUNTIME")


@needs_library("cn2")
def test_native_whose_onnxruntime_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    answer = probe.probe("native", "cuda")
    assert (answer["works"], answer["fix"]) == (False, probe.CUDA_FIX)
    assert "cannot use CUDA" in answer["reason"]


def test_operators_whose_library_was_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    answer = doctor.run_probe("operators", "cpu")
    assert (answer["works"], answer["reason"]) == (False, "libcn2_ort_ops is not here")
    assert answer["fix"].startswith("make native in a source tree")
    (tmp_path / "libcn2_ort_ops.so").write_text("no library")
    answer = doctor.run_probe("operators", "cpu")
    assert answer["reason"].startswith(f"{tmp_path}/libcn2_ort_ops.so: cannot be loaded (")
    assert answer["fix"] == "run make native again, or install the package again"


@needs_library("cn2_ort_ops")
def test_operators_work_on_this_cpu() -> None:
    assert doctor.run_probe("operators", "cpu") == {"works": True}
    row = doctor.fused_operators()
    assert row == {"works": True, "reason": None, "fix": None}
    assert doctor.operators_text(row) == "our kernels run them in onnxruntime on the CPU"


def test_the_probes_model_of_an_operator_is_what_it_says() -> None:
    model = onnx.load_model_from_string(probe.OPERATOR_MODEL)
    (node,) = model.graph.node
    assert (node.domain, node.op_type, len(model.functions)) == ("cn2", "ProposalNMS", 0)


def test_the_probes_model_is_the_tests_tiny_one(tmp_path: Path) -> None:
    written = write_tiny_onnx(tmp_path / "m.onnx")
    assert onnx.load(written) == onnx.load(probe.PROBE_MODEL)


def test_json(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    answers = {"cpu": {"works": True}, "cuda": {"works": False, "reason": "none", "fix": "buy"}}
    monkeypatch.setattr(doctor, "run_probe", lambda backend, device: answers[device])
    found = cn2(capfd, "doctor", "--json", "-").json()
    assert set(found) == {
        *("versions", "platform", "cpu", "cores", "memory_mb"),
        *("backends", "fused_operators", "commands", "notices"),
    }
    assert [(row["backend"], row["device"], row["works"]) for row in found["backends"]] == [
        ("onnxruntime", "cpu", True),
        ("onnxruntime", "cuda", False),
        ("native", "cpu", True),
        ("native", "cuda", False),
        ("native", "cuda", False),
        ("tensorrt", "cuda", False),
        ("tensorrt", "cuda", False),
        ("torch", "cpu", True),
        ("torch", "cuda", False),
    ]
    engines = [row["library"] for row in found["backends"] if row["reads"] == ".engine"]
    assert engines == [None, "tensorrt", "tensorrt-rtx"]
    assert found["backends"][0]["reason"] is None
    assert found["backends"][0]["version"]
    assert (found["backends"][1]["reason"], found["backends"][1]["fix"]) == ("none", "buy")
    assert found["cores"] >= 1
    assert found["cpu"]


def test_text_fits_a_terminal_and_gives_reasons(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    answer = {"works": False, "reason": "no NVIDIA driver here", "fix": "install one " * 9}
    monkeypatch.setattr(doctor, "run_probe", lambda *_: answer)
    monkeypatch.setattr(doctor, "cpu_name", lambda: "a processor")
    monkeypatch.setattr(doctor, "notices", lambda: ["two things are both installed"])
    out = cn2(capfd, "doctor").out
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert "tensorrt (rtx) on cuda, torch on cpu, torch on cuda: no NVIDIA driver here; i" in words
    assert "notice: two things are both installed" in out
    assert "cn2 eval: ready" in out


def test_packages_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime": "1", "onnxruntime-gpu": "1", "opencv-python": "1"}
    monkeypatch.setattr(doctor, "package_version", installed.get)
    (notice,) = doctor.notices()
    assert notice.startswith("onnxruntime and onnxruntime-gpu are both installed")


def test_a_command_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "COMMAND_NEEDS", (("eval", ("no_such_module",), "eval"),))
    monkeypatch.setattr(doctor, "run_probe", lambda *_: {"works": True})
    report = doctor.diagnose()
    assert report["commands"] == [
        {
            "command": "eval",
            "works": False,
            "reason": "not installed: no_such_module",
            "fix": "pip install 'cn2[eval]'",
        }
    ]
    text = doctor.doctor_text(report)
    assert "cn2 eval: not installed: no_such_module; pip install 'cn2[eval]'" in text
