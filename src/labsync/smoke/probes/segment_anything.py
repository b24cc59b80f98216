"""Segment Anything: Meta's package for a `.pth` checkpoint, transformers for a model folder or hub id."""

from __future__ import annotations

import re
import time
import zipfile
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ..request import ANY, Observation
from . import draw, inputs
from .errors import ProbeError
from .loading import Loaded, device_of, ensure_room, locate, precision_of, pretrained, source_of
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
_NOT_SAM = "this is not a checkpoint of `segment_anything`"
_PIXEL_MEAN, _PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def observe(request: ProbeRequest) -> Observation:
    """Segment two pictures at the same points."""
    pictures = inputs.pictures(request)  # before the slow imports: what cannot be read is told at once
    at = inputs.points(request, pictures[0].size)
    found = locate(request)
    if (found / "config.json").is_file():
        return _observe_transformers(request, pictures, at)
    checkpoint = found if found.is_file() else _only_checkpoint(found)
    return _observe_meta(request, _load_meta(request, checkpoint), pictures, at)


def _only_checkpoint(folder: Path) -> Path:
    checkpoints = sorted(folder.glob("*.pth"))
    if len(checkpoints) != 1:
        raise ProbeError(
            f"`{folder}` holds {len(checkpoints)} `.pth` files where one SAM checkpoint is expected",
            "file",
            "name one file by `include:` of the artifact",
        )
    return checkpoints[0]


def _observe_meta(request: ProbeRequest, loaded: Loaded, pictures: Pair, at: Points) -> Observation:
    import torch
    from segment_anything import SamPredictor

    predictor = SamPredictor(loaded.model)
    run = Run(loaded)
    # Meta's code keeps float32 weights and buffers; half precision is autocast's business.
    with torch.autocast(loaded.device.type, loaded.dtype, enabled=loaded.dtype != torch.float32):
        answers = [_predict(predictor, picture, at) for picture in pictures]
    width, height = pictures[0].size
    count, side = _masks_of(loaded.model)
    logits, scores, masks = answers[0]
    if tuple(masks.shape) != (1, count, height, width):
        raise ProbeError(
            f"the masks have the shape {tuple(masks.shape)} for a picture of {width}x{height}", "output"
        )
    text = _say(scores[0], masks[0])
    _draw(request, pictures[0], scores[0], masks[0], at)
    return run.observe([logits, answers[1][0]], (1, count, side, side), text)


def _say(scores: torch.Tensor, masks: torch.Tensor) -> str:
    best = int(scores.argmax())
    cover = float(masks[best].float().mean())
    return f"{len(masks)} masks, best score {float(scores[best]):.2f}, covering {cover:.0%}"


def _draw(
    request: ProbeRequest, picture: Image, scores: torch.Tensor, masks: torch.Tensor, at: Points
) -> None:
    order = scores.argsort(descending=True).cpu()
    draw.save(draw.masks(picture, masks.cpu()[order].numpy(), at), request)


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


def _masks_of(model: torch.nn.Module) -> tuple[int, int]:
    decoder, prompts = model.get_submodule("mask_decoder"), model.get_submodule("prompt_encoder")
    return int(decoder.num_multimask_outputs), 4 * int(prompts.image_embedding_size[0])


def _load_meta(request: ProbeRequest, checkpoint: Path) -> Loaded:
    import torch

    device, precision = device_of(request), precision_of(request)
    if precision.is_int8:
        raise ProbeError("Meta's `segment_anything` has no int8; transformers has", "setting")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(checkpoint))
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ProbeError(
            "this is not a checkpoint of `segment_anything`: it is no dictionary of tensors", "foreign"
        )
    estimated = _estimated(state)
    ensure_room(estimated, request)
    started = time.perf_counter()
    model = _build(state)
    wanted = model.state_dict()
    wrong = {key for key in state if key in wanted and state[key].shape != wanted[key].shape}
    keys = model.load_state_dict({key: state[key] for key in state if key not in wrong}, strict=False)
    return Loaded(
        model.to(device).eval(),
        device,
        precision,
        time.perf_counter() - started,
        tuple(key for key in keys.missing_keys if key not in wrong),
        tuple(keys.unexpected_keys),
        tuple(sorted(wrong)),
        estimated,
    )


def _estimated(state: Mapping[str, torch.Tensor]) -> int:
    """Return what the image encoder takes, beside which the decoder is nothing."""
    import torch

    from .estimate import estimate

    with torch.device("meta"):
        encoder = _build(state).get_submodule("image_encoder")
    picture = {"x": torch.empty(1, 3, encoder.img_size, encoder.img_size, device="meta")}
    return estimate(lambda: encoder, picture, torch.float32)


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return Meta's model for the tensors; raises ProbeError for those of another model."""
    from segment_anything.modeling import Sam

    try:
        return _assemble(Sam, Shapes(state))
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise ProbeError(f"{_NOT_SAM}: {error}", "foreign") from error


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


def _assemble(sam: type[torch.nn.Module], shapes: Shapes) -> torch.nn.Module:
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

    processor = SamProcessor.from_pretrained(request.model, **source_of(request))
    batches = [processor(picture, input_points=[at], return_tensors="pt") for picture in pictures]
    loaded = pretrained(SamModel, request, batches[0])
    run = Run(loaded)
    answers = []
    for batch in batches:
        # `to` casts floats alone; without the cast a half-precision model refuses its input.
        with torch.inference_mode():
            answers.append(loaded.model(**batch.to(loaded.device, loaded.dtype)))
    sizes = (batches[0][key].cpu() for key in ("original_sizes", "reshaped_input_sizes"))
    masks = processor.image_processor.post_process_masks(answers[0].pred_masks.float().cpu(), *sizes)[0][0]
    scores = answers[0].iou_scores[0, 0].float()
    text = _say(scores, masks)
    _draw(request, pictures[0], scores, masks, at)
    return run.observe([answer.pred_masks for answer in answers], (1, 1, ANY, ANY, ANY), text)
