"""The tiny SAM in the form of transformers, laid out like `facebook/sam-vit-base` on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from files import safetensors
from sam import (
    DECODER_INNER,
    DECODER_LAYERS,
    GLOBAL,
    GRID,
    HEADS,
    INNER,
    LAYERS,
    MASK_CHANNELS,
    MASKS,
    PATCH,
    PROMPT,
    WIDTH,
    WINDOW,
)
from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Json, Tree

SIDE = GRID * PATCH


def write(tree: Tree, folder: str) -> None:
    """Write the model under the folder."""
    tree.write_json(f"{folder}/config.json", _config())
    tree.write_json(f"{folder}/preprocessor_config.json", _preprocessor())
    table = _encoder() | _prompts() | _decoder()
    tree.write(f"{folder}/model.safetensors", safetensors(draw("sam-hub-tiny", table)))


def _config() -> Json:
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "dtype": "float32",
        "vision_config": {
            "model_type": "sam_vision_model",
            "hidden_size": WIDTH,
            "mlp_dim": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "global_attn_indexes": list(GLOBAL),
            "window_size": WINDOW,
            "output_channels": PROMPT,
            "num_pos_feats": PROMPT // 2,
            "patch_size": PATCH,
            "image_size": SIDE,
        },
        "prompt_encoder_config": {
            "model_type": "sam_prompt_encoder",
            "hidden_size": PROMPT,
            "image_size": SIDE,
            "image_embedding_size": GRID,
            "patch_size": PATCH,
            "mask_input_channels": MASK_CHANNELS,
        },
        "mask_decoder_config": {
            "model_type": "sam_mask_decoder",
            "hidden_size": PROMPT,
            "mlp_dim": DECODER_INNER,
            "num_hidden_layers": DECODER_LAYERS,
            "num_multimask_outputs": MASKS - 1,
            "iou_head_hidden_dim": PROMPT,
        },
    }


def _preprocessor() -> Json:
    return {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_pad": True,
        "do_convert_rgb": True,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": SIDE},
        "pad_size": {"height": SIDE, "width": SIDE},
        "mask_size": {"longest_edge": SIDE},
        "mask_pad_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
    }


def _encoder() -> dict[str, Shape]:
    root = "vision_encoder"
    table: dict[str, Shape] = {
        "shared_image_embedding.positional_embedding": (2, PROMPT // 2),
        f"{root}.pos_embed": (1, GRID, GRID, WIDTH),
        f"{root}.patch_embed.projection.weight": (WIDTH, 3, PATCH, PATCH),
        f"{root}.patch_embed.projection.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"{root}.layers.{number}"
        reach = 2 * (GRID if number in GLOBAL else WINDOW) - 1
        table |= norm(f"{layer}.layer_norm1", WIDTH) | norm(f"{layer}.layer_norm2", WIDTH)
        table |= {f"{layer}.attn.rel_pos_{axis}": (reach, WIDTH // HEADS) for axis in "hw"}
        table |= linear(f"{layer}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{layer}.attn.proj", WIDTH, WIDTH)
        table |= linear(f"{layer}.mlp.lin1", INNER, WIDTH) | linear(f"{layer}.mlp.lin2", WIDTH, INNER)
    neck = f"{root}.neck"
    table |= {f"{neck}.conv1.weight": (PROMPT, WIDTH, 1, 1), f"{neck}.conv2.weight": (PROMPT, PROMPT, 3, 3)}
    return table | norm(f"{neck}.layer_norm1", PROMPT) | norm(f"{neck}.layer_norm2", PROMPT)


def _prompts() -> dict[str, Shape]:
    root, half = "prompt_encoder", MASK_CHANNELS // 4
    table: dict[str, Shape] = {
        f"{root}.{name}.weight": (1, PROMPT)
        for name in ("no_mask_embed", "not_a_point_embed", *(f"point_embed.{number}" for number in range(4)))
    }
    convolutions = ((half, 1, 2, 2), (MASK_CHANNELS, half, 2, 2), (PROMPT, MASK_CHANNELS, 1, 1))
    for number, shape in enumerate(convolutions, 1):
        name = f"{root}.mask_embed.conv{number}"
        table |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    table |= norm(f"{root}.mask_embed.layer_norm1", half)
    return table | norm(f"{root}.mask_embed.layer_norm2", MASK_CHANNELS)


def _decoder() -> dict[str, Shape]:
    root = "mask_decoder"
    table: dict[str, Shape] = {
        f"{root}.iou_token.weight": (1, PROMPT),
        f"{root}.mask_tokens.weight": (MASKS, PROMPT),
    }
    for number in range(DECODER_LAYERS):
        layer = f"{root}.transformer.layers.{number}"
        table |= _attention(f"{layer}.self_attn", PROMPT)
        table |= _attention(f"{layer}.cross_attn_token_to_image", PROMPT // 2)
        table |= _attention(f"{layer}.cross_attn_image_to_token", PROMPT // 2)
        table |= linear(f"{layer}.mlp.lin1", DECODER_INNER, PROMPT)
        table |= linear(f"{layer}.mlp.lin2", PROMPT, DECODER_INNER)
        for quarter in range(1, 5):
            table |= norm(f"{layer}.layer_norm{quarter}", PROMPT)
    table |= _attention(f"{root}.transformer.final_attn_token_to_image", PROMPT // 2)
    table |= norm(f"{root}.transformer.layer_norm_final_attn", PROMPT)
    for number, (wide, narrow) in enumerate(((PROMPT, PROMPT // 4), (PROMPT // 4, PROMPT // 8)), 1):
        name = f"{root}.upscale_conv{number}"
        table |= {f"{name}.weight": (wide, narrow, 2, 2), f"{name}.bias": (narrow,)}
    table |= norm(f"{root}.upscale_layer_norm", PROMPT // 4) | _mlp(f"{root}.iou_prediction_head", MASKS)
    for mask in range(MASKS):
        table |= _mlp(f"{root}.output_hypernetworks_mlps.{mask}", PROMPT // 8)
    return table


def _attention(name: str, inner: int) -> dict[str, Shape]:
    table = linear(f"{name}.out_proj", PROMPT, inner)
    for part in ("q_proj", "k_proj", "v_proj"):
        table |= linear(f"{name}.{part}", inner, PROMPT)
    return table


def _mlp(name: str, outputs: int) -> dict[str, Shape]:
    table = linear(f"{name}.proj_in", PROMPT, PROMPT) | linear(f"{name}.layers.0", PROMPT, PROMPT)
    return table | linear(f"{name}.proj_out", outputs, PROMPT)
