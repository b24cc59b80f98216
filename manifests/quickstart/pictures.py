"""A few pictures and a short clip, made by integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from files import png

if TYPE_CHECKING:
    from files import Tree

WIDTH, HEIGHT = 160, 120
CLIP_WIDTH, CLIP_HEIGHT, CLIP_FRAMES = 64, 48, 20


def write_pictures(tree: Tree, folder: str) -> None:
    """Write three pictures: shapes on a slope of colour, stripes, rings."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    far = (x - 60) ** 2 + (y - 50) ** 2
    shapes = _colour(x * 255 // WIDTH, y * 255 // HEIGHT, 255 - x * 255 // WIDTH)
    shapes[far < 30**2] = (230, 40, 30)
    shapes[(abs(x - 120) < 24) & (abs(y - 80) < 18)] = (20, 60, 200)
    stripes = (x + 2 * y) // 12 % 3
    tree.write(f"{folder}/shapes.png", png(shapes))
    tree.write(f"{folder}/stripes.png", png(_colour(stripes * 110, 220 - stripes * 90, stripes * 40)))
    tree.write(f"{folder}/rings.png", png(_colour(far // 40 % 256, far // 90 % 256, far // 15 % 256)))


def write_clip(tree: Tree, folder: str) -> None:
    """Write the frames of a ball that crosses the picture."""
    y, x = np.mgrid[0:CLIP_HEIGHT, 0:CLIP_WIDTH]
    for number in range(CLIP_FRAMES):
        frame = _colour(y * 4, x * 3, np.full_like(x, 90))
        frame[(x - 3 * number - 4) ** 2 + (y - 10 - number) ** 2 < 64] = (250, 220, 20)
        tree.write(f"{folder}/frame_{number:02d}.png", png(frame))


def _colour(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return np.stack([red, green, blue], axis=2).astype(np.uint8)
