"""Vision backbones such as DINOv3 and DINOv2: the features of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..request import ANY
from . import inputs
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    from ..request import Observation, ProbeRequest


def observe(request: ProbeRequest) -> Observation:
    """Take the last hidden state of two pictures."""
    pictures = inputs.pictures(request)  # before the slow imports: what cannot be read is told at once
    locate(request)
    import torch
    from transformers import AutoImageProcessor, AutoModel

    loaded = pretrained(AutoModel, request)
    processor = AutoImageProcessor.from_pretrained(request.model, **source_of(request))
    run = Run(loaded)
    features = []
    for picture in pictures:
        batch = processor(images=picture, return_tensors="pt").to(loaded.device, loaded.dtype)
        with torch.inference_mode():
            features.append(loaded.model(**batch).last_hidden_state)
    width = getattr(loaded.model.config, "hidden_size", None)
    # A convolutional backbone answers with a map, and its config has no single width.
    expected = (1, ANY, width) if isinstance(width, int) else (1, ANY, ANY, ANY)
    text = f"features {'x'.join(str(size) for size in features[0].shape[1:])}"
    return run.observe(features[0], features[1], expected, text)
