"""Vision-language models such as Qwen2-VL: describe a picture, through the model's chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import draw, inputs
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import BatchFeature, ProcessorMixin

    from ..request import Observation, ProbeRequest
    from .loading import Loaded

# The shipped limit of 16,384 visual tokens is what runs a GPU out of memory.
MAX_PIXELS = 512 * 28 * 28
MAX_NEW_TOKENS = 16
PROMPT = "Describe this image."


def observe(request: ProbeRequest) -> Observation:
    """Describe two pictures, and compare the scores of the first word."""
    pictures = inputs.pictures(request)  # before the slow imports: what cannot be read is told at once
    locate(request)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(
        request.model, max_pixels=request.max_pixels or MAX_PIXELS, **source_of(request)
    )
    batches = [_ask(processor, picture, request.prompt or PROMPT) for picture in pictures]
    # Of the prompt only the last token's scores are computed, as `generate` does it.
    loaded = pretrained(AutoModelForImageTextToText, request, {**batches[0], "logits_to_keep": 1})
    run = Run(loaded)
    answers = [_answer(loaded, batch, request.max_new_tokens or MAX_NEW_TOKENS) for batch in batches]
    length = batches[0]["input_ids"].shape[1]
    sequences, _ = answers[0]
    caption = processor.batch_decode(sequences[:, length:], skip_special_tokens=True)[0]
    draw.save(draw.panel(pictures[0]), request)
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    text = f"{length} prompt tokens; answer: {caption}"
    return run.observe([scores for _, scores in answers], (1, vocabulary), text)


def _ask(processor: ProcessorMixin, picture: Image, prompt: str) -> BatchFeature:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def _answer(loaded: Loaded, batch: BatchFeature, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of prompt and answer, and the scores of the answer's first word."""
    import torch

    with torch.inference_mode():
        answer = loaded.model.generate(
            **batch.to(loaded.device, loaded.dtype),
            max_new_tokens=most,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return answer.sequences, answer.logits[0]
