"""What a probe is asked and what it observed: the two JSON objects that cross the process border.

Standard library only: the probes read this file too, in whatever environment they run.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Final, get_args, get_origin, get_type_hints

Tensors = tuple[str, ...]
ANY: Final = -1  # a size that the output may choose


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One model to be run once.

    `model` is an absolute path, or a hub id that the Hugging Face cache answers at `revision`.
    `image` and `video` are absolute paths; empty inputs mean pictures made by the probe itself.
    Zero and empty mean the task's own default. `folder` is where a user's function is imported from.
    `picture` is an absolute path where the probe leaves a PNG of what it saw; empty: none is wanted.
    """

    task: str
    model: str
    revision: str = ""
    device: str = "cpu"
    dtype: str = ""
    max_new_tokens: int = 0
    max_pixels: int = 0
    image: str = ""
    points: tuple[tuple[float, float], ...] = ()
    video: str = ""
    prompt: str = ""
    function: str = ""
    folder: str = ""
    trust_remote_code: str = ""
    picture: str = ""

    @property
    def is_local(self) -> bool:
        """Say whether the model is a path and not a hub id."""
        return self.model.startswith("/")

    def to_json(self) -> str:
        """Return the request as one JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProbeRequest:
        """Return the request that `to_json` wrote."""
        fields = json.loads(text)
        fields["points"] = tuple((float(x), float(y)) for x, y in fields["points"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a probe saw; it judges nothing.

    `problem` is a sentence where the model could not be run at all, and then the rest may be empty;
    `trouble` is its kind (see `troubles.py`) and `cure` what to do, where the probe knows better than
    the kind does. `missing`, `unexpected`, `mismatched`, `nonfinite` name tensors. `shape`, `finite`,
    `minimum` and `maximum` describe the output for the first input, `expected` the shape it should
    have (-1: any); `difference` is the largest one between the outputs for two inputs. `text` says in
    words what the model answered, `labels` and `shares` its best classes; `notes` is what a person
    should know although it worked. `device` and `dtype` are what was really used, `device_name` and
    `device_bytes` (all of its memory) say of a GPU which one it is; `estimated_bytes` is what the model
    was expected to need before it was loaded.
    """

    problem: str = ""
    trouble: str = ""
    cure: str = ""
    missing: Tensors = ()
    unexpected: Tensors = ()
    mismatched: Tensors = ()
    nonfinite: Tensors = ()
    shape: tuple[int, ...] = ()
    expected: tuple[int, ...] = ()
    finite: bool = True
    minimum: float = 0.0
    maximum: float = 0.0
    difference: float = 0.0
    text: str = ""
    labels: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    device: str = ""
    device_name: str = ""
    device_bytes: int = 0
    dtype: str = ""
    load_seconds: float = 0.0
    run_seconds: float = 0.0
    ram_bytes: int = 0
    vram_bytes: int = 0
    estimated_bytes: int = 0

    def to_json(self) -> str:
        """Return the observation as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Observation | None:
        """Return the observation in a probe's line, None for anything else."""
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            return None
        hints = get_type_hints(cls)
        if not isinstance(fields, dict) or fields.keys() != hints.keys():
            return None
        if not all(_fits(value, hints[name]) for name, value in fields.items()):
            return None
        for name, value in fields.items():
            fields[name] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)


def _fits(value: object, wanted: object) -> bool:
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)[0]
        return isinstance(value, list) and all(_fits(item, inner) for item in value)
    if wanted is float:
        return type(value) in (int, float)
    return type(value) is wanted
