"""Foreign pickles: plain data come out as pickle reads them, and nothing else happens."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from o2s.datasets.plain_arrays import read_npy, read_npz, read_pickle
from o2s.errors import InputError

DTYPES = ("<f4", ">f8", "<i4", "u1", "?", "<f2", "<c8", "<U3", "S2")
NUMBERS = st.sampled_from(DTYPES).map(np.dtype)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, min_side=0, max_side=3)),
    arrays.arrays(np.dtype("<f4"), (2, 3)).map(np.asfortranarray),
    arrays.from_dtype(np.dtype("<f4")).map(np.float32),
)
DATA = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def same(left: Any, right: Any) -> bool:
    if isinstance(right, np.ndarray | np.generic):
        kinds = type(left) is type(right) and left.dtype == right.dtype
        return kinds and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(right, list):
        return isinstance(left, list) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in right)
    return type(left) is type(right) and left == right


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles") / "data.pkl"


def read(file: Path, content: bytes) -> Any:
    file.write_bytes(content)
    return read_pickle(file, "data")


@settings(max_examples=80, deadline=None)
@given(data=DATA, protocol=st.integers(0, 5))
def test_plain_data_come_out_as_pickle_reads_them(file: Path, data: Any, protocol: int) -> None:
    assert same(read(file, pickle.dumps(data, protocol)), data)


def test_pickles_of_python_2_are_read(file: Path) -> None:
    values = np.array([1.5, -2], "<f4")
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + values.tobytes() + b"tb."
    )
    with np.errstate(all="ignore"):
        assert same(pickle.loads(content, encoding="latin1"), values)
    assert same(read(file, content), values)


class Call:
    """Is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_named_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    path, trap = tmp_path / "data.dat", tmp_path / "trap"
    path.write_bytes(pickle.dumps([Call(os.mkdir, str(trap))], protocol))
    with pytest.raises(InputError) as error:
        read_pickle(path, "data", "use the other files instead")
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert f"{os.mkdir.__module__}.mkdir" in line
    assert "--trust-pickle" in line
    assert line.endswith("; use the other files instead")
    assert "\n" not in line
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # it would have run
    assert trap.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.fromfile, open, type, Path])
def test_no_other_function_is_to_be_had(file: Path, function: Any) -> None:
    with pytest.raises(InputError, match="which may run code"):
        read(file, pickle.dumps(Call(function, "1")))


STATE = b"(K\x01%s\x85cnumpy\ndtype\nX\x02\x00\x00\x00%s\x89\x88\x87R\x89C\x08abcdefghtb."
ARRAY = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def test_an_array_is_made_of_what_fits(file: Path) -> None:
    assert read(file, ARRAY + STATE % (b"K\x02", b"f4")).shape == (2,)


@pytest.mark.parametrize(
    "content",
    [
        ARRAY + STATE % (b"K\x03", b"f4"),  # more numbers than bytes
        ARRAY + STATE % (b"J\xff\xff\xff\xff", b"f4"),  # less than none
        ARRAY + STATE % (b"\x88", b"f8"),  # True numbers
        ARRAY + STATE % (b"K\x01", b"O8"),  # addresses as objects
        ARRAY + STATE % (b"K\x01", b"V8"),
        ARRAY + STATE % (b"K\x01", b"M8"),
        b"\x80\x03cnumpy\nndarray\n.",  # a function as data
        b"\x80\x03cnumpy\ndtype\n}b.",  # a function that is given a state
        b"\x80\x03cnumpy\nndarray\nK\x02\x85R.",
        b"\x80\x03cnumpy\ndtype\nX\x05\x00\x00\x00f4,f4\x85R.",
        b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R.",  # a dtype as data
        b"\x80\x03]q\x00h\x00a.",  # a list in itself
        b"Pname\n.",
        b"\x80\x09N.",
        b"",
        b"no pickle at all",
    ],
)
def test_what_does_not_fit_is_one_line(file: Path, content: bytes) -> None:
    with pytest.raises(InputError) as error:
        read(file, content)
    assert str(error.value) == f"{file}: not a pickle of plain data; expected data"


@settings(max_examples=200, deadline=None)
@given(cut=st.floats(0, 1), place=st.floats(0, 1), value=st.integers(0, 255))
def test_damage_never_shows_as_another_error(
    file: Path, cut: float, place: float, value: int
) -> None:
    content = bytearray(pickle.dumps([np.zeros((2, 3), "f4"), [np.int64(3)], {"a": "b"}], 4))
    content[int(place * (len(content) - 1))] = value
    message = ""
    try:
        read(file, bytes(content[: int(cut * len(content)) + 1]))
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def objects(*values: Any) -> np.ndarray:
    held = np.empty(len(values), object)
    held[:] = values
    return held


def test_npy_files_hold_numbers_a_mapping_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    shape = {"xyz": np.arange(6, dtype=np.float32).reshape(2, 3), "text": ["a"]}
    for saved, expected in (
        (shape["xyz"], shape["xyz"]),
        (np.asfortranarray(shape["xyz"]), shape["xyz"]),
        (np.array(shape), shape),
        (objects(shape, shape), [shape, shape]),
        (objects({}), [{}]),
    ):
        path.write_bytes(npy(saved))
        assert same(read_npy(path, "data"), expected)


def test_code_in_npy_files_does_not_run(tmp_path: Path) -> None:
    path, trap = tmp_path / "data.npy", tmp_path / "trap"
    path.write_bytes(npy(objects(Call(os.mkdir, str(trap)))))
    with pytest.raises(InputError, match="which may run code"):
        read_npy(path, "data")
    assert not trap.exists()


def test_damaged_npy_and_npz_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    whole = [npy(np.zeros((2, 3))), npy(objects({"a": np.zeros(2)}))]
    broken = [content[:cut] for content in whole for cut in range(0, len(content) - 1, 7)]
    for content in [*broken, b"\x93NUMPY\x01\x00\x04\x00{'a'", b"\x93NUMPY\x07\x00\x00\x00"]:
        path.write_bytes(content)
        for reader in (read_npy, lambda path, expected: read_npz(path, "arr_0", expected)):
            with pytest.raises(InputError) as error:
                reader(path, "data")
            assert str(error.value).startswith(f"{path}: not a ")
            assert str(error.value).endswith("; expected data")


def test_npz_files_give_the_array_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, np.arange(3))
    assert same(read_npz(path, "arr_0", "data"), np.arange(3))
    with pytest.raises(InputError, match=r"no array 'b', there are 'arr_0'"):
        read_npz(path, "b", "data")
    np.savez(path, objects("text"), allow_pickle=True)
    with pytest.raises(InputError, match=r"not a \.npz file"):
        read_npz(path, "arr_0", "data")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for reader in (read_npy, read_pickle, lambda path, expected: read_npz(path, "a", expected)):
        with pytest.raises(InputError, match="no such file; expected data"):
            reader(tmp_path / "none", "data")
        with pytest.raises(InputError, match="is a folder; expected data"):
            reader(tmp_path, "data")
