"""Vision backbones such as DINOv3 and DINOv2: the features of a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..request import ANY
from . import draw, inputs
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    import torch

    from ..request import Observation, ProbeRequest


def observe(request: ProbeRequest) -> Observation:
    """Take the last hidden state of two pictures."""
    pictures = inputs.pictures(request)  # before the slow imports: what cannot be read is told at once
    locate(request)
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(request.model, **source_of(request))
    batches = [processor(images=picture, return_tensors="pt") for picture in pictures]
    loaded = pretrained(AutoModel, request, batches[0])
    run = Run(loaded)
    features = []
    for batch in batches:
        with torch.inference_mode():
            features.append(loaded.model(**batch.to(loaded.device, loaded.dtype)).last_hidden_state)
    width = getattr(loaded.model.config, "hidden_size", None)
    # A convolutional backbone answers with a map, and its config has no single width.
    expected = (1, ANY, width) if isinstance(width, int) else (1, ANY, ANY, ANY)
    cells, grid = _cells(features[0], batches[0]["pixel_values"].shape[-2:])
    if len(cells) > 1 and torch.isfinite(cells).all():
        draw.save(draw.components(pictures[0], cells, grid), request)
    text = f"features {'x'.join(str(size) for size in features[0].shape[1:])}"
    return run.observe(features, expected, text)


def _cells(features: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return one row of features for each cell of the picture, and the grid they make.

    Of a transformer's tokens the last ones are the cells; a class and registers come before them.
    """
    if features.ndim == 4:
        rows, columns = features.shape[2:]
        return features[0].flatten(1).T, (int(rows), int(columns))
    height, width = size
    count = features.shape[1]
    rows = math.isqrt(count * height // width)
    columns = rows * width // height
    return features[0, count - rows * columns :], (rows, columns)
