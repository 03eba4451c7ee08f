"""The label table by its columns, the class lists that follow from it, the split files."""

from pathlib import Path

import pytest
from scannet_fake import COLUMNS, LABELS, write_table

from o2s.datasets.label_table import find_file, find_splits, read_label_table, read_split
from o2s.errors import InputError


def test_labels_and_names_are_read(tmp_path: Path) -> None:
    table = read_label_table(write_table(tmp_path / "labels.tsv"))
    assert table.nyu40["office chair"] == 5
    assert table.ids["office chair"] == 5
    assert table.nyu40_names[:3] == ("unannotated", "wall", "floor")
    assert table.nyu40_names[39] == "otherfurniture"
    assert len(table.nyu40_names) == 41
    names = table.class_names
    assert [len(names[f"scannet{n}"]) for n in (18, 20, 37)] == [18, 20, 37]
    assert names["scannet18"][2] == names["scannet20"][4] == "chair"
    assert names["scannet18"][-1] == "otherfurniture"
    assert "wall" not in names["scannet37"]


def test_columns_are_found_by_name_whatever_their_order_and_line_ends(tmp_path: Path) -> None:
    plain = read_label_table(write_table(tmp_path / "labels.tsv"))
    rows = [COLUMNS, *LABELS]
    turned = "\r\r\n".join("\t".join(map(str, ["x", *reversed(row)])) for row in rows)
    (tmp_path / "turned.tsv").write_bytes(b"\xef\xbb\xbf" + turned.encode() + b"\r\r\n")
    other = read_label_table(tmp_path / "turned.tsv")
    assert (other.nyu40, other.ids) == (plain.nyu40, plain.ids)
    assert other.class_names == plain.class_names


def test_a_label_listed_twice_counts_as_each_project_reads_it(tmp_path: Path) -> None:
    twice = (*LABELS, (900, "chair", "chair", 1, 40, "chair", "otherprop"))
    table = read_label_table(write_table(tmp_path / "labels.tsv", twice))
    assert table.nyu40["chair"] == 40  # VoteNet: the last row
    assert table.first_nyu40["chair"] == 5  # Pointcept: the first
    assert table.ids["chair"] == 2


def test_the_200_classes_are_the_most_frequent_but_wardrobe(tmp_path: Path) -> None:
    labels = [(i, f"thing {i}", f"thing {i}", 1000 - i, 40, "", "otherprop") for i in range(1, 300)]
    labels += [(1177, "wardrobe", "wardrobe", 5000, 39, "", "otherfurniture")]
    labels += [(299, "rare", "rare", 4000, 40, "", "otherprop")]  # counts add up by id
    table = read_label_table(write_table(tmp_path / "labels.tsv", labels))
    assert table.scannet200 == (*range(1, 200), 299)
    assert table.scannet200_names[-1] == "thing 299"


def test_the_official_list_of_200_beside_the_table_wins_and_is_never_run(tmp_path: Path) -> None:
    path = write_table(tmp_path / "labels.tsv")
    before = read_label_table(path)
    official = tmp_path / "scannet200_constants.py"
    official.write_text("raise SystemExit\nVALID_CLASS_IDS_200 = (\n 2,\n 5, 7)\n")
    table = read_label_table(path)
    assert table.scannet200 == (2, 5, 7)
    assert table.scannet200_names == ("chair", "office chair", "cabinet")
    assert table.checksum != before.checksum
    for broken in ("open('x')", "(2, 2)", "(2, 'x')", "()"):
        official.write_text(f"VALID_CLASS_IDS_200 = {broken}\n")
        with pytest.raises(InputError, match=r"scannet200_constants\.py: no VALID_CLASS_IDS_200"):
            read_label_table(path)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("id\traw_category\n1\twall\n", "no column 'nyu40id'"),
        ("nothing\n", "no column 'id', 'raw_category', 'nyu40id'"),
        ("id\traw_category\tnyu40id\n1\twall\tone\n", "line 2: nyu40id is 'one'"),
        ("id\traw_category\tnyu40id\n1\twall\t1\n\tfloor\t2\n", "line 3: id is ''"),
        ("id\traw_category\tnyu40id\n1\twall\t41\n", "line 2: nyu40id is 41; expected 0 to 40"),
        ("id\traw_category\tnyu40id\n-1\twall\t1\n", "line 2: id is -1; expected 0 to 2147483647"),
        ("id\traw_category\tnyu40id\n9999999999\twall\t1\n", "line 2: id is 9999999999"),
        ('id\traw_category\tnyu40id\n1\t"' + "x" * 200_000, "not a table"),
        ("", "the file is empty"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        read_label_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_splits_are_found_where_people_keep_them(tmp_path: Path) -> None:
    place = tmp_path / "Tasks" / "Benchmark"
    place.mkdir(parents=True)
    (place / "scannetv2_train.txt").write_text(
        "\ufeffscene0001_00\r\nscene0000_00\n\nscene0001_00\n"
    )
    assert find_splits([tmp_path / "none", tmp_path]) == {"train": place / "scannetv2_train.txt"}
    assert read_split(place / "scannetv2_train.txt") == ["scene0001_00", "scene0000_00"]
    assert find_file([tmp_path], "labels.tsv") is None
    (place / "scannetv2_val.txt").write_text("\n")
    with pytest.raises(InputError, match="names no scans"):
        read_split(place / "scannetv2_val.txt")
