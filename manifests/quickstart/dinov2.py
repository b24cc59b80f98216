"""A tiny DINOv2 vision transformer in the layout of `facebook/dinov2-small`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from files import safetensors
from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Json, Tree

WIDTH, INNER, LAYERS, HEADS, PATCH, TRAINED = 64, 128, 2, 4, 14, 224


def write(tree: Tree, folder: str) -> None:
    """Write the model under the folder."""
    tree.write_json(f"{folder}/config.json", _config())
    tree.write_json(f"{folder}/preprocessor_config.json", _preprocessor())
    tree.write(f"{folder}/model.safetensors", safetensors(draw("dinov2-tiny", _table())))


def _config() -> Json:
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "dtype": "float32",
        "hidden_size": WIDTH,
        "mlp_ratio": INNER // WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "patch_size": PATCH,
        "image_size": TRAINED,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layerscale_value": 1.0,
        "qkv_bias": True,
    }


def _preprocessor() -> Json:
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": TRAINED},
        "crop_size": {"height": TRAINED, "width": TRAINED},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    }


def _table() -> dict[str, Shape]:
    patches = "embeddings.patch_embeddings.projection"
    table: dict[str, Shape] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.mask_token": (1, WIDTH),
        "embeddings.position_embeddings": (1, 1 + (TRAINED // PATCH) ** 2, WIDTH),
        f"{patches}.weight": (WIDTH, 3, PATCH, PATCH),
        f"{patches}.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        table |= norm(f"{layer}.norm1", WIDTH) | norm(f"{layer}.norm2", WIDTH)
        for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
            table |= linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        table |= linear(f"{layer}.mlp.fc1", INNER, WIDTH) | linear(f"{layer}.mlp.fc2", WIDTH, INNER)
        table |= {f"{layer}.layer_scale{half}.lambda1": (WIDTH,) for half in (1, 2)}
    return table | norm("layernorm", WIDTH)
