"""A smoke test of one's own, as `function: quickstart.own_test:classify` in the manifest names it.

It runs in the lab's environment and gets the path of the artifact. What it returns is shown in the
report; what it raises is why the test failed.
"""

from __future__ import annotations

CLASSES = ("resting", "raising a hand", "waving")


def classify(path: str) -> dict[str, str]:
    """Put two different feature vectors through the head, and expect two different answers."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(path)
    features = torch.linspace(-1, 1, weights["head.weight"].shape[1])
    scores = [weights["head.weight"] @ vector + weights["head.bias"] for vector in (features, -features)]
    if torch.equal(scores[0].argmax(), scores[1].argmax()):
        raise ValueError("the head gives the same class to opposite features")
    return {"class": CLASSES[int(scores[0].argmax())], "of the opposite": CLASSES[int(scores[1].argmax())]}
