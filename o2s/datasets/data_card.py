"""The data card of a folder of instruction records: what is in it, in numbers and a picture.

`data_card.json` holds, for each split that is there:

    records, scenes, unanswered   numbers of records, of scenes, of records without an answer
    tasks                         {task: {source: records}}
    answers                       the 20 most frequent [answer, records] of the tasks with short
                                  answers (VQA3D, classification3d and object_counting; the first
                                  reference counts), ties in alphabetical order
    question_words, answer_words  {words: turns}, the lengths of the turns of both sides
    made_from                     seed, tasks, files with their checksums, what was skipped

`data_card.md` and `data_card.png` show the same to people. The same records give the same bytes.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datasets import Dataset
from o2s.datasets.instruction_tasks import TASKS
from o2s.datasets.scan2inst import MADE_FROM, load_records
from o2s.errors import InputError
from o2s.files import replacing

CARD = "data_card"
SPLITS = ("train", "val", "test")
SHORT_ANSWERS = ("VQA3D", "classification3d", "object_counting")
TOP = 20
_EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)  # of the bins of lengths, in words


def write_data_card(folder: Path) -> dict[str, Any]:
    """Write the data card of all splits that `folder` holds, and return it.

    Raises:
        InputError: there are none, or they are damaged.
        OSError: a file cannot be written.
    """
    card: dict[str, Any] = {}
    for split in SPLITS:
        if (folder / split / MADE_FROM).is_file():
            dataset, made_from = load_records(folder / split)
            card[split] = {**count_records(dataset), "made_from": made_from}
    if not card:
        raise InputError(f"{folder}: no records of any split; expected a folder of `o2s instruct`")
    with replacing(folder / f"{CARD}.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", "utf-8")
    with replacing(folder / f"{CARD}.md") as temporary:
        temporary.write_text(_markdown(card), "utf-8")
    _draw(card, folder / f"{CARD}.png")
    return card


def count_records(dataset: Dataset) -> dict[str, Any]:
    """The numbers of a data card, see above."""
    rows = dataset.select_columns(
        ["scene_id", "task_type", "source", "answers", "conversations"]
    ).to_list()
    kinds = Counter((row["task_type"], row["source"] or "unknown") for row in rows)
    short = [row for row in rows if row["task_type"] in SHORT_ANSWERS and row["answers"]]
    answers = Counter(row["answers"][0] for row in short)
    turns = [turn for row in rows for turn in row["conversations"] if turn["value"] is not None]
    return {
        "records": len(rows),
        "scenes": len({row["scene_id"] for row in rows}),
        "unanswered": sum(row["conversations"][-1]["value"] is None for row in rows),
        "tasks": {
            task: {source: n for (t, source), n in sorted(kinds.items()) if t == task}
            for task in _in_order(task for task, _ in kinds)
        },
        "answers": [
            list(pair) for pair in sorted(answers.items(), key=lambda pair: (-pair[1], pair[0]))
        ][:TOP],
        "question_words": _lengths([t["value"] for t in turns if t["from"] == "human"]),
        "answer_words": _lengths([t["value"] for t in turns if t["from"] == "gpt"]),
    }


def _in_order(tasks: Iterable[str]) -> list[str]:
    """Each task once: ours in our order, then others'."""
    found = set(tasks)
    return [task for task in TASKS if task in found] + sorted(found - set(TASKS))


def _lengths(texts: Sequence[str]) -> dict[str, int]:
    """The number of texts for each range of words, up to the last range that has any."""
    counts = Counter(sum(edge <= len(text.split()) for edge in _EDGES) - 1 for text in texts)
    return {_range(i): counts[i] for i in range(max(counts, default=-1) + 1)}


def _range(number: int) -> str:
    first = _EDGES[number]
    if number + 1 == len(_EDGES):
        return f"{first} or more"
    last = _EDGES[number + 1] - 1
    return str(first) if first == last else f"{first} to {last}"


def _markdown(card: Mapping[str, Any]) -> str:
    lines = ["# Instruction records", "", f"![counts and lengths]({CARD}.png)"]
    for split, facts in card.items():
        unanswered = f", {facts['unanswered']} unanswered" if facts["unanswered"] else ""
        lines += ["", f"## {split}"]
        lines += [f"{facts['records']} records of {facts['scenes']} scenes{unanswered}.", ""]
        lines += _table(
            ("task", "source", "records"),
            [(t, s, n) for t, sources in facts["tasks"].items() for s, n in sources.items()],
        )
        if facts["answers"]:
            lines += ["", "Most frequent short answers:", ""]
            lines += _table(("answer", "records"), facts["answers"])
        made_from = facts["made_from"]
        lines += ["", f"Made with seed {made_from.get('seed')} from:", ""]
        lines += _table(
            ("kind", "file", "SHA-256"),
            [(f["kind"], f["name"], f["sha256"]) for f in made_from.get("files", ())],
        )
        skipped = {what: n for what, n in made_from.get("skipped", {}).items() if n}
        if skipped:
            lines += ["", "Skipped annotations: "]
            lines[-1] += ", ".join(f"{n} {what}" for what, n in skipped.items()) + "."
    return "\n".join(lines) + "\n"


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [[" ".join(str(v).split()).replace("|", "\\|") for v in row] for row in rows]
    parts = [list(names), ["---"] * len(names), *cells]
    return [f"| {' | '.join(row)} |" for row in parts]


def _draw(card: Mapping[str, Any], path: Path) -> None:
    figure = Figure(figsize=(15, 5 * len(card)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(card), 3, squeeze=False)
    for (split, facts), (counts, answers, lengths) in zip(card.items(), axes, strict=True):
        _draw_counts(counts, facts["tasks"])
        counts.set_title(f"{split}: {facts['records']} records, {facts['scenes']} scenes")
        _draw_bars(answers, [(str(text), n) for text, n in facts["answers"]])
        answers.set_title("most frequent short answers")
        _draw_lengths(lengths, facts)
    with replacing(path) as temporary, warnings.catch_warnings():
        # Letters that the font lacks are drawn as empty boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_counts(axes: Axes, tasks: Mapping[str, Mapping[str, int]]) -> None:
    """A bar a task, in parts by source."""
    names = list(tasks)
    left = [0] * len(names)
    for source in sorted({source for sources in tasks.values() for source in sources}):
        widths = [tasks[task].get(source, 0) for task in names]
        axes.barh(range(len(names)), widths, left=left, label=source)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        axes.text(total, row, f" {total}", va="center", fontsize="small")
    axes.margins(x=0.12)
    _name_rows(axes, names)
    axes.set_xlabel("records")
    axes.legend(fontsize="small")


def _draw_bars(axes: Axes, pairs: Sequence[tuple[str, int]]) -> None:
    axes.barh(range(len(pairs)), [count for _, count in pairs], color="tab:gray")
    _name_rows(axes, [text if len(text) <= 28 else text[:25] + "..." for text, _ in pairs])
    axes.set_xlabel("records")


def _draw_lengths(axes: Axes, facts: Mapping[str, Any]) -> None:
    for key, shift in (("question_words", -0.2), ("answer_words", 0.2)):
        counts = list(facts[key].values())
        axes.bar([i + shift for i in range(len(counts))], counts, 0.4, label=key.split("_")[0])
    names = max(facts["question_words"], facts["answer_words"], key=len)
    axes.set_xticks(range(len(names)), list(names), rotation=60)
    axes.set_title("lengths of the turns")
    axes.set_xlabel("words")
    axes.set_ylabel("turns")
    axes.legend(fontsize="small")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a "$" in an answer begins no formula
    axes.invert_yaxis()
