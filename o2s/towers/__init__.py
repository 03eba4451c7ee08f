"""Text and image towers behind one interface, and their vectors kept in a file.

    TowersConfig -> text_tower   texts [M]   -> unit vectors [M, D]
                 -> image_tower  images [M]  -> unit vectors [M, D]

| kind | texts | images |
| --- | --- | --- |
| small | all-MiniLM-L6-v2 | EfficientNet-lite0 with a projection that we trained |
| clip | a model of transformers with get_text_features, a folder or hub name | the same |
| open_clip | a model of the package open_clip, which o2s does not install | the same |
| slip | a checkpoint of SLIP or ULIP-1, with CLIP's tokenizer | the same |

Towers are never trained here: their vectors are computed once and cached.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from o2s.errors import InputError
from o2s.files import replacing
from o2s.towers.clip import (
    clip_image_tower,
    clip_text_tower,
    open_clip_image_tower,
    open_clip_text_tower,
)
from o2s.towers.slip import slip_image_tower, slip_text_tower
from o2s.towers.small import small_image_tower, small_text_tower

T = TypeVar("T")
SAVE_EVERY = 512  # new vectors; of a large cache, an eighth of those it holds


@runtime_checkable
class TextTower(Protocol):
    """Texts to unit vectors on the CPU. `name` changes with the weights; `width` is D."""

    name: str
    width: int

    def __call__(self, texts: Sequence[str]) -> Float32[Tensor, "M D"]: ...


@runtime_checkable
class ImageTower(Protocol):
    """Images to unit vectors on the CPU. `name` changes with the weights; `width` is D."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    def __call__(self, images: Sequence[Image.Image]) -> Float32[Tensor, "M D"]: ...


@runtime_checkable
class CountingTextTower(TextTower, Protocol):
    """A tower that says how many texts were `cut` because they had more than `longest` tokens.

    `embed` gives the vectors before they are brought to length 1.
    """

    longest: int
    cut: int

    def embed(self, texts: Sequence[str]) -> Float32[Tensor, "M D"]: ...


@dataclass(frozen=True)
class TowersConfig:
    """Which towers.

    `path` is a folder, a checkpoint file or a hub name, by kind; `small` has none. `tokenizer` is
    for `slip`: a folder or hub name of CLIP's tokenizer, if it does not lie beside the checkpoint.
    """

    kind: Literal["small", "clip", "open_clip", "slip"] = "small"
    path: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "small" and self.path is not None:
            raise ValueError(f"path is {self.path}, but the small towers bring their own weights")
        if self.kind != "small" and not self.path:
            raise ValueError(f"path is missing, expected where the {self.kind} towers are")
        if self.kind != "slip" and self.tokenizer is not None:
            raise ValueError("tokenizer goes with kind slip; others bring their own")


def text_tower(
    config: TowersConfig, device: torch.device | None = None, *, trust_pickle: bool = False
) -> CountingTextTower:
    """The text tower, in evaluation mode.

    Args:
        config: which.
        device: where to compute; the CPU if not given.
        trust_pickle: let a checkpoint of `slip` run code (`weights.load_checkpoint`).

    Raises:
        InputError: it cannot be fetched or loaded, or lacks weights.
    """
    device = device or torch.device("cpu")
    path = config.path or ""
    builders: dict[str, Callable[[], CountingTextTower]] = {
        "small": lambda: small_text_tower(device),
        "clip": lambda: clip_text_tower(path, device),
        "open_clip": lambda: open_clip_text_tower(path, device),
        "slip": lambda: slip_text_tower(
            Path(path), config.tokenizer, device, trust_pickle=trust_pickle
        ),
    }
    return builders[config.kind]()


def image_tower(
    config: TowersConfig, device: torch.device | None = None, *, trust_pickle: bool = False
) -> ImageTower:
    """The image tower, in evaluation mode. Arguments as of `text_tower`.

    Raises:
        InputError: it cannot be fetched or loaded, or lacks weights.
    """
    device = device or torch.device("cpu")
    path = config.path or ""
    builders: dict[str, Callable[[], ImageTower]] = {
        "small": lambda: small_image_tower(device),
        "clip": lambda: clip_image_tower(path, device),
        "open_clip": lambda: open_clip_image_tower(path, device),
        "slip": lambda: slip_image_tower(Path(path), device, trust_pickle=trust_pickle),
    }
    return builders[config.kind]()


def cached_embeddings(
    items: Sequence[T],
    key: Callable[[T], str],
    embed: Callable[[Sequence[T]], Float32[Tensor, "_ D"]],
    tower_name: str,
    cache: Path | None,
    *,
    batch: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float32[Tensor, "M D"]:
    """Vectors of items, each distinct key computed once and kept for the next time.

    The folder `cache` gets one file for each tower. It is written now and then on the way, so
    that a run that was killed goes on; a file that is missing or damaged is made anew.

    Args:
        items: texts, image files, or whatever `embed` takes.
        key: what tells items apart, for example the text itself, or a file's checksum.
        embed: the vectors of some items, a row each.
        tower_name: the tower's `name`.
        cache: the folder; nothing is kept if None.
        batch: items to `embed` at once.
        progress: called with the number of distinct items done and of all.

    Returns:
        a row for each item; [0, 0] for no items.

    Raises:
        InputError: `cache` is not a folder.
    """
    if cache is not None and cache.exists() and not cache.is_dir():
        raise InputError(f"{cache}: is not a folder, expected one for the vectors of towers")
    if not items:
        return torch.zeros(0, 0)
    digests = [
        hashlib.sha256(key(item).encode("utf-8", "surrogatepass")).digest() for item in items
    ]
    first: dict[bytes, T] = {}
    for digest, item in zip(digests, items, strict=True):
        first.setdefault(digest, item)
    path = None if cache is None else cache / f"{_file_name(tower_name)}.safetensors"
    held = {} if path is None else _read_cache(path, tower_name)
    missing = [digest for digest in first if digest not in held]
    unsaved = 0
    progress(len(first) - len(missing), len(first))
    try:
        for start in range(0, len(missing), batch):
            portion = missing[start : start + batch]
            vectors = embed([first[digest] for digest in portion])
            if len(vectors) != len(portion):
                raise ValueError(f"{len(vectors)} vectors for {len(portion)} items")
            held |= dict(zip(portion, vectors.float().cpu(), strict=True))
            unsaved += len(portion)
            if path is not None and unsaved >= max(SAVE_EVERY, len(held) // 8):
                _write_cache(path, tower_name, held)
                unsaved = 0
            progress(len(first) - len(missing) + start + len(portion), len(first))
    finally:
        if path is not None and unsaved:
            _write_cache(path, tower_name, held)
    return torch.stack([held[digest] for digest in digests])


def _file_name(tower_name: str) -> str:
    return hashlib.sha256(tower_name.encode()).hexdigest()[:16]


def _write_cache(path: Path, tower_name: str, held: dict[bytes, Float32[Tensor, " D"]]) -> None:
    keys = np.frombuffer(b"".join(held), dtype=np.uint8).reshape(len(held), -1)
    tensors = {"keys": torch.from_numpy(keys.copy()), "vectors": torch.stack(list(held.values()))}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"o2s": json.dumps({"tower": tower_name})})


def _read_cache(path: Path, tower_name: str) -> dict[bytes, Float32[Tensor, " D"]]:
    """What the file holds, nothing if it is not what `_write_cache` writes."""
    try:
        with safe_open(path, "pt") as file:
            keys: UInt8[Tensor, "K 32"] = file.get_tensor("keys")
            vectors: Float32[Tensor, "K D"] = file.get_tensor("vectors")
            facts = json.loads((file.metadata() or {}).get("o2s", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    sound = (
        facts == {"tower": tower_name}
        and (keys.dtype, vectors.dtype) == (torch.uint8, torch.float32)
        and (keys.dim(), vectors.dim()) == (2, 2)
        and keys.shape == (len(vectors), 32)
        and bool(vectors.isfinite().all())
    )
    if not sound:
        return {}
    return dict(zip(map(bytes, keys.numpy()), vectors.unbind(), strict=True))
