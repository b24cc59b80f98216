"""The smoke test on models of their real sizes, with random weights: memory expected and measured, time.

    python -m benchmarks.smoke_sizes /dev/shm/models [--device cuda]

Prints the table of `docs/smoke.md`. The largest takes 4.5 GB on the disk; each is removed after its run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.manifest.model import SmokeSpec
from labsync.render.units import size
from labsync.smoke import torchvision_cpu
from labsync.smoke.checks import SmokePlan
from labsync.smoke.run import Subject, smoke_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.report import SmokeResult

BUILDER = Path(__file__).parents[1] / "manifests" / "quickstart" / "build.py"
TALK = SmokeSpec("image-text-to-text", dtype="bfloat16", max_new_tokens=8)
CASES: dict[str, tuple[str, SmokeSpec]] = {
    "SAM vit_b": ("sam_b", SmokeSpec("segment-anything")),
    "SAM vit_h": ("sam_h", SmokeSpec("segment-anything")),
    "DINOv3 ViT-L": ("dinov3", SmokeSpec("image-feature-extraction")),
    "DINOv3 ViT-L, int8": ("dinov3", SmokeSpec("image-feature-extraction", dtype="int8")),
    "VideoMAE-base": ("videomae", SmokeSpec("video-classification")),
    "Qwen2-VL-2B": ("qwen", TALK),
    "Qwen2-VL-2B, int8": ("qwen", replace(TALK, dtype="int8")),
}


def _sam(kind: str) -> Callable[[Path, Path], None]:
    def build(target: Path, tiny: Path) -> None:
        del tiny
        import torch
        from segment_anything import sam_model_registry

        target.mkdir()
        torch.save(sam_model_registry[kind]().state_dict(), target / "sam.pth")

    return build


def _dinov3(target: Path, tiny: Path) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        num_register_tokens=4,
    )  # fmt: skip
    DINOv3ViTModel(config).save_pretrained(target)
    shutil.copy(tiny / "models/dinov3-tiny/preprocessor_config.json", target)


def _videomae(target: Path, tiny: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400)).save_pretrained(target)
    shutil.copy(tiny / "models/videomae-tiny/preprocessor_config.json", target)


def _qwen(target: Path, tiny: Path) -> None:
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    source = tiny / "models/qwen2-vl-tiny"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
    ids = {
        name: value
        for name, value in json.loads((source / "config.json").read_text()).items()
        if name.endswith("_token_id") and isinstance(value, int)
    }
    text = {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    torch.set_default_dtype(torch.bfloat16)
    Qwen2VLForConditionalGeneration(config).save_pretrained(target)
    torch.set_default_dtype(torch.float32)


BUILDERS = {
    "sam_b": _sam("vit_b"),
    "sam_h": _sam("vit_h"),
    "dinov3": _dinov3,
    "videomae": _videomae,
    "qwen": _qwen,
}


def _run(name: str, folder: Path, device: str) -> SmokeResult:
    kind, spec = CASES[name]
    model = folder / kind
    if not model.exists():
        BUILDERS[kind](model, folder / "tiny")
    subject = Subject(name, replace(spec, timeout=1800), str(model), folder)
    return smoke_one(subject, SmokePlan("run", device=device), Path(sys.executable), os.environ).result


def main() -> None:
    """Build, run and remove each model, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(BUILDER), str(folder / "tiny")], check=True)
    torchvision_cpu.install()
    print("| model | result | precision | expected | measured | time | |\n|---|---|---|---|---|---|---|")
    names = list(CASES)
    for number, name in enumerate(names):
        seen = _run(name, folder, given.device)
        memory = f"{size(seen.estimated_bytes)} | {size(seen.peak_bytes)}"
        print(
            f"| {name} | {seen.result} | {seen.dtype} | {memory} | {seen.seconds:.1f} s | {seen.reason} |",
            flush=True,
        )
        if CASES[name][0] not in {CASES[later][0] for later in names[number + 1 :]}:
            shutil.rmtree(folder / CASES[name][0])


if __name__ == "__main__":
    main()
