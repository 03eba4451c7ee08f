from pathlib import Path

import pytest

from o2s.errors import InputError
from o2s.evaluate.json_files import read_records


def records(path: Path, text: str) -> list[tuple[str, dict[str, object]]]:
    path.write_text(text)
    return list(read_records(path, "objects"))


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"b": 2}]', '{"a": 1}\n{"b": 2}\n', '\n{"a": 1}\n\n{"b": 2}']
)
def test_lists_and_lines_hold_the_same(tmp_path: Path, text: str) -> None:
    assert [value for _, value in records(tmp_path / "f.json", text)] == [{"a": 1}, {"b": 2}]


def test_a_file_may_be_one_object_over_several_lines(tmp_path: Path) -> None:
    assert [value for _, value in records(tmp_path / "f", '{\n "a": 1\n}\n')] == [{"a": 1}]


def test_each_record_knows_its_place(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert [at for at, _ in records(path, '[{"a": 1}, {}]')] == [f"{path}: [0]", f"{path}: [1]"]
    assert records(path, '{"a": 1}\n\n{}')[1][0] == f"{path}: line 3"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "empty; expected objects"),
        ("[1]", r"\[0\]: '1'; expected objects"),
        ("5", "'5'; expected objects"),
        ('{"a": 1}\n[2]', "line 2: '\\[2\\]'"),
        ('{"a": 1}\n{"b', "line 2: not JSON"),
        ('{"a": {"b": 1, "b": 1}}', "the key 'b' comes twice"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_anything_else_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        records(tmp_path / "f", text)
    assert str(error.value).count("\n") == 0
    assert str(error.value).startswith(str(tmp_path / "f"))
