"""`o2s eval naming`: what a model calls the objects that are pointed out."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_fake import table_scores
from command_line import o2s

from o2s.evaluate.captions import DescribedObject
from o2s.evaluate.naming import FILE, report_names, same_name
from o2s.evaluate.scene_boxes import read_true_boxes
from o2s.llm.answering import SceneAnswerer


def described(scene: str, identity: str, name: str) -> DescribedObject:
    return DescribedObject(scene, identity, name, ("A text.",), (("A", "text"),), (name,))


def test_names_are_the_same_but_for_their_writing() -> None:
    assert same_name("Coffee table.", "coffee_table")
    assert not same_name("table", "coffee_table")
    assert not same_name("", "chair")


def test_an_object_that_was_not_found_is_named_wrongly() -> None:
    objects = [described("a", "1", "chair"), described("a", "2", "bed"), described("b", "1", "bed")]
    named: Any = {
        "model": ["chair", "lamp", None],
        "blind": ["chair", "chair", None],
        "detector": ["lamp", "bed", None],
    }
    report = report_names(objects, named, draws=0).json()
    table = report["tables"]["named rightly"]
    assert table["model"]["counts"] == {"objects": 3, "found": 2}
    assert table_scores(table, "model") == {
        "of all": pytest.approx(1 / 3),
        "of those found": pytest.approx(1 / 2),
    }
    assert table_scores(table, "gain over the detector's label")["of all"] == 0
    classes = report["tables"]["by class, of all"]
    assert list(classes) == ["bed", "chair"]
    assert classes["bed"]["counts"] == {"objects": 2, "found": 1}
    scores = table_scores(classes, "bed")
    assert scores["the detector's label"] == pytest.approx(1 / 2)
    assert scores["model"] == 0


def run(folder: Path, out: Path, *more: str) -> list[Any]:
    return [
        *("eval", "naming", "--reference", folder / "ScanRefer_filtered_val.json"),
        *("--scenes", folder / "prepared", "--model", folder / "model", "--out", out),
        *("--max-new-tokens", "3", "--draws", "10", "--json", *more),
    ]


def test_true_boxes_are_all_found_and_their_labels_are_the_annotated_ones(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = o2s(capsys, *run(folder, tmp_path, "--regions", "reference"))
    assert code == 0, err
    table = json.loads(out)["tables"]["named rightly"]["model"]["counts"]
    assert table["found"] == table["objects"] > 0
    true = read_true_boxes(folder / "prepared", "nyu40")
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    for line in lines:
        scene, identity = line["object"].split("/")
        place = true[scene].ids.index(identity)
        assert line["names"]["detector"] == (true[scene].labels[place] or "object")
        assert isinstance(line["names"]["model"], str)
    assert (tmp_path / "scores.md").exists()


def test_a_killed_run_goes_on_where_it_stopped(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, err = o2s(capsys, *run(folder, tmp_path, "--regions", "reference"))
    assert code == 0, err
    whole = (tmp_path / FILE).read_bytes()
    first, rest = whole.split(b"\n", 1)
    (tmp_path / FILE).write_bytes(first + b"\n" + rest[:5])
    said = []
    ask = SceneAnswerer.ask_batch

    def counted(self: SceneAnswerer, looks: Any, questions: Any, **options: Any) -> Any:
        said.append(0 if looks is None else len(questions))
        return ask(self, looks, questions, **options)

    monkeypatch.setattr(SceneAnswerer, "ask_batch", counted)
    code, again, err = o2s(capsys, *run(folder, tmp_path, "--regions", "reference"))
    assert code == 0, err
    assert json.loads(again)["tables"] == json.loads(out)["tables"]
    assert (tmp_path / FILE).read_bytes() == whole
    counts = json.loads(out)["tables"]["named rightly"]["model"]["counts"]
    assert sum(said) == counts["found"] - 1
    code, _, err = o2s(capsys, *run(folder, tmp_path))
    assert code == 2
    assert "begun with another regions" in err


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("object_id", "99", "no box of object '99'"),
        ("scene_id", "scene9999_00", "no scene 'scene9999_00'"),
        ("scene_id", "scene9999_00", "run `o2s prepare` on it"),
    ],
)
def test_what_is_not_there_is_named(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: str,
    message: str,
) -> None:
    entries = json.loads((folder / "ScanRefer_filtered_val.json").read_text())
    entries[0][key] = value
    reference = tmp_path / "other.json"
    reference.write_text(json.dumps(entries))
    arguments = run(folder, tmp_path / "out")
    arguments[3] = reference
    code, out, err = o2s(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
