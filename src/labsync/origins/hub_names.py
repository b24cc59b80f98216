"""Names of repositories that people take for others: what is close to a name that does not exist. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# Names that go round in scripts and tutorials, and never existed, with what they mean.
MISTAKEN: Final = {
    "facebook/dinov3-small": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "facebook/dinov3-base": "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "facebook/dinov3-large": "facebook/dinov3-vitl16-pretrain-lvd1689m",
    "MCG-NJU/videomae-v2-base-finetuned-kinetics-400": "MCG-NJU/videomae-base-finetuned-kinetics",
    "MCG-NJU/videomae-v2-base": "OpenGVLab/VideoMAEv2-Base",
}
KNOWN: Final = (
    "MCG-NJU/videomae-base",
    "MCG-NJU/videomae-base-finetuned-kinetics",
    "MCG-NJU/videomae-large-finetuned-kinetics",
    "OpenGVLab/VideoMAEv2-Base",
    "Qwen/Qwen2-VL-2B-Instruct",
    "Qwen/Qwen2-VL-7B-Instruct",
    "facebook/dinov2-base",
    "facebook/dinov2-large",
    "facebook/dinov2-small",
    "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "facebook/dinov3-vith16plus-pretrain-lvd1689m",
    "facebook/dinov3-vitl16-pretrain-lvd1689m",
    "facebook/dinov3-vits16-pretrain-lvd1689m",
    "facebook/sam-vit-base",
    "facebook/sam-vit-huge",
    "facebook/sam-vit-large",
    "sentence-transformers/all-MiniLM-L6-v2",
)
_CLOSE = 0.75


def closest(name: str, offered: Iterable[str]) -> list[str]:
    """Return up to three names that may be meant, the likeliest first; `offered` are names that exist."""
    meant = [real for wrong, real in MISTAKEN.items() if wrong.lower() == name.lower()]
    names = {known.lower(): known for known in (*KNOWN, *offered) if known.lower() != name.lower()}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=_CLOSE)
    return list(dict.fromkeys([*meant, *(names[found] for found in close)]))[:3]
