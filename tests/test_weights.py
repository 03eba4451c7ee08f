"""Safe loading of checkpoints that others wrote."""

import argparse
import codecs
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from o2s.errors import InputError
from o2s.weights import load_checkpoint

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def refused(path: Path, **options: bool) -> str:
    """The one line that says what is wrong with a checkpoint."""
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "\033" not in message  # torch puts terminal codes into its messages
    assert len(message) < len(str(path)) + 250
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_load_as_they_were(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": TENSORS}, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)["state_dict"]
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[key], value) for key, value in TENSORS.items())


class OldNumpy:
    """Pickles a numpy scalar by the module names that numpy 1 had, as public checkpoints do."""

    def __init__(self, value: np.generic) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        data = codecs.encode(self.value.tobytes().decode("latin1"), "latin1")
        return scalar, (self.value.dtype, data)


def scalar(dtype: Any, data: bytes) -> None:
    """Stands for `numpy.core.multiarray.scalar` while pickling."""


SCALARS = [np.float64(0.5), np.float32(2), np.int64(-3), np.int32(7), np.bool_(True), np.uint8(9)]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", SCALARS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("numpy", ["numpy 1", "numpy 2"])
def test_namespaces_and_numpy_scalars_are_plain_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numpy: str, value: np.generic, zipped: bool
) -> None:
    path = tmp_path / "ulip.pt"
    old = numpy == "numpy 1"
    contents = {
        "epoch": 3,
        "state_dict": TENSORS,
        "args": argparse.Namespace(lr=1e-3, model="ULIP_PointBERT"),
        "best_acc1": OldNumpy(value) if old else value,
    }
    if old:
        module = types.ModuleType("numpy.core.multiarray")
        vars(module)["scalar"] = scalar
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "numpy.core.multiarray", module)
            patch.setattr(scalar, "__module__", "numpy.core.multiarray")
            torch.save(contents, path, _use_new_zipfile_serialization=zipped)
        assert b"numpy.core.multiarray" in path.read_bytes()
    else:
        torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    assert loaded["best_acc1"] == value
    assert type(loaded["best_acc1"]) is type(value)
    assert loaded["args"] == contents["args"]
    assert torch.equal(loaded["state_dict"]["a.bias"], TENSORS["a.bias"])


class Harmless:
    def __init__(self) -> None:
        self.value = 7


class Malicious:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.file}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run_it(
    tmp_path: Path, zipped: bool
) -> None:
    path, traces = tmp_path / "model.pt", tmp_path / "traces"
    contents = {"state_dict": TENSORS, "extra": Malicious(traces)}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "system" in message
    assert message.endswith("if you trust where it comes from, add --trust-pickle")
    assert not traces.exists()


@pytest.mark.parametrize("other", [Harmless(), np.str_("text"), np.arange(3), os.path.join])
def test_other_objects_load_only_where_the_user_trusts_the_file(tmp_path: Path, other: Any) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": TENSORS, "other": other}, path)
    assert "add --trust-pickle" in refused(path)
    assert type(load_checkpoint(path, trust_pickle=True)["other"]) is type(other)


def test_a_trusted_pickle_of_a_class_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x02cthis_module_is_gone\nModel\n.")
    message = refused(path, trust_pickle=True)
    assert "No module named 'this_module_is_gone'" in message
    assert "--trust-pickle" not in message


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_not_a_readable_checkpoint(
    tmp_path: Path, share: float, zipped: bool, trust: bool
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "not a readable checkpoint" in refused(path, trust_pickle=trust)


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("data", [b"hello world\n", b"\x89PNG\r\n\x1a\n" + bytes(50), b"ply\n"])
def test_a_file_of_another_kind_is_not_a_readable_checkpoint(
    tmp_path: Path, data: bytes, trust: bool
) -> None:
    """Trusting it would not help, so the message does not say so."""
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    message = refused(path, trust_pickle=trust)
    assert "not a readable checkpoint" in message
    assert "--trust-pickle" not in message


def test_anything_but_a_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save([torch.zeros(2)], path)
    assert "holds a list, expected a dict of tensors" in refused(path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_missing_file_or_a_folder_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    assert "no such file, expected a checkpoint" in refused(tmp_path / name)
    (tmp_path / name).mkdir()
    assert "no such file, expected a checkpoint" in refused(tmp_path / name)


def test_safetensors_load_as_they_were(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[key], value) for key, value in TENSORS.items())


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_truncated_safetensors_file_is_one_line(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:length])
    assert "not a readable safetensors file" in refused(path)


def test_a_pickle_named_safetensors_is_not_unpickled(tmp_path: Path) -> None:
    path, traces = tmp_path / "model.safetensors", tmp_path / "traces"
    path.write_bytes(pickle.dumps(Malicious(traces)))
    assert "not a readable safetensors file" in refused(path, trust_pickle=True)
    assert not traces.exists()
