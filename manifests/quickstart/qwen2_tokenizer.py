"""A byte-level tokenizer of a few words, in the files of Qwen2: vocab.json, merges.txt, tokenizer.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from files import Json, Tree

WORDS = (
    "a", "the", "in", "of", "on", "with", "and", "is", "are", "left", "right", "above", "below", "red",
    "blue", "green", "yellow", "white", "black", "circle", "square", "line", "ring", "ball", "hand", "light",
    "dark", "small", "large", "picture", "colour", "background", "shows", "moves",
)  # fmt: skip
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# ChatML, with the marks that the processor widens to one per visual token.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def _symbols() -> list[str]:
    """Return the printable character that stands for each byte, as in GPT-2."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(0x100)]


def _pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    symbols = _symbols()
    vocab = {symbol: number for number, symbol in enumerate(symbols)}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        whole = symbols[ord(" ")]
        for char in word:
            if whole + char not in vocab:
                merges.append((whole, char))
                vocab[whole + char] = len(vocab)
            whole += char
    return vocab, merges


VOCAB, MERGES = _pieces()
IDS = {token: len(VOCAB) + number for number, token in enumerate(SPECIAL)}
SIZE = len(VOCAB) + len(SPECIAL)


def write(tree: Tree, folder: str) -> None:
    """Write the tokenizer's files under the folder."""
    merges = "".join(f"{left} {right}\n" for left, right in MERGES)
    tree.write(f"{folder}/merges.txt", f"#version: 0.2\n{merges}".encode())
    tree.write_json(f"{folder}/vocab.json", dict(VOCAB))
    tree.write_json(f"{folder}/tokenizer.json", _tokenizer())
    tree.write_json(f"{folder}/tokenizer_config.json", _config())
    tree.write_json(f"{folder}/chat_template.json", {"chat_template": CHAT_TEMPLATE})


def _added(token: str) -> dict[str, Json]:
    marks: dict[str, Json] = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": token, "special": True, **marks}


def _tokenizer() -> Json:
    byte_level: dict[str, Json] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": True,
    }
    model: dict[str, Json] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": dict(VOCAB),
        "merges": [f"{left} {right}" for left, right in MERGES],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": IDS[token], **_added(token)} for token in SPECIAL],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }


def _config() -> Json:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(IDS[token]): _added(token) for token in SPECIAL},
        "additional_special_tokens": list(SPECIAL[1:]),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "model_max_length": 32768,
        "chat_template": CHAT_TEMPLATE,
    }
