"""One class of tests for every backend: what `cn2.runtime.backends.base.Backend` promises."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cn2.runtime.backends.base import Backend


class BackendContract:
    """What every backend does. A subclass has the fixture `backend`: small, canvases of 32."""

    batch_noise = 0.0  # how far a batch may be from single runs, pixels

    def images(self, count: int = 1) -> np.ndarray:
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)

    def sizes(self, count: int = 1) -> np.ndarray:
        return np.array([[64 - index, 90] for index in range(count)], np.int32)

    def test_shapes_and_types(self, backend: Backend) -> None:
        raw = backend.infer(self.images(3), self.sizes(3))
        rows = raw.scores.shape[1]
        shapes = [(value.shape, value.dtype) for value in raw]
        assert shapes == [
            ((3,), np.int32),
            ((3, rows, 4), np.float32),
            ((3, rows), np.float32),
            ((3, rows), np.int32),
        ]
        for row, count in enumerate(raw.num_detections):
            assert 0 <= count <= rows
            assert not raw.scores[row, count:].any()
            assert not raw.boxes[row, count:].any()
            assert (np.diff(raw.scores[row, :count]) <= 0).all()

    def test_batch_equals_single_runs_in_any_order(self, backend: Backend) -> None:
        images, sizes = self.images(3), self.sizes(3)
        singles = [backend.infer(images[i : i + 1], sizes[i : i + 1]) for i in range(3)]
        for order in itertools.permutations(range(3)):
            batch = backend.infer(images[list(order)], sizes[list(order)])
            for row, index in enumerate(order):
                for value, expected in zip(batch, singles[index], strict=True):
                    np.testing.assert_allclose(
                        value[row], expected[0], rtol=0, atol=self.batch_noise
                    )

    def test_threshold_cuts(self, backend: Backend) -> None:
        some = backend.infer(self.images(), self.sizes(), 0.01).num_detections[0]
        assert some > backend.infer(self.images(), self.sizes(), 0.99).num_detections[0] == 0

    @pytest.mark.parametrize(
        ("images", "sizes", "message"),
        [
            (
                np.zeros((1, 64, 96, 3), np.float32),
                [[64, 96]],
                r"uint8 \(B, H, W, 3\), got float32",
            ),
            (np.zeros((64, 96, 3), np.uint8), [[64, 96]], r"got uint8 \(64, 96, 3\)"),
            (np.zeros((1, 3, 64, 96), np.uint8), [[64, 96]], r"got uint8 \(1, 3, 64, 96\)"),
            (np.zeros((0, 64, 96, 3), np.uint8), np.zeros((0, 2)), "batch of 1 or more, got 0"),
            (np.zeros((1, 60, 96, 3), np.uint8), [[60, 96]], r"multiples of 32, got \(60, 96\)"),
            (np.zeros((1, 64, 96, 3), np.uint8), [64, 96], r"int32 \(1, 2\), got int32 \(2,\)"),
            (np.zeros((1, 64, 96, 3), np.uint8), [[65, 96]], r"canvas \(64, 96\), got \[\[65, 96"),
            (np.zeros((1, 64, 96, 3), np.uint8), [[64, 0]], r"sides from 1 to"),
        ],
    )
    def test_wrong_arrays_are_refused(
        self,
        backend: Backend,
        images: np.ndarray,
        sizes: list[list[int]],
        message: str,
    ) -> None:
        with pytest.raises(ValueError, match=message):
            backend.infer(images, np.array(sizes, np.int32))

    def test_pictures_in_any_memory_order(self, backend: Backend) -> None:
        images, sizes = self.images(2), self.sizes(2)
        found = backend.infer(np.asfortranarray(images), np.asfortranarray(sizes))
        for value, expected in zip(found, backend.infer(images, sizes), strict=True):
            np.testing.assert_array_equal(value, expected)

    def test_threads_get_the_same_answers(self, backend: Backend) -> None:
        images, sizes = self.images(12), self.sizes(12)

        def one(index: int) -> list[list[float]]:
            raw = backend.infer(images[index : index + 1], sizes[index : index + 1])
            return [value.tolist() for value in raw]

        alone = [one(index) for index in range(12)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(one, [*range(12)] * 3)) == alone * 3
        assert len({str(raw) for raw in alone}) == 12

    def test_closing_twice(self, backend: Backend) -> None:
        backend.close()
        backend.close()
