"""Video classifiers such as VideoMAE: the classes of a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import inputs
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    import torch

    from ..request import Observation, ProbeRequest

TOP = 3


def observe(request: ProbeRequest) -> Observation:
    """Classify two clips of as many frames as the model was made for."""
    inputs.check_video(request)  # before the slow imports: what is not there is told at once
    locate(request)
    import torch
    from transformers import AutoImageProcessor, AutoModelForVideoClassification, VideoMAEImageProcessor

    loaded = pretrained(AutoModelForVideoClassification, request)
    config = loaded.model.config
    # Old VideoMAE checkpoints name a class that is gone, which only the automatic choice trips over.
    maker = VideoMAEImageProcessor if config.model_type == "videomae" else AutoImageProcessor
    processor = maker.from_pretrained(request.model, **source_of(request))
    run = Run(loaded)
    logits = []
    for clip in inputs.clips(request, int(getattr(config, "num_frames", 16))):
        batch = processor(clip, return_tensors="pt").to(loaded.device, loaded.dtype)
        with torch.inference_mode():
            logits.append(loaded.model(**batch).logits)
    labels: dict[int, str] = dict(config.id2label)
    return run.observe(logits[0], logits[1], (1, len(labels)), _top(logits[0], labels))


def _top(logits: torch.Tensor, labels: dict[int, str]) -> str:
    shares = logits[0].float().softmax(dim=0)
    best = shares.argsort(descending=True)[:TOP].tolist()
    return ", ".join(f"{labels.get(index, index)} {float(shares[index]):.0%}" for index in best)
