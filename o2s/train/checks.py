"""What the settings of every optimisation must keep to."""

import math
from typing import Any

_COUNTS = ("epochs", "repeats", "steps", "every", "batch_size", "accumulate")
_FROM_ZERO = (
    *("workers", "weight_decay", "clip", "final_learning_rate"),
    *("object_tokens_rate", "pointers_rate"),
)
_SHARES = ("balance", "label_share")
_BELOW_ONE = ("warmup", "beta2", "average")  # of 1, transformers would make one step


def check_optimisation(settings: Any) -> None:
    """Raise ValueError, naming the field, its value and what is expected, where a setting of an
    optimisation cannot be meant; fields that it does not have are not looked for."""
    for name in _COUNTS:
        _check(settings, name, "at least 1", lambda v: v >= 1)
    for name in _FROM_ZERO:
        _check(settings, name, "0 or more", lambda v: 0 <= v < math.inf)
    for name in _SHARES:
        _check(settings, name, "0 to 1", lambda v: 0 <= v <= 1)
    for name in _BELOW_ONE:
        _check(settings, name, "0 to below 1", lambda v: 0 <= v < 1)
    _check(settings, "learning_rate", "above 0 and below 1", lambda v: 0 < v < 1)
    _check(settings, "seed", "0 to 2^32 - 1", lambda v: 0 <= v < 2**32)


def _check(settings: Any, name: str, expected: str, fits: Any) -> None:
    value = getattr(settings, name, None)
    if value is not None and not fits(value):
        raise ValueError(f"{name} is {value}, expected {expected}")
