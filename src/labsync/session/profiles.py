"""The kinds of box that labsync knows, and what is known of how each of them ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTE, HOUR = 60.0, 3600.0
NO_LIMIT = math.inf


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of box; all times in seconds.

    `limit` is the longest life of a session and `per_day` the most of it in 24 hours, infinite where
    none is known. `margin` is taken off an estimated end. `grace` is what a signal leaves before the end.
    """

    name: str
    limit: float = NO_LIMIT
    margin: float = 0.0
    per_day: float = NO_LIMIT
    grace: float = 10.0

    @property
    def is_limited(self) -> bool:
        """Say whether boxes of this kind end by the clock."""
        return self.limit < NO_LIMIT or self.name in {"slurm", "ec2-spot"}


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        # https://docs.aws.amazon.com/sagemaker/latest/dg/studio-lab-overview.html
        Profile("studio-lab-gpu", 4 * HOUR, 10 * MINUTE, 4 * HOUR),
        Profile("studio-lab-cpu", 4 * HOUR, 10 * MINUTE, 8 * HOUR),
        # https://research.google.com/colaboratory/faq.html gives no fixed numbers: these are the most seen
        Profile("colab", 12 * HOUR, 10 * MINUTE),
        Profile("colab-free", 12 * HOUR, 10 * MINUTE),
        Profile("colab-pro-plus", 24 * HOUR, 10 * MINUTE),
        Profile("colab-enterprise"),
        Profile("kaggle", 12 * HOUR, 10 * MINUTE),
        Profile("sm-studio-space"),
        # SIGTERM, then 120 s: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopTrainingJob.html
        Profile("sm-training", grace=120.0),
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
        Profile("ec2-spot", grace=120.0),
        # `scontrol show config`: KillWait is 30 s by default; a job may be ended up to a minute early
        Profile("slurm", margin=MINUTE, grace=30.0),
        Profile("generic"),
        Profile("none"),
    )
}


def own_profile(limit: float, margin: float) -> Profile:
    """Return the profile of a box whose limit the user wrote down."""
    return Profile("generic", limit, margin)
