"""A small head of one's own: a linear classifier over the features of the tiny DINOv3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dinov3
from files import safetensors
from weights import draw, linear

if TYPE_CHECKING:
    from files import Tree

CLASSES = 3


def write(tree: Tree, path: str) -> None:
    """Write the head under the path."""
    tree.write(path, safetensors(draw("head-tiny", linear("head", CLASSES, dinov3.WIDTH))))
