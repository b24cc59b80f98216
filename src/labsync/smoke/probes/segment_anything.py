"""Segment Anything: Meta's package for a `.pth` checkpoint, transformers for a model folder or hub id."""

from __future__ import annotations

import re
import time
import zipfile
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ..request import ANY, Observation
from . import inputs
from .loading import Loaded, ProbeError, device_of, dtype_of, locate, pretrained, source_of
from .measure import Run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from PIL.Image import Image

    from ..request import ProbeRequest

Pair: TypeAlias = "tuple[Image, Image]"
Points: TypeAlias = "list[list[float]]"

HEADS = 8  # of the mask decoder, the same in every published SAM; no tensor's shape tells it
_PIXEL_MEAN, _PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def observe(request: ProbeRequest) -> Observation:
    """Segment two pictures at the same points."""
    pictures = inputs.pictures(request)  # before the slow imports: what cannot be read is told at once
    at = inputs.points(request, pictures[0].size)
    found = locate(request)
    if (found / "config.json").is_file():
        return _observe_transformers(request, pictures, at)
    checkpoint = found if found.is_file() else _only_checkpoint(found)
    return _observe_meta(_load_meta(request, checkpoint), pictures, at)


def _only_checkpoint(folder: Path) -> Path:
    checkpoints = sorted(folder.glob("*.pth"))
    if len(checkpoints) != 1:
        raise ProbeError(
            f"`{folder}` holds {len(checkpoints)} `.pth` files where one SAM checkpoint is expected"
        )
    return checkpoints[0]


def _observe_meta(loaded: Loaded, pictures: Pair, at: Points) -> Observation:
    import torch
    from segment_anything import SamPredictor

    predictor = SamPredictor(loaded.model)
    run = Run(loaded)
    first, second = pictures
    # Meta's code keeps float32 weights and buffers; half precision is autocast's business.
    with torch.autocast(loaded.device.type, loaded.dtype, enabled=loaded.dtype != torch.float32):
        logits, scores, masks = _predict(predictor, first, at)
        other, _, _ = _predict(predictor, second, at)
    width, height = first.size
    count, side = _masks_of(loaded.model)
    text = f"{count} masks, best score {float(scores.max()):.2f}, covering {_cover(masks, scores):.0%}"
    if tuple(masks.shape) != (1, count, height, width):
        raise ProbeError(f"the masks have the shape {tuple(masks.shape)} for a picture of {width}x{height}")
    return run.observe(logits, other, (1, count, side, side), text)


def _predict(
    predictor: object, picture: Image, at: Points
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the low-resolution logits, the scores and the masks, all as tensors: numpy has no bfloat16."""
    import numpy as np
    import torch
    from segment_anything import SamPredictor

    assert isinstance(predictor, SamPredictor)
    predictor.set_image(np.asarray(picture))
    coordinates = predictor.transform.apply_coords(np.array(at, np.float32), predictor.original_size)
    points = torch.as_tensor(coordinates, dtype=torch.float, device=predictor.device)[None]
    labels = torch.ones(points.shape[:2], dtype=torch.int, device=predictor.device)
    masks, scores, logits = predictor.predict_torch(points, labels, multimask_output=True)
    return logits, scores, masks


def _cover(masks: torch.Tensor, scores: torch.Tensor) -> float:
    return float(masks[0, int(scores.argmax())].float().mean())


def _masks_of(model: torch.nn.Module) -> tuple[int, int]:
    decoder, prompts = model.get_submodule("mask_decoder"), model.get_submodule("prompt_encoder")
    return int(decoder.num_multimask_outputs), 4 * int(prompts.image_embedding_size[0])


def _load_meta(request: ProbeRequest, checkpoint: Path) -> Loaded:
    import torch
    from segment_anything.modeling import Sam

    device, dtype = device_of(request), dtype_of(request)
    started = time.perf_counter()
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(checkpoint))
    try:
        model = _build(Sam, Shapes(state))
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise ProbeError(f"this is not a checkpoint of `segment_anything`: {error}") from error
    wanted = model.state_dict()
    wrong = {key for key in state if key in wanted and state[key].shape != wanted[key].shape}
    keys = model.load_state_dict({key: state[key] for key in state if key not in wrong}, strict=False)
    return Loaded(
        model.to(device).eval(),
        device,
        dtype,
        time.perf_counter() - started,
        tuple(key for key in keys.missing_keys if key not in wrong),
        tuple(keys.unexpected_keys),
        tuple(sorted(wrong)),
    )


class Shapes:
    """The shapes of a checkpoint's tensors, from which the architecture is read off."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self._shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def __call__(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; raises KeyError naming a missing one."""
        if name not in self._shapes:
            raise KeyError(f"the tensor {name} is missing")
        return self._shapes[name]

    def count(self, prefix: str) -> int:
        """Return how many numbered parts there are under the prefix."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
        numbers = {int(match[1]) for name in self._shapes if (match := pattern.match(name))}
        return max(numbers, default=-1) + 1


def _build(sam: type[torch.nn.Module], shapes: Shapes) -> torch.nn.Module:
    _, grid, _, _ = shapes("image_encoder.pos_embed")
    patch = shapes("image_encoder.patch_embed.proj.weight")[-1]
    width = shapes("image_encoder.neck.0.weight")[0]
    return sam(
        image_encoder=_build_encoder(shapes, grid, patch, width),
        prompt_encoder=_build_prompts(shapes, grid, patch, width),
        mask_decoder=_build_decoder(shapes, width),
        pixel_mean=_PIXEL_MEAN,
        pixel_std=_PIXEL_STD,
    )


def _build_encoder(shapes: Shapes, grid: int, patch: int, width: int) -> torch.nn.Module:
    import torch
    from segment_anything.modeling import ImageEncoderViT

    root = "image_encoder"
    embed = shapes(f"{root}.pos_embed")[3]
    depth = shapes.count(f"{root}.blocks")
    reaches = [shapes(f"{root}.blocks.{number}.attn.rel_pos_h") for number in range(depth)]
    windows = {(reach + 1) // 2 for reach, _ in reaches if reach != 2 * grid - 1}
    encoder: torch.nn.Module = ImageEncoderViT(
        depth=depth,
        embed_dim=embed,
        img_size=grid * patch,
        mlp_ratio=shapes(f"{root}.blocks.0.mlp.lin1.weight")[0] / embed,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=embed // reaches[0][1],
        patch_size=patch,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=[n for n, (reach, _) in enumerate(reaches) if reach == 2 * grid - 1],
        window_size=max(windows, default=0),
        out_chans=width,
    )
    return encoder


def _build_prompts(shapes: Shapes, grid: int, patch: int, width: int) -> torch.nn.Module:
    from segment_anything.modeling import PromptEncoder

    encoder: torch.nn.Module = PromptEncoder(
        embed_dim=width,
        image_embedding_size=(grid, grid),
        input_image_size=(grid * patch, grid * patch),
        mask_in_chans=shapes("prompt_encoder.mask_downscaling.3.weight")[0],
    )
    return encoder


def _build_decoder(shapes: Shapes, width: int) -> torch.nn.Module:
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

    root = "mask_decoder"
    transformer = TwoWayTransformer(
        depth=shapes.count(f"{root}.transformer.layers"),
        embedding_dim=width,
        mlp_dim=shapes(f"{root}.transformer.layers.0.mlp.lin1.weight")[0],
        num_heads=HEADS,
    )
    decoder: torch.nn.Module = MaskDecoder(
        num_multimask_outputs=shapes(f"{root}.mask_tokens.weight")[0] - 1,
        transformer=transformer,
        transformer_dim=width,
        iou_head_depth=shapes.count(f"{root}.iou_prediction_head.layers"),
        iou_head_hidden_dim=shapes(f"{root}.iou_prediction_head.layers.0.weight")[0],
    )
    return decoder


def _observe_transformers(request: ProbeRequest, pictures: Pair, at: Points) -> Observation:
    import torch
    from transformers import SamModel, SamProcessor

    loaded = pretrained(SamModel, request)
    processor = SamProcessor.from_pretrained(request.model, **source_of(request))
    run = Run(loaded)
    outputs = []
    for picture in pictures:
        batch = processor(picture, input_points=[at], return_tensors="pt")
        # `to` casts floats alone; without the cast a half-precision model refuses its input.
        with torch.inference_mode():
            outputs.append(loaded.model(**batch.to(loaded.device, loaded.dtype)))
    text = f"{outputs[0].iou_scores.numel()} masks, best score {float(outputs[0].iou_scores.max()):.2f}"
    return run.observe(outputs[0].pred_masks, outputs[1].pred_masks, (1, 1, ANY, ANY, ANY), text)
