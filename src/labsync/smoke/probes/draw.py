"""Pictures of what a model saw, for the report: masks, features as colours, frames, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from PIL.Image import Image

    from ..request import ProbeRequest

_HEIGHT = 240  # pixels of a panel
_WIDTH = 400  # at most, of a panel
_GAP = 8
_FRAMES = 6
_MASKS = ((255, 90, 60), (60, 150, 255), (90, 210, 90))
_MARK = 5


def save(picture: Image, request: ProbeRequest) -> None:
    """Leave the picture where the request wants it; where it wants none, nothing is written."""
    if request.picture:
        picture.save(request.picture, "PNG", optimize=True)


def panel(picture: Image) -> Image:
    """Return the picture in the size of a report's."""
    scale = min(_WIDTH / picture.width, _HEIGHT / picture.height)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.convert("RGB").resize(size)


def row(pictures: Sequence[Image]) -> Image:
    """Return the pictures side by side, on nothing."""
    import PIL.Image

    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    out = PIL.Image.new("RGBA", (width, max(picture.height for picture in pictures)))
    left = 0
    for picture in pictures:
        out.paste(picture, (left, 0))
        left += picture.width + _GAP
    return out


def masks(picture: Image, found: np.ndarray, points: Sequence[Sequence[float]]) -> Image:
    """Return the masks (boolean, one after the other, best first) over the picture, with the points."""
    return row([_masked(picture, mask, colour, points) for mask, colour in zip(found, _MASKS, strict=False)])


def _masked(
    picture: Image, mask: np.ndarray, colour: tuple[int, int, int], points: Sequence[Sequence[float]]
) -> Image:
    import numpy as np
    import PIL.Image
    import PIL.ImageDraw

    shown = panel(picture)
    inside = np.asarray(PIL.Image.fromarray(mask.astype(np.uint8) * 255).resize(shown.size)) > 127
    pixels = np.asarray(shown).astype(np.float32)
    pixels[inside] = 0.5 * pixels[inside] + 0.5 * np.array(colour, np.float32)
    pixels[_edge(inside)] = colour
    out = PIL.Image.fromarray(pixels.astype(np.uint8))
    pen, scale = PIL.ImageDraw.Draw(out), shown.width / picture.width
    for x, y in points:
        at = (x * scale - _MARK, y * scale - _MARK, x * scale + _MARK, y * scale + _MARK)
        pen.ellipse(at, fill="white", outline="black", width=2)
    return out


def _edge(inside: np.ndarray) -> np.ndarray:
    """Return where a mask ends, two pixels wide."""
    import numpy as np

    edge = np.zeros_like(inside)
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    edge[1:] |= inside[1:] != inside[:-1]
    edge[:, :-1] |= edge[:, 1:]
    return edge


def components(picture: Image, features: torch.Tensor, grid: tuple[int, int]) -> Image:
    """Return the picture beside its features, the first three principal components as red, green, blue.

    `features` has one row for each cell of the grid (rows, columns), in reading order.
    """
    import numpy as np
    import PIL.Image

    centred = features.detach().float().cpu()
    centred = centred - centred.mean(dim=0)
    _, _, directions = centred.svd()
    parts = (centred @ directions[:, :3]).numpy()
    low, high = parts.min(axis=0), parts.max(axis=0)
    colours = (255 * (parts - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    shown = panel(picture)
    cells = PIL.Image.fromarray(colours.reshape(*grid, 3))
    return row([shown, cells.resize(shown.size, PIL.Image.Resampling.BICUBIC)])


def strip(frames: Sequence[Image]) -> Image:
    """Return a few frames of a clip, in their order."""
    count = min(_FRAMES, len(frames))
    chosen = [panel(frames[index * (len(frames) - 1) // max(count - 1, 1)]) for index in range(count)]
    for frame in chosen:
        frame.thumbnail((_WIDTH // 2, _HEIGHT // 2))
    return row(chosen)


def stripes(vectors: torch.Tensor) -> Image:
    """Return each vector as a line of cells, blue for negative and red for positive numbers."""
    import numpy as np
    import PIL.Image

    numbers = vectors.detach().float().cpu().numpy()
    strength = np.abs(numbers) / max(float(np.abs(numbers).max()), 1e-12)
    colours = np.where(numbers[..., None] > 0, np.array([220, 60, 50]), np.array([50, 90, 210]))
    cells = (255 - strength[..., None] * (255 - colours)).astype(np.uint8)
    return PIL.Image.fromarray(cells).resize((2 * _WIDTH, 28 * len(numbers)), PIL.Image.Resampling.NEAREST)
