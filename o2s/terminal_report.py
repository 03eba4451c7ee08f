"""Reports on the terminal: tables for people, or JSON alone on standard output."""

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from o2s.evaluate.bootstrap import Estimate
from o2s.evaluate.report import Report
from o2s.terminal import out, print_json, print_wide


def print_report(report: Report, *, json_output: bool) -> None:
    """The scores of a report, times 100; as JSON, nothing else goes to standard output."""
    if json_output:
        print_json(report.json())
        return
    for section in report.tables:
        counts = list(dict.fromkeys(name for row in section.rows for name in row.counts))
        scores = list(dict.fromkeys(name for row in section.rows for name in row.scores))
        table = Table(title=Text(section.title), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column(no_wrap=True)
        for name in (*counts, *scores):
            table.add_column(Text(name), justify="right", no_wrap=True)
        for row in section.rows:
            cells = [str(row.counts.get(name, "")) for name in counts]
            cells += [_cell(row.scores.get(name)) for name in scores]
            table.add_row(Text(row.name), *cells)
        print_wide(table)
        for row in section.rows[:1]:
            _say(_intervals(row.name, row.scores))
    for note in report.notes:
        _say(f"note: {note}")


def _cell(score: Estimate | None) -> str:
    if score is None:
        return ""
    return "n/a" if score.value is None else f"{round(100 * score.value, 1) + 0.0:.1f}"


def _intervals(name: str, scores: Mapping[str, Estimate]) -> str:
    """One line with the intervals of a row, and why scores are not available."""
    parts = [
        f"{metric} {100 * score.low:.1f} to {100 * score.high:.1f}"
        for metric, score in scores.items()
        if score.low is not None and score.high is not None
    ]
    reasons = {score.reason for score in scores.values() if score.reason}
    lacking = [f"n/a is not available: {reason}" for reason in sorted(reasons)]
    intervals = [f"{name}, 95 % intervals: {', '.join(parts)}"] if parts else []
    return "\n".join([*intervals, *lacking])


def _say(text: str) -> None:
    if text:
        out.print(text, markup=False, highlight=False, soft_wrap=True)
