"""A tiny Qwen2-VL in the layout of `Qwen/Qwen2-VL-2B-Instruct`: shards, index, processor, tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qwen2_tokenizer
from files import sharded
from qwen2_tokenizer import IDS, SIZE
from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Json, Tree

WIDTH, INNER, LAYERS, HEADS, KEY_HEADS = 64, 128, 2, 4, 2
EYE_WIDTH, EYE_LAYERS, EYE_HEADS, PATCH, MERGE = 32, 2, 2, 14, 2
SHARDS = 2


def write(tree: Tree, folder: str) -> None:
    """Write the model under the folder."""
    qwen2_tokenizer.write(tree, folder)
    tree.write_json(f"{folder}/config.json", _config())
    tree.write_json(f"{folder}/generation_config.json", _generation())
    tree.write_json(f"{folder}/preprocessor_config.json", _preprocessor())
    for name, data in sharded(draw("qwen2-vl-tiny", _eye() | _language()), SHARDS):
        tree.write(f"{folder}/{name}", data)


def _config() -> Json:
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "torch_dtype": "float32",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "vocab_size": SIZE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": True,
        "bos_token_id": IDS["<|endoftext|>"],
        "eos_token_id": IDS["<|im_end|>"],
        "pad_token_id": IDS["<|endoftext|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_config": {
            "model_type": "qwen2_vl",
            "depth": EYE_LAYERS,
            "embed_dim": EYE_WIDTH,
            "num_heads": EYE_HEADS,
            "hidden_size": WIDTH,
            "mlp_ratio": 2,
            "in_channels": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
        },
    }


def _generation() -> Json:
    return {
        "bos_token_id": IDS["<|endoftext|>"],
        "eos_token_id": [IDS["<|im_end|>"], IDS["<|endoftext|>"]],
        "pad_token_id": IDS["<|endoftext|>"],
        "do_sample": False,
    }


def _preprocessor() -> Json:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }


def _eye() -> dict[str, Shape]:
    table: dict[str, Shape] = {"visual.patch_embed.proj.weight": (EYE_WIDTH, 3, 2, PATCH, PATCH)}
    for number in range(EYE_LAYERS):
        block = f"visual.blocks.{number}"
        table |= norm(f"{block}.norm1", EYE_WIDTH) | norm(f"{block}.norm2", EYE_WIDTH)
        table |= linear(f"{block}.attn.qkv", 3 * EYE_WIDTH, EYE_WIDTH)
        table |= linear(f"{block}.attn.proj", EYE_WIDTH, EYE_WIDTH)
        table |= linear(f"{block}.mlp.fc1", 2 * EYE_WIDTH, EYE_WIDTH)
        table |= linear(f"{block}.mlp.fc2", EYE_WIDTH, 2 * EYE_WIDTH)
    merged = EYE_WIDTH * MERGE**2
    table |= norm("visual.merger.ln_q", EYE_WIDTH) | linear("visual.merger.mlp.0", merged, merged)
    return table | linear("visual.merger.mlp.2", WIDTH, merged)


def _language() -> dict[str, Shape]:
    table: dict[str, Shape] = {"model.embed_tokens.weight": (SIZE, WIDTH)}
    keys = WIDTH * KEY_HEADS // HEADS
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        table |= linear(f"{layer}.self_attn.q_proj", WIDTH, WIDTH)
        table |= linear(f"{layer}.self_attn.k_proj", keys, WIDTH)
        table |= linear(f"{layer}.self_attn.v_proj", keys, WIDTH)
        table |= linear(f"{layer}.self_attn.o_proj", WIDTH, WIDTH, bias=False)
        table |= linear(f"{layer}.mlp.gate_proj", INNER, WIDTH, bias=False)
        table |= linear(f"{layer}.mlp.up_proj", INNER, WIDTH, bias=False)
        table |= linear(f"{layer}.mlp.down_proj", WIDTH, INNER, bias=False)
        table |= norm(f"{layer}.input_layernorm", WIDTH, bias=False)
        table |= norm(f"{layer}.post_attention_layernorm", WIDTH, bias=False)
    return table | norm("model.norm", WIDTH, bias=False)
