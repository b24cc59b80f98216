"""A tiny VideoMAE classifier in the layout of `MCG-NJU/videomae-base-finetuned-kinetics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from files import safetensors
from weights import Shape, draw, linear, norm

if TYPE_CHECKING:
    from files import Json, Tree

WIDTH, INNER, LAYERS, HEADS, FRAMES, TUBELET, PATCH = 32, 64, 2, 2, 16, 2, 16
LABELS = ("cutting", "drilling", "knot tying", "raising hands", "resting", "rinsing", "suturing", "waving")


def write(tree: Tree, folder: str) -> None:
    """Write the model under the folder."""
    tree.write_json(f"{folder}/config.json", _config())
    tree.write_json(f"{folder}/preprocessor_config.json", _preprocessor())
    tree.write(f"{folder}/model.safetensors", safetensors(draw("videomae-tiny", _table())))


def _config() -> Json:
    return {
        "architectures": ["VideoMAEForVideoClassification"],
        "model_type": "videomae",
        "dtype": "float32",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_frames": FRAMES,
        "tubelet_size": TUBELET,
        "patch_size": PATCH,
        "image_size": 224,
        "num_channels": 3,
        "qkv_bias": True,
        "use_mean_pooling": True,
        "id2label": {str(number): label for number, label in enumerate(LABELS)},
        "label2id": {label: number for number, label in enumerate(LABELS)},
    }


def _preprocessor() -> Json:
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
    }


def _table() -> dict[str, Shape]:
    patches = "videomae.embeddings.patch_embeddings.projection"
    table: dict[str, Shape] = {
        f"{patches}.weight": (WIDTH, 3, TUBELET, PATCH, PATCH),
        f"{patches}.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"videomae.encoder.layer.{number}"
        attention = f"{layer}.attention.attention"
        for part in ("query", "key", "value"):
            table |= linear(f"{attention}.{part}", WIDTH, WIDTH, bias=False)
        # The published checkpoints keep the biases beside the matrices, under names of their own.
        table |= {f"{attention}.q_bias": (WIDTH,), f"{attention}.v_bias": (WIDTH,)}
        table |= linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        table |= linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        table |= linear(f"{layer}.output.dense", WIDTH, INNER)
        table |= norm(f"{layer}.layernorm_before", WIDTH) | norm(f"{layer}.layernorm_after", WIDTH)
    return table | norm("fc_norm", WIDTH) | linear("classifier", len(LABELS), WIDTH)
