"""A tiny DINOv3 vision transformer in the layout of `facebook/dinov3-vits16-pretrain-lvd1689m`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from files import safetensors
from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Json, Tree

WIDTH, INNER, LAYERS, HEADS, REGISTERS, PATCH = 64, 128, 2, 4, 4, 16


def write(tree: Tree, folder: str) -> None:
    """Write the model under the folder."""
    tree.write_json(f"{folder}/config.json", _config())
    tree.write_json(f"{folder}/preprocessor_config.json", _preprocessor())
    tree.write(f"{folder}/model.safetensors", safetensors(draw("dinov3-tiny", _table())))


def _config() -> Json:
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "dtype": "float32",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_register_tokens": REGISTERS,
        "patch_size": PATCH,
        "image_size": 224,
        "num_channels": 3,
        "hidden_act": "gelu",
        "rope_theta": 100.0,
        "layerscale_value": 1.0,
        "key_bias": False,
    }


def _preprocessor() -> Json:
    return {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
    }


def _table() -> dict[str, Shape]:
    table: dict[str, Shape] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.mask_token": (1, 1, WIDTH),
        "embeddings.register_tokens": (1, REGISTERS, WIDTH),
        "embeddings.patch_embeddings.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"layer.{number}"
        table |= norm(f"{layer}.norm1", WIDTH) | norm(f"{layer}.norm2", WIDTH)
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            table |= linear(f"{layer}.attention.{part}", WIDTH, WIDTH, bias=part != "k_proj")
        table |= linear(f"{layer}.mlp.up_proj", INNER, WIDTH) | linear(f"{layer}.mlp.down_proj", WIDTH, INNER)
        table |= {f"{layer}.layer_scale{half}.lambda1": (WIDTH,) for half in (1, 2)}
    return table | norm("norm", WIDTH)
