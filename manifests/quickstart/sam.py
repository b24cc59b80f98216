"""A tiny SAM checkpoint for Meta's `segment_anything`: its architecture, at 256 pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Tree

WIDTH, INNER, LAYERS, HEADS, GRID, PATCH, WINDOW = 32, 64, 2, 2, 16, 16, 7
GLOBAL = (1,)
PROMPT, DECODER_LAYERS, DECODER_INNER, MASK_CHANNELS, MASKS = 32, 2, 64, 16, 4


def write(tree: Tree, path: str) -> None:
    """Write the checkpoint under the path."""
    import torch

    table = _encoder() | _prompts() | _decoder()
    state = {name: torch.from_numpy(array) for name, array in draw("sam-tiny", table).items()}
    buffer = io.BytesIO()  # a file would leave its own name in the archive
    torch.save(state, buffer)
    tree.write(path, buffer.getvalue())


def _encoder() -> dict[str, Shape]:
    root = "image_encoder"
    table: dict[str, Shape] = {
        f"{root}.pos_embed": (1, GRID, GRID, WIDTH),
        f"{root}.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        f"{root}.patch_embed.proj.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        block = f"{root}.blocks.{number}"
        reach = 2 * (GRID if number in GLOBAL else WINDOW) - 1
        table |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        table |= {f"{block}.attn.rel_pos_{axis}": (reach, WIDTH // HEADS) for axis in "hw"}
        table |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        table |= linear(f"{block}.mlp.lin1", INNER, WIDTH) | linear(f"{block}.mlp.lin2", WIDTH, INNER)
    table |= {f"{root}.neck.0.weight": (PROMPT, WIDTH, 1, 1), f"{root}.neck.2.weight": (PROMPT, PROMPT, 3, 3)}
    return table | norm(f"{root}.neck.1", PROMPT) | norm(f"{root}.neck.3", PROMPT)


def _prompts() -> dict[str, Shape]:
    root, half = "prompt_encoder", MASK_CHANNELS // 4
    table: dict[str, Shape] = {
        f"{root}.pe_layer.positional_encoding_gaussian_matrix": (2, PROMPT // 2),
        f"{root}.not_a_point_embed.weight": (1, PROMPT),
        f"{root}.no_mask_embed.weight": (1, PROMPT),
    }
    table |= {f"{root}.point_embeddings.{number}.weight": (1, PROMPT) for number in range(4)}
    down = f"{root}.mask_downscaling"
    table |= norm(f"{down}.1", half) | norm(f"{down}.4", MASK_CHANNELS)
    for number, shape in (
        (0, (half, 1, 2, 2)),
        (3, (MASK_CHANNELS, half, 2, 2)),
        (6, (PROMPT, MASK_CHANNELS, 1, 1)),
    ):
        table |= {f"{down}.{number}.weight": shape, f"{down}.{number}.bias": shape[:1]}
    return table


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
        for half in range(1, 5):
            table |= norm(f"{layer}.norm{half}", PROMPT)
    table |= _attention(f"{root}.transformer.final_attn_token_to_image", PROMPT // 2)
    table |= norm(f"{root}.transformer.norm_final_attn", PROMPT)
    up = f"{root}.output_upscaling"
    table |= {f"{up}.0.weight": (PROMPT, PROMPT // 4, 2, 2), f"{up}.0.bias": (PROMPT // 4,)}
    table |= {f"{up}.3.weight": (PROMPT // 4, PROMPT // 8, 2, 2), f"{up}.3.bias": (PROMPT // 8,)}
    table |= norm(f"{up}.1", PROMPT // 4) | _mlp(f"{root}.iou_prediction_head", MASKS)
    for mask in range(MASKS):
        table |= _mlp(f"{root}.output_hypernetworks_mlps.{mask}", PROMPT // 8)
    return table


def _attention(name: str, inner: int) -> dict[str, Shape]:
    table = linear(f"{name}.out_proj", PROMPT, inner)
    for part in ("q_proj", "k_proj", "v_proj"):
        table |= linear(f"{name}.{part}", inner, PROMPT)
    return table


def _mlp(name: str, outputs: int) -> dict[str, Shape]:
    table = linear(f"{name}.layers.0", PROMPT, PROMPT) | linear(f"{name}.layers.1", PROMPT, PROMPT)
    return table | linear(f"{name}.layers.2", outputs, PROMPT)
