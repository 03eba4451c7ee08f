import json
from pathlib import Path

import pytest

from o2s.evaluate.bootstrap import Estimate
from o2s.evaluate.report import Report, Row, Table, file_facts, versions, write_report

REPORT = Report(
    "question answering",
    [
        Table(
            "official",
            [
                Row("all", {"questions": 7}, {"CIDEr": Estimate(0.768, 0.7, 0.8)}),
                Row("how|many", {"questions": 2}, {"METEOR": Estimate.unavailable("needs Java")}),
            ],
        )
    ],
    {"seed": 3, "versions": {"o2s": "0.1"}, "files": [{"name": "a.json"}]},
    ["a note"],
)


def test_json_has_fractions_by_table_row_and_score(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    held = json.loads((tmp_path / "scores.json").read_text())
    rows = held["tables"]["official"]
    assert rows["all"] == {
        "counts": {"questions": 7},
        "scores": {"CIDEr": {"value": 0.768, "low": 0.7, "high": 0.8}},
    }
    assert rows["how|many"]["scores"]["METEOR"] == {"value": None, "reason": "needs Java"}
    assert held["made_from"]["seed"] == 3
    assert held["notes"] == ["a note"]


def test_markdown_is_times_100_with_intervals(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    lines = (tmp_path / "scores.md").read_text().splitlines()
    assert "| | questions | CIDEr | METEOR |" in lines
    assert "| all | 7 | 76.80 (70.0 to 80.0) |  |" in lines
    assert "| how\\|many | 2 |  | not available |" in lines
    assert {"- versions.o2s: 0.1", "- files[0].name: a.json", "- a note"} <= set(lines)


def test_versions_say_what_is_not_installed() -> None:
    found = versions("no-such-package")
    assert found["no-such-package"] == "not installed"
    assert found["numpy"][0].isdigit()


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    (tmp_path / "c").write_text("y")
    sums = [file_facts(tmp_path / name)["sha256"] for name in "abc"]
    assert sums[0] == sums[1] != sums[2]


def test_both_files_are_written_or_none(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("old")
    (tmp_path / "scores.md").mkdir()
    with pytest.raises(IsADirectoryError):
        write_report(REPORT, tmp_path)
    assert (tmp_path / "scores.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.json", "scores.md"]
