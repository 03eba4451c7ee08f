"""Reports: tables of scores with all that is needed to make them again, as JSON and Markdown."""

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from o2s.evaluate.bootstrap import Estimate
from o2s.files import replacing


@dataclass(frozen=True)
class Row:
    """The scores of one set of items: all of them, a kind of question, a class.

    `counts` says how much was scored, such as {"questions": 120, "references": 180}.
    """

    name: str
    counts: Mapping[str, int]
    scores: Mapping[str, Estimate]


@dataclass(frozen=True)
class Table:
    """Rows with the same scores; `title` is unique in a report and names the metric's variant."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Report:
    """What was scored, how, and the tables; `made_from` names model, data, seed and versions."""

    task: str
    tables: Sequence[Table]
    made_from: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        """Scores at tables -> title -> row -> scores -> name -> value; fractions, not per cent."""
        return {
            "task": self.task,
            "tables": {table.title: _rows_json(table) for table in self.tables},
            "notes": list(self.notes),
            "made_from": dict(self.made_from),
        }

    def markdown(self) -> str:
        """The same for people: scores times 100, with their 95 % intervals."""
        lines = [f"# Scores: {self.task}", "", "Scores are times 100, with 95 % intervals.", ""]
        for table in self.tables:
            lines += [f"## {table.title}", "", *_markdown_table(table), ""]
        if self.notes:
            lines += [*(f"- {note}" for note in self.notes), ""]
        lines += ["Made from:", "", *(f"- {line}" for line in _flat(self.made_from))]
        return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """`scores.json` and `scores.md` in a folder, both or none."""
    text = json.dumps(report.json(), indent=2, ensure_ascii=False) + "\n"
    with (
        replacing(folder / "scores.json") as json_file,
        replacing(folder / "scores.md") as markdown_file,
    ):
        json_file.write_text(text, "utf-8")
        markdown_file.write_text(report.markdown(), "utf-8")


def versions(*packages: str) -> dict[str, str]:
    """The versions of o2s, Python, numpy and the named packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("o2s", "numpy", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def file_facts(path: Path) -> dict[str, str]:
    """The name and checksum of a file that was read."""
    return {"name": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}


def percent(score: Estimate) -> str:
    """A score as tables print it: times 100, with its interval."""
    if score.value is None:
        return "not available"
    text = f"{round(100 * score.value, 2) + 0.0:.2f}"  # + 0.0: no minus before a zero
    if score.low is None or score.high is None:
        return text
    return f"{text} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _rows_json(table: Table) -> dict[str, Any]:
    return {
        row.name: {
            "counts": dict(row.counts),
            "scores": {
                name: {key: value for key, value in asdict(score).items() if value is not None}
                | ({"value": None} if score.value is None else {})
                for name, score in row.scores.items()
            },
        }
        for row in table.rows
    }


def _markdown_table(table: Table) -> Iterator[str]:
    counts = list(dict.fromkeys(name for row in table.rows for name in row.counts))
    scores = list(dict.fromkeys(name for row in table.rows for name in row.scores))
    yield f"| | {' | '.join([*counts, *scores])} |"
    yield "| --- " * (1 + len(counts) + len(scores)) + "|"
    for row in table.rows:
        cells = [str(row.counts.get(name, "")) for name in counts]
        cells += [percent(row.scores[name]) if name in row.scores else "" for name in scores]
        yield f"| {' | '.join([_escape(row.name), *cells])} |"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _flat(value: object, name: str = "") -> Iterator[str]:
    """Nested facts, one line each."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{number}]")
    else:
        yield f"{name}: {value}"
