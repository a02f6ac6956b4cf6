"""How the networks that ship are trained."""

import math


def rate(done: float) -> float:
    """Constant for two fifths of the time, then half a cosine down to a fiftieth."""
    return 1.0 if done < 0.4 else 0.51 + 0.49 * math.cos(math.pi * (done - 0.4) / 0.6)


LONG = {
    "schedule": rate,
    "warmup": 100,
    "ema": 0.998,
    "shuffle": False,  # items are drawn anew in every epoch
    "checkpoint_minutes": 4,
}  # options of `Learner`
