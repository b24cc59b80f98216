"""Video models such as VideoMAE: the classes of a clip, or its features where the model has no classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..request import ANY
from . import draw, inputs
from .custom_code import own_code, pretrained_own
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL.Image import Image
    from transformers import BatchFeature, PretrainedConfig

    from ..request import Observation, ProbeRequest

TOP = 5
SAID = 3  # of them in words
FRAMES = 16


def observe(request: ProbeRequest) -> Observation:
    """Classify two clips of as many frames as the model was made for."""
    inputs.check_video(request)  # before the slow imports: what is not there is told at once
    folder = locate(request)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(request.model, **source_of(request))
    clips = inputs.clips(request, _frames(config))
    batches = [_processed(request, config, clip) for clip in clips]
    draw.save(draw.strip(clips[0]), request)
    if own_code(config):
        return _observe_own(request, config, folder, batches)
    return _observe_classes(request, batches)


def _frames(config: PretrainedConfig) -> int:
    nested = getattr(config, "model_config", None) or {}  # where VideoMAE-v2 keeps its own
    return int(getattr(config, "num_frames", nested.get("num_frames", FRAMES)))


def _processed(request: ProbeRequest, config: PretrainedConfig, clip: list[Image]) -> BatchFeature:
    from transformers import AutoImageProcessor, VideoMAEImageProcessor

    # Old VideoMAE checkpoints name a class that is gone, which only the automatic choice trips over.
    old = config.model_type == "videomae" or own_code(config)
    maker = VideoMAEImageProcessor if old else AutoImageProcessor
    return maker.from_pretrained(request.model, **source_of(request))(clip, return_tensors="pt")


def _observe_classes(request: ProbeRequest, batches: list[BatchFeature]) -> Observation:
    import torch
    from transformers import AutoModelForVideoClassification

    loaded = pretrained(AutoModelForVideoClassification, request, batches[0])
    run = Run(loaded)
    logits = []
    for batch in batches:
        with torch.inference_mode():
            logits.append(loaded.model(**batch.to(loaded.device, loaded.dtype)).logits)
    labels: dict[int, str] = dict(loaded.model.config.id2label)
    best = _top(logits[0], labels)
    text = ", ".join(f"{label} {share:.0%}" for label, share in list(best.items())[:SAID])
    return run.observe(logits, (1, len(labels)), text, best)


def _observe_own(
    request: ProbeRequest, config: PretrainedConfig, folder: Path, batches: list[BatchFeature]
) -> Observation:
    """Run code that came with the model, which the manifest pins by its commit: VideoMAE-v2's."""
    import torch

    loaded = pretrained_own(config, request, folder)
    run = Run(loaded)
    outputs = []
    for batch in batches:
        frames = batch["pixel_values"].to(loaded.device, loaded.dtype).transpose(1, 2)  # channels before time
        with torch.inference_mode():
            answer = loaded.model(frames)
        outputs.append(answer if isinstance(answer, torch.Tensor) else next(iter(answer.values())))
    return run.observe(outputs, (1, ANY), f"{outputs[0].shape[-1]} features, by the model's own code")


def _top(logits: torch.Tensor, labels: dict[int, str]) -> dict[str, float]:
    shares = logits[0].float().softmax(dim=0)
    best = shares.argsort(descending=True)[:TOP].tolist()
    return {str(labels.get(index, index)): float(shares[index]) for index in best}
