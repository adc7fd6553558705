"""Feature pyramid network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import upsample_to


class FPN(nn.Module):
    """Sums each feature with the upsampled coarser one, and adds coarser levels.

    Those are strided convolutions, or every other cell of the level below.
    Source: arXiv 1612.03144, Sec. 3 and 4.1; P6 and P7 by convolution as in RetinaNet, arXiv
    1708.02002, Sec. 4, but of the pyramid's P5 instead of the backbone's.
    """

    def __init__(
        self, inputs: tuple[int, ...], channels: int, levels: int, *, subsample: bool = False
    ) -> None:
        """Take the channels of the features it reads, of every level, and the level count."""
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in inputs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        self.subsampled = levels - len(inputs) if subsample else 0
        self.extra = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1)
            for _ in range(levels - len(inputs) - self.subsampled)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every one has a bias

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone features, fine to coarse -> pyramid levels, fine to coarse.

        It reads the last features, as many as it was built for.
        """
        features = features[-len(self.lateral) :]
        merged = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for fine in range(len(merged) - 2, -1, -1):
            merged[fine] = merged[fine] + upsample_to(merged[fine + 1], merged[fine])
        levels: list[Tensor] = [conv(x) for conv, x in zip(self.output, merged, strict=True)]
        for index, conv in enumerate(self.extra):
            levels.append(conv(levels[-1] if index == 0 else F.relu(levels[-1])))
        for _ in range(self.subsampled):
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels
