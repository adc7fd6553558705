"""A file of fused operators finds what torch and a file of standard operators find.

By its bodies, which are those standard operators, and by the kernels, which may round the pooled
features differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from cn2.export.agreement import SCORE_TOLERANCE
from cn2.export.verify import bundled_pictures, require_agreement, verify_all
from cn2.runtime.backends.base import RawDetections
from cn2.runtime.backends.native import NativeBackend
from cn2.runtime.demo import CHECKPOINT
from cn2.runtime.manifest import Manifest
from cn2.trainer.config import Config
from command_line import cn2
from exported import Exported, canvases, export_to, lively_detector
from factories import tiny_many_classes_config, tiny_one_stage_config
from native_agreement import assert_native_agrees
from native_libraries import needs_library
from rtx_networks import Parsed, logged, rtx_with_plugins

BOX_ATOL_PX = 0.01  # as between torch and ONNX Runtime, test_onnx_file.py
DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "If", "Scan"}
TWO_STAGE = {"ProposalNMS": 1, "PyramidRoIAlign": 3, "DetectionNMS": 1}


CONFIGS: dict[str, tuple[Config, dict[str, int]]] = {
    "one-stage": (tiny_one_stage_config(), {"ProposalNMS": 1}),
    "many-classes": (tiny_many_classes_config(), TWO_STAGE),
}


@dataclass(frozen=True, kw_only=True)
class Fused(Exported):
    """A detector's file of fused operators."""

    operators: dict[str, int]
    """Nodes of domain cn2, by type."""


@pytest.fixture(scope="module", params=[*CONFIGS, "nano"])
def fused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fused:
    """Each kind of detector in turn."""
    if request.param == "nano":
        exported, operators = request.getfixturevalue("nano_fused"), TWO_STAGE
    else:
        config, operators = CONFIGS[request.param]
        folder = tmp_path_factory.mktemp("fused")
        exported = export_to(folder, lively_detector(config), config, "fused")
    return Fused(**vars(exported), operators=operators)


WAYS = pytest.mark.parametrize("way", [False, True], ids=["bodies", "kernels"])
BATCHES = pytest.mark.parametrize(
    ("batch", "height", "width"),
    [(1, 64, 96), (3, 160, 128)],  # neither is the exporter's example
)


@BATCHES
@WAYS
def test_it_finds_what_torch_finds(
    fused: Fused, way: bool, batch: int, height: int, width: int, request: pytest.FixtureRequest
) -> None:
    if way:
        request.getfixturevalue("operator_library")
    images, sizes = canvases(batch, height, width, seed=batch)
    backend = fused.opened(fused=way)
    assert backend.fused is way
    for threshold in (None, 0.0, 0.3):
        expected = fused.torch_run(images, sizes, threshold)
        assert_close(backend.infer(images, sizes, threshold), expected)
        assert threshold == 0.3 or expected.num_detections.min() >= 1


def test_tensorrt_rtx_takes_the_plugins(fused: Fused) -> None:
    """Without a GPU it parses, finds each plugin's outputs, and builds for one that is not here."""
    rtx = rtx_with_plugins()
    parsed = Parsed(rtx, fused.path)
    assert logged(rtx) == []
    counts = [len(outputs) for outputs in parsed.plugins()]
    expected = [3] if len(fused.operators) == 1 else [2, 1, 1, 1, 4]
    assert counts == expected
    assert all(shape[0] == -1 for outputs in parsed.plugins() for shape in outputs)
    assert parsed.build((192, 256), "SM86") > 10_000
    assert logged(rtx) == []


def test_the_bodies_are_the_standard_form(nano: Exported, nano_fused: Exported) -> None:
    """To the last bit, as the same operators run."""
    images, sizes = canvases(2, 384, 512, seed=1)
    bodies, standard = nano_fused.opened(fused=False), nano.backend
    for threshold in (None, 0.0, 0.3):
        found, expected = (b.infer(images, sizes, threshold) for b in (bodies, standard))
        assert expected.num_detections.min() >= 1
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def assert_close(found: RawDetections, expected: RawDetections) -> None:
    """The same detections in the same order."""
    np.testing.assert_array_equal(found.num_detections, expected.num_detections)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_ATOL_PX, rtol=0)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE, rtol=0)


def test_nothing_found_is_zeros(fused: Fused) -> None:
    images, sizes = canvases(2, 96, 64)
    for backend in (fused.opened(fused=False), fused.backend):  # by kernels where they are
        found = backend.infer(images, sizes, 1.0)
        assert found.num_detections.tolist() == [0, 0]
        assert not any(output.any() for output in found)


def test_a_batch_is_its_pictures_one_by_one(fused: Fused, operator_library: Path) -> None:
    images, sizes = canvases(4, 96, 160, seed=3)
    backend = fused.opened(fused=True)
    together = backend.infer(images, sizes)
    for row in range(4):
        single = backend.infer(images[row : row + 1], sizes[row : row + 1])
        for ours, theirs in zip(single, together, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[row])


def test_the_graph(fused: Fused) -> None:
    proto = onnx.load(fused.path)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 20, "cn2": 1}
    assert proto.ir_version <= 10  # what ONNX Runtime 1.20 reads
    own = [node.op_type for node in proto.graph.node if node.domain == "cn2"]
    assert {name: own.count(name) for name in own} == fused.operators
    assert sorted(f.name for f in proto.functions) == sorted(fused.operators)
    assert not DATA_DEPENDENT & {node.op_type for node in proto.graph.node}
    assert {node.domain for node in proto.graph.node} == {"", "cn2"}
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    for function in proto.functions:
        assert {node.domain for node in function.node} == {""}
        assert not function.metadata_props
        assert not function.value_info


def test_the_manifest_says_so(nano: Exported, nano_fused: Exported) -> None:
    manifest, standard = nano_fused.backend.manifest, nano.backend.manifest
    assert (manifest.ops, standard.ops) == ("fused", "standard")
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.slow  # one more export
def test_the_command_writes_the_same_graph(
    nano_fused: Exported,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))  # there is no library
    path = tmp_path / "a.onnx"
    ran = cn2(capfd, "export", CHECKPOINT, "-o", path, "--ops", "fused")
    assert (ran.code, ran.errors) == (0, [])
    assert " ".join(ran.out.split()).count("operators fused") == 1
    assert ran.out.count("unexplained") == 1
    assert graph_bytes(path) == graph_bytes(nano_fused.path)


def graph_bytes(path: Path) -> bytes:
    """A file's content without what it says of its origin."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    return proto.SerializeToString(deterministic=True)


def test_verification_of_each_way(
    nano: Exported, nano_fused: Exported, operator_library: Path
) -> None:
    results = verify_all(nano_fused.path, nano.model, nano.config, bundled_pictures())
    assert list(results) == ["standard operators", "fused operators"]
    for result in results.values():
        require_agreement(result)
        assert result.agreement.detections >= 20


@needs_library("cn2")
def test_libcn2_finds_the_same_and_says_what_runs(fused: Fused) -> None:
    assert assert_native_agrees(fused.path).endswith(" on cpu, fused operators")
    bodies = NativeBackend.open(fused.path, device="cpu", fused=False)
    assert bodies.runtime.endswith(" on cpu, standard operators")
