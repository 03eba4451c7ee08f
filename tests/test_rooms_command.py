"""`o2s rooms` as a user meets it, and the way from rooms to instructions."""

import json
from pathlib import Path

import pytest
from command_line import o2s, untimed
from PIL import Image
from room_language_fake import make_room
from rooms_library import write_rooms_library

from o2s.cli_rooms import print_statistics
from o2s.datasets.rooms import RoomsReport

pytest.importorskip("embreex")
pytest.importorskip("trimesh")


@pytest.mark.parametrize("command", ["rooms", "instruct"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = o2s(capsys, command, "--help")
    assert code == 0
    assert f"Example: o2s {command}" in out


def test_from_furniture_to_instructions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    furniture = write_rooms_library(tmp_path / "furniture")
    rooms, prepared = tmp_path / "rooms", tmp_path / "prepared"
    sheet = tmp_path / "sheet.png"
    options = ("--scenes", 2, "--seed", 4, "--workers", 1, "--preview", sheet)
    command = ("rooms", "--furniture", furniture, "--out", rooms, *options)
    code, out, err = o2s(capsys, *command)
    assert code == 0, err
    assert out == f"2 rooms made, 0 already there, in {rooms}\n"
    assert "train" in err, "statistics by split"
    with Image.open(sheet) as image:
        assert image.width == 800
    assert "0 rooms made, 2 already there" in o2s(capsys, *command)[1]
    code, out, err = o2s(capsys, "prepare", "scannet", rooms, "--out", prepared, "--workers", 1)
    assert (code, untimed(err)) == (0, "")
    assert "2 prepared, 0 already there, 0 failed" in out
    language = rooms / "language"
    questions = json.loads((language / "ScanQA_v1.0_train.json").read_text())
    assert questions
    assert {"scene_id", "question_id", "question", "answers", "object_ids"} <= questions[0].keys()
    files = ("--scanqa", language / "ScanQA_v1.0_train.json")
    files += ("--scanrefer", language / "ScanRefer_filtered_train.json")
    files += ("--nr3d", language / "nr3d_train.csv")
    code, out, err = o2s(
        capsys, "instruct", "--scenes", prepared, *files, "--out", tmp_path / "instructions"
    )
    assert code == 0, err
    card = json.loads((tmp_path / "instructions" / "data_card.json").read_text())
    assert card
    skipped = json.loads((tmp_path / "instructions" / "train" / "skipped.json").read_text())
    assert not any(skipped.values()), "every annotation is of an object that was scanned"


@pytest.mark.parametrize(
    "options, expected",
    [
        (("--scenes", "0"), "--scenes is 0, expected at least 1"),
        (("--workers", "0"), "--workers is 0, expected at least 1"),
    ],
)
def test_wrong_options_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    code, _, err = o2s(
        capsys, "rooms", "--furniture", tmp_path, "--out", tmp_path / "out", *options
    )
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["sheet", "sheet.svg", "folder.png"])
def test_a_preview_that_cannot_be_drawn_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    furniture = write_rooms_library(tmp_path / "furniture")
    command = ("rooms", "--furniture", furniture, "--out", tmp_path / "rooms", "--scenes", 1)
    code, _, err = o2s(capsys, *command, "--preview", tmp_path / name)
    assert code == 2
    assert "expected the name of a .jpg or .jpeg or .png file" in err
    assert not (tmp_path / "rooms").exists()


def test_empty_rooms_and_furniture_that_cannot_be_read_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    furniture = write_rooms_library(tmp_path / "furniture")
    table = furniture / "furniture.csv"
    columns = table.read_text().splitlines()[0].split(",")
    values = {"file": "gone.glb", "name": "gone", "class": "chair"}
    row = ",".join(values.get(column, "") for column in columns)
    table.write_text(f"{table.read_text()}{row}\n")
    command = ("rooms", "--furniture", furniture, "--out", tmp_path / "rooms", "--scenes", 1)
    code, _, err = o2s(capsys, *command, "--workers", 1)
    assert code == 0, err
    assert "furniture/gone is left out: cannot be read" in err
    print_statistics(RoomsReport(facts=[make_room([], split="val")]))
    assert "the 1 rooms of val are empty" in capsys.readouterr().err
