"""Make everything the quickstart lab comes from: tiny models, pictures, a clip, a git library.

    python manifests/quickstart/build.py manifests/quickstart/origin

The same bytes on every machine, in seconds; a file that is right already is left alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dinov2
import dinov3
import head
import library
import minilm
import pictures
import qwen2_vl
import sam
import sam_hub
import videomae
from files import Tree


def build(target: Path) -> Tree:
    """Fill the target folder and return what was put there."""
    tree = Tree(target)
    qwen2_vl.write(tree, "models/qwen2-vl-tiny")
    dinov3.write(tree, "models/dinov3-tiny")
    dinov2.write(tree, "models/dinov2-tiny")
    videomae.write(tree, "models/videomae-tiny")
    sam_hub.write(tree, "models/sam-hub-tiny")
    minilm.write(tree, "models/minilm-tiny")
    sam.write(tree, "checkpoints/sam_tiny.pth")
    head.write(tree, "checkpoints/head_tiny.safetensors")
    pictures.write_pictures(tree, "datasets/pictures")
    pictures.write_clip(tree, "datasets/clips/ball")
    library.write(tree, "segment-anything.git")
    return tree


def main() -> None:
    """Build, and say what there is now."""
    parser = argparse.ArgumentParser(description="Make the quickstart's own models, data and library.")
    parser.add_argument("target", type=Path, help="the folder to fill, such as manifests/quickstart/origin")
    tree = build(parser.parse_args().target)
    print(f"{tree.root}: {tree.files} files, {tree.bytes / 1e6:.1f} MB, {tree.written} written")


if __name__ == "__main__":
    main()
