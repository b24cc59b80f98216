"""Vision-language models such as Qwen2-VL: describe a picture, through the model's chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import inputs
from .loading import locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    from ..request import Observation, ProbeRequest

# The shipped limit of 16,384 visual tokens is what runs a GPU out of memory.
MAX_PIXELS = 512 * 28 * 28
MAX_NEW_TOKENS = 16
PROMPT = "Describe this image."


def observe(request: ProbeRequest) -> Observation:
    """Describe two pictures, and compare the scores of the first word."""
    pictures = inputs.pictures(request)  # before the slow imports: what cannot be read is told at once
    locate(request)
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    loaded = pretrained(AutoModelForImageTextToText, request)
    processor = AutoProcessor.from_pretrained(
        request.model, max_pixels=request.max_pixels or MAX_PIXELS, **source_of(request)
    )
    run = Run(loaded)
    scores, captions, length = [], [], 0
    for picture in pictures:
        content = [
            {"type": "image", "image": picture},
            {"type": "text", "text": request.prompt or PROMPT},
        ]
        batch = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(loaded.device, loaded.dtype)
        length = batch["input_ids"].shape[1]
        with torch.inference_mode():
            answer = loaded.model.generate(
                **batch,
                max_new_tokens=request.max_new_tokens or MAX_NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        scores.append(answer.logits[0])
        captions.append(processor.batch_decode(answer.sequences[:, length:], skip_special_tokens=True)[0])
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    text = f"{length} prompt tokens; answer: {captions[0]}"
    return run.observe(scores[0], scores[1], (1, vocabulary), text)
