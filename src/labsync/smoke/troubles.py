"""Every kind of trouble a smoke test can meet, with what to do about it. Pure, standard library only.

The cause is told by who finds the trouble, in one sentence; the cure, one sentence as well, is here,
unless the finder knows a better one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Finding:
    """What stands in a model's way: the kind of trouble, the cause in one sentence, its own cure if any."""

    trouble: str
    cause: str
    cure: str = ""


REBUILD: Final = "then `labsync env lock` and `labsync env build`"
FOREIGN_CODE: Final = "the model needs Python code from its repository, and the manifest does not trust it"

CURES: Final = {
    "memory": "end other notebooks that hold memory, lower `max_pixels`, or name a smaller `fallback:`",
    "time": "give it more time by `timeout: 15m` of its smoke test, or run it on a GPU session",
    "crash": "build the environment anew, and see by `--device cpu` whether the GPU has a part in it",
    "ended": "look for what ends Python early (`sys.exit`, `os._exit`) in the code that was run",
    "package": f"add the package to the environment's spec, {REBUILD}",
    "file": "`labsync verify {name} --repair` heals it here; when that finds nothing, the origin has it so",
    "pointer": "name an `hf://` origin, or a download address that resolves Git LFS",
    "page": "open the origin's address in a browser: it asks to sign in, or is a page about the file",
    "pickle": "use the model's safetensors files, or convert it on a machine you can afford to lose",
    "code": "read the repository's Python files, then write `trust_remote_code: <commit>` to its smoke test",
    "api": "write the new name, or pin the old release of the library in the environment's spec",
    "gpu": "`labsync smoke --pending` on a GPU session finishes it, and `--device cpu` proves it here",
    "driver": f"pin a torch for an older CUDA in the environment's spec, {REBUILD}",
    "build": f"lock the environment for a GPU (`cuda:` under its `target:`), {REBUILD}",
    "torchvision": f"pin the torchvision that belongs to this torch in the environment's spec, {REBUILD}",
    "cache": "`labsync pull {name}` brings it",
    "input": "correct `inputs:` of its smoke test in the manifest",
    "setting": "correct its `smoke:` in the manifest",
    "function": "the function is your own: the reason is its last word",
    "missing": "`labsync verify {name}` proves the bytes; else task, revision or `include:` is wrong",
    "foreign": "name the model that is meant as origin: `config.json` and weights must come from one commit",
    "weights": "`labsync verify {name} --repair`, or an earlier snapshot of `labsync log {name}`",
    "output": "try `dtype: float32` of its smoke test; when it stays so, these are no trained weights",
    "unknown": "`labsync verify {name}` proves the bytes; the reason is the library's own last word",
}  # fmt: skip

# What today's libraries say to yesterday's code, as patterns in `Type: message`, and what replaces it.
_OLD: Final = (
    (r"AutoModelForVision2Seq", "write `AutoModelForImageTextToText`: `AutoModelForVision2Seq` is gone"),
    (r"FeatureExtractor", "write `AutoImageProcessor`: the feature extractors of pictures are gone"),
    (r"load_in_[48]bit", "write `quantization_config=BitsAndBytesConfig(load_in_8bit=True)` instead"),
    (
        r"image_pad|[Ii]mage features and image tokens do not match",
        "build the prompt by `processor.apply_chat_template(…)`, which puts the picture's own tokens into it",
    ),
    (r"[Ff]lash[_ ]?[Aa]tt", 'write `attn_implementation="sdpa"`: FlashAttention is not installed'),
    (r"TRANSFORMERS_CACHE", "use `HF_HOME`, which the kernel sets: `TRANSFORMERS_CACHE` is gone"),
    (r"tensor a \(784\).*\(1568\)", "give VideoMAE as many frames as `config.num_frames` says (16)"),
    (r"module 'numpy' has no attribute", "write `bool`, `int`, `float` instead of `np.bool` and the like"),
    (
        r"(cannot import name|has no attribute) '\w+'.*transformers|transformers.* has no attribute '\w+'",
        "see transformers' migration guide, or pin the old release in the environment's spec",
    ),
    (
        r"unexpected keyword argument '\w+'",
        "take the argument out, or pin the library's old release in the environment's spec",
    ),
)  # fmt: skip


def cure_of(trouble: str, name: str) -> str:
    """Return what to do about a kind of trouble of the artifact `name`."""
    return CURES.get(trouble, CURES["unknown"]).format(name=name)


def old_api_cure(error: str) -> str:
    """Return what replaces the old interface behind an error, given as `Type: message`; else nothing."""
    return next((cure for pattern, cure in _OLD if re.search(pattern, error)), "")
