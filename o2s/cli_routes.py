"""The command `o2s routes`: which LoRA experts a model's gate gives to which questions.

questions -> processor, gate -> weights [N, E] -> use of each expert, by task
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from o2s.errors import InputError
from o2s.options import (
    DeviceOption,
    JsonOption,
    LanguageModelOption,
    SetOption,
    ThreadsOption,
    TrustOption,
    check_picture,
)
from o2s.terminal import out, print_json, print_wide, progress_bar, say_untrained, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from o2s.llm.answering import SceneAnswerer
    from o2s.llm.route_use import RouteUse

logger = logging.getLogger(__name__)

EXAMPLE = "Example: o2s routes o2s_tiny --questions questions.txt"
BATCH = 256


def routes(
    model: Annotated[str, typer.Argument(help="The folder of a saved model, or a config's name.")],
    questions: Annotated[
        Path,
        typer.Option(
            help="A text with one question a line, a JSON list of entries with a question, or a "
            "folder of records of `o2s instruct`."
        ),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            help='What to group by: "task" of records, or a key of the JSON entries, such as kind.'
        ),
    ] = None,
    json_output: JsonOption = False,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the mean weights: a .png file.")
    ] = None,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Show which LoRA experts a model's gate gives to which questions.

    Prints the mean weight of each expert and the share of the questions that take it, in all and in
    each group, and warns of experts that hardly any question takes. With --json also the weights of
    each question and their entropy.
    """
    from o2s.llm.route_use import entropy, use_by_group
    from o2s.loading import ModelSource, load_answerer, set_threads

    asked = read_questions(questions, by)
    check_picture(picture)
    set_threads(threads)
    folder = Path(model) if Path(model).is_dir() else None
    name = "" if folder else model
    source = ModelSource(folder, name, override or [], language_model, trust_pickle)
    answerer = load_answerer(source, device)
    asked_of, groups = zip(*asked, strict=True)
    with progress_bar() as progress, step(progress, "routing") as update:
        found = _route(answerer, asked_of, update)
    uses = use_by_group(found, groups)
    say_untrained(answerer.untrained)
    for expert in uses[0].dead:
        logger.warning(
            "expert %d is dead: %.1f %% of the questions take it",
            expert,
            100 * uses[0].used[expert],
        )
    if json_output:
        each = [
            {
                "question": " ".join(turns),
                "group": group,
                "weights": [round(weight, 4) for weight in row],
                "entropy": round(bits, 4),
            }
            for turns, group, row, bits in zip(
                asked_of, groups, found.tolist(), entropy(found).tolist(), strict=True
            )
        ]
        print_json({"groups": [asdict(use) for use in uses], "questions": each})
    else:
        _print(uses)
    if picture is not None:
        import numpy as np

        from o2s.view.routes import draw_routes

        draw_routes(np.array([use.weights for use in uses]), [use.name for use in uses], picture)


def read_questions(path: Path, by: str | None) -> list[tuple[list[str], str]]:
    """Questions, each as the turns of its conversation, with the name of its group.

    Raises:
        InputError: there are none, the file is damaged, or it has no such groups.
    """
    if path.is_dir():
        found = _records(path, by)
    elif path.suffix == ".json":
        found = _entries(path, by)
    elif by is not None:
        raise InputError(f"--by {by}: {path} has no groups; give JSON or records for that")
    else:
        found = [([line.strip()], "all") for line in _read(path).splitlines() if line.strip()]
    if not found:
        raise InputError(f"{path}: holds no questions")
    return found


def _records(path: Path, by: str | None) -> list[tuple[list[str], str]]:
    from o2s.datasets.scan2inst import load_records

    if by is not None and by != "task":
        raise InputError(f"--by {by}: records have groups of tasks alone; expected task")
    records: Any = load_records(path)[0].select_columns(["task_type", "conversations"])
    return [
        (
            [turn["value"] for turn in record["conversations"][::2]],
            record["task_type"] if by else "all",
        )
        for record in records
    ]


def _entries(path: Path, by: str | None) -> list[tuple[list[str], str]]:
    from o2s.datasets.language_files import json_entries

    entries = json_entries([path], "question")
    return [([entry.text("question")], entry.text(by) if by else "all") for entry in entries]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of questions") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; expected a text or JSON") from None


def _route(
    answerer: "SceneAnswerer", asked: "Sequence[list[str]]", update: Any
) -> "Float[Tensor, 'N E']":
    import torch

    found: list[Tensor] = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        answers = [[""] * (len(turns) - 1) for turns in part]  # which no gate reads
        batch = answerer.batch(part, None, history=answers)
        with torch.inference_mode():
            weights = answerer.model.route(batch["question_ids"], batch["question_mask"])
        if weights is None:
            raise InputError("the model has no gate that gives a question one route")
        found.append(weights.cpu())
        update(min(start + BATCH, len(asked)), len(asked))
    return torch.cat(found)


def _print(uses: "list[RouteUse]") -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(no_wrap=True)
    experts = [f"expert {expert}" for expert in range(len(uses[0].weights))]
    for name in ("questions", "entropy", "spread", *experts):
        table.add_column(name, justify="right", no_wrap=True)
    for use in uses:
        cells = [
            f"{weight:.2f} ({100 * share:.0f} %)"
            for weight, share in zip(use.weights, use.used, strict=True)
        ]
        numbers = (str(use.questions), f"{use.entropy:.2f}", f"{use.spread:.2f}")
        table.add_row(Text(use.name), *numbers, *cells)
    print_wide(table)
    line = (
        "each expert: its mean weight, and how many of the questions take it; "
        "bits of a question's weights (entropy) and of the mean weights (spread)"
    )
    out.print(line, markup=False, highlight=False, soft_wrap=True)
