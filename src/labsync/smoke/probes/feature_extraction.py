"""Text encoders: the embedding of a sentence, by the mean over its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import draw
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    from ..request import Observation, ProbeRequest

SENTENCES = ("A student ties a surgical knot.", "The weather over the lake is calm today.")


def observe(request: ProbeRequest) -> Observation:
    """Embed two sentences."""
    locate(request)
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request.model, **source_of(request))
    batches = [
        tokenizer(sentence, return_tensors="pt", truncation=True)
        for sentence in (request.prompt or SENTENCES[0], SENTENCES[1])
    ]
    loaded = pretrained(AutoModel, request, batches[0])
    run = Run(loaded)
    embeddings = []
    for batch in batches:
        with torch.inference_mode():
            hidden = loaded.model(**batch.to(loaded.device)).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        embeddings.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
    draw.save(draw.stripes(torch.cat(embeddings)), request)
    similarity = float(torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1])[0])
    width = int(loaded.model.config.hidden_size)
    text = f"embedding of {width} numbers, likeness of two sentences {similarity:.2f}"
    return run.observe(embeddings, (1, width), text)
