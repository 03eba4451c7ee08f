"""Files of weights that o2s writes: half precision, with what is known of them in the metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from o2s import weights
from o2s.errors import InputError
from o2s.files import replacing

METADATA = "o2s"  # the key of the metadata, one JSON object


def write_own_weights(
    path: Path, module: nn.Module | Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """The weights of a module, whole or not at all.

    Args:
        path: a .safetensors file.
        module: what they are of, or tensors by name.
        facts: plain values, from which the module can be built again.
    """
    tensors = module.state_dict() if isinstance(module, nn.Module) else module
    state = {
        name: (t.half() if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in tensors.items()
    }
    with replacing(path) as temporary:
        save_file(state, temporary, {METADATA: json.dumps(facts, ensure_ascii=False)})


def read_facts(path: Path, key: str) -> dict[str, Any] | None:
    """What is known of weights that `write_own_weights` wrote with facts that have a key; None for
    other files."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and key in facts else None


def read_tensors(path: Path, keys: Sequence[str], trust_pickle: bool) -> Mapping[str, Tensor]:
    """The tensors of a foreign checkpoint: under the first of the keys that it has, or all of it.

    Raises:
        InputError: it cannot be read, or holds other things.
    """
    checkpoint = weights.load_checkpoint(path, trust_pickle=trust_pickle)
    state = next((checkpoint[key] for key in keys if key in checkpoint), checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: expected a state_dict, tensors by name, and found other things")
    return state


def fill(module: nn.Module, path: Path) -> None:
    """Weights from a file into the module that they were written of, in its precision.

    Raises:
        InputError: the file cannot be read, or its tensors do not fit.
    """
    state = dict(weights.load_checkpoint(path))
    expected = module.state_dict()
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in expected.items()}:
        raise InputError(f"{path}: its tensors do not fit its size; the file is damaged")
    module.load_state_dict(state)
