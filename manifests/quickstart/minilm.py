"""A tiny text encoder in the layout of `sentence-transformers/all-MiniLM-L6-v2`: BERT without a pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from files import safetensors
from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Json, Tree

WIDTH, INNER, LAYERS, HEADS, LONGEST = 32, 64, 2, 2, 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *"abcdefghijklmnopqrstuvwxyz.,", *(f"##{char}" for char in "abcdefghijklmnopqrstuvwxyz"),
    "the", "student", "ties", "surgical", "knot", "weather", "over", "lake", "is", "calm", "today",
)  # fmt: skip
VOCABULARY = (*SPECIAL, *WORDS)


def write(tree: Tree, folder: str) -> None:
    """Write the model under the folder."""
    tree.write_json(f"{folder}/config.json", _config())
    tree.write_json(f"{folder}/tokenizer.json", _tokenizer())
    tree.write_json(f"{folder}/tokenizer_config.json", _tokenizer_config())
    tree.write(f"{folder}/vocab.txt", "".join(f"{word}\n" for word in VOCABULARY).encode())
    tree.write(f"{folder}/model.safetensors", safetensors(draw("minilm-tiny", _table())))


def _config() -> Json:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float32",
        "vocab_size": len(VOCABULARY),
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    }


def _tokenizer() -> Json:
    marks: dict[str, Json] = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    first: list[Json] = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
    last: list[Json] = [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "special": True, **marks} for number, token in enumerate(SPECIAL)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*first, {"Sequence": {"id": "A", "type_id": 0}}, *last],
            "pair": [*first, {"Sequence": {"id": "A", "type_id": 0}}, *last],
            "special_tokens": {
                token: {"id": token, "ids": [SPECIAL.index(token)], "tokens": [token]}
                for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(VOCABULARY)},
        },
    }


def _tokenizer_config() -> Json:
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": LONGEST,
        **dict(zip(names, SPECIAL, strict=True)),
    }


def _table() -> dict[str, Shape]:
    rows = (("word", len(VOCABULARY)), ("position", LONGEST), ("token_type", 2))
    table: dict[str, Shape] = {f"embeddings.{name}_embeddings.weight": (count, WIDTH) for name, count in rows}
    table |= norm("embeddings.LayerNorm", WIDTH)
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            table |= linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        table |= linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        table |= linear(f"{layer}.output.dense", WIDTH, INNER)
        for name in ("attention.output", "output"):
            table |= norm(f"{layer}.{name}.LayerNorm", WIDTH)
    return table
