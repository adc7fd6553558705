"""A file of fused operators finds what one of standard operators finds, by bodies and by kernels.

Without our library it runs the same standard operators, so the same bits come out; the kernels may
round the pooled features differently.
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
from cn2.runtime.demo import CHECKPOINT
from cn2.runtime.manifest import Manifest
from cn2.trainer.config import Config
from command_line import cn2
from exported import Exported, canvases, export_to, lively_detector
from factories import tiny_config, tiny_many_classes_config, tiny_one_stage_config

BOX_ATOL_PX = 0.01  # as between torch and ONNX Runtime, test_onnx_file.py
DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "If", "Scan"}
TWO_STAGE = {"ProposalNMS": 1, "PyramidRoIAlign": 3, "DetectionNMS": 1}


@dataclass(frozen=True, kw_only=True)
class Forms:
    """One detector in both forms."""

    standard: Exported
    fused: Exported
    operators: dict[str, int]
    """Nodes of domain cn2, by type."""


CONFIGS: dict[str, tuple[Config, dict[str, int]]] = {
    "two-stage": (tiny_config(), TWO_STAGE),
    "one-stage": (tiny_one_stage_config(), {"ProposalNMS": 1}),
    "many-classes": (tiny_many_classes_config(), TWO_STAGE),
}


@pytest.fixture(scope="module", params=[*CONFIGS, "nano"])
def forms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forms:
    """Each kind of detector in turn, exported twice."""
    folder = tmp_path_factory.mktemp("forms")
    if request.param == "nano":
        standard: Exported = request.getfixturevalue("nano")
        fused = export_to(folder, standard.model, standard.config, "fused")
        return Forms(standard=standard, fused=fused, operators=TWO_STAGE)
    config, operators = CONFIGS[request.param]
    model = lively_detector(config)
    standard, fused = (export_to(folder, model, config, ops) for ops in ("standard", "fused"))
    return Forms(standard=standard, fused=fused, operators=operators)


BATCHES = pytest.mark.parametrize(
    ("batch", "height", "width"),
    [(1, 64, 96), (3, 160, 128)],  # neither is the exporter's example
)


@BATCHES
def test_the_bodies_find_the_same_bits(forms: Forms, batch: int, height: int, width: int) -> None:
    images, sizes = canvases(batch, height, width, seed=batch)
    bodies, standard = forms.fused.opened(fused=False), forms.standard.backend
    for threshold in (None, 0.0, 0.3):
        found, expected = (b.infer(images, sizes, threshold) for b in (bodies, standard))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert threshold == 0.3 or expected.num_detections.min() >= 1


@BATCHES
def test_the_kernels_find_the_same(
    forms: Forms, batch: int, height: int, width: int, operator_library: Path
) -> None:
    images, sizes = canvases(batch, height, width, seed=batch)
    kernels, standard = forms.fused.opened(fused=True), forms.standard.backend
    assert (kernels.fused, standard.fused) == (True, False)
    for threshold in (None, 0.0, 0.3):
        found, expected = (b.infer(images, sizes, threshold) for b in (kernels, standard))
        assert_close(found, expected)


def assert_close(found: RawDetections, expected: RawDetections) -> None:
    """The same detections in the same order."""
    np.testing.assert_array_equal(found.num_detections, expected.num_detections)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_ATOL_PX, rtol=0)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE, rtol=0)


def test_nothing_found_is_zeros(forms: Forms) -> None:
    images, sizes = canvases(2, 96, 64)
    for backend in (forms.fused.opened(fused=False), forms.fused.backend):  # by kernels if here
        found = backend.infer(images, sizes, 1.0)
        assert found.num_detections.tolist() == [0, 0]
        assert not any(output.any() for output in found)


def test_a_batch_is_its_pictures_one_by_one(forms: Forms, operator_library: Path) -> None:
    images, sizes = canvases(4, 96, 160, seed=3)
    backend = forms.fused.opened(fused=True)
    together = backend.infer(images, sizes)
    for row in range(4):
        single = backend.infer(images[row : row + 1], sizes[row : row + 1])
        for ours, theirs in zip(single, together, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[row])


def test_the_graph(forms: Forms) -> None:
    proto = onnx.load(forms.fused.path)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 20, "cn2": 1}
    assert proto.ir_version <= 10  # what ONNX Runtime 1.20 reads
    own = [node.op_type for node in proto.graph.node if node.domain == "cn2"]
    assert {name: own.count(name) for name in own} == forms.operators
    assert sorted(f.name for f in proto.functions) == sorted(forms.operators)
    assert not DATA_DEPENDENT & {node.op_type for node in proto.graph.node}
    assert {node.domain for node in proto.graph.node} == {"", "cn2"}
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    for function in proto.functions:
        assert {node.domain for node in function.node} == {""}
        assert not function.metadata_props
        assert not function.value_info


def test_the_manifest_says_so(forms: Forms) -> None:
    manifest: Manifest = forms.fused.backend.manifest
    assert manifest.ops == "fused"
    assert forms.standard.backend.manifest.ops == "standard"
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_command_writes_the_same_bytes_and_verifies_each_way(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))  # there is no library
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        ran = cn2(capfd, "export", CHECKPOINT, "-o", path, "--ops", "fused")
        assert (ran.code, ran.errors) == (0, [])
        assert " ".join(ran.out.split()).count("operators fused") == 1
        assert ran.out.count("unexplained") == 1
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_verification_of_each_way(nano: Exported, forms: Forms, operator_library: Path) -> None:
    if forms.standard is not nano:
        return
    results = verify_all(forms.fused.path, nano.model, nano.config, bundled_pictures())
    assert list(results) == ["standard operators", "fused operators"]
    for result in results.values():
        require_agreement(result)
        assert result.agreement.detections >= 20
