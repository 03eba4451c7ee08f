"""Scan2Inst: instruction records about prepared scenes, as a Hugging Face dataset.

A record keeps the fields of Octavius' Scan2Inst (Chen et al., ICLR 2024), so that its JSON can be
read and written:

    scene_id       name of the prepared scene
    object_id      the one object that is referred to; None where the whole scene is
    object_name    its name, or the counted class
    task_type      one of TASKS
    conversations  turns {from: human | gpt, value}, which alternate and begin with human; the value
                   of the last is None where the answer is not known

and adds what training and scoring ask for:

    question_id    unique among the records of a task
    source         scanqa, sqa3d, scanrefer, nr3d or scene_labels; several are joined with +
    split          train, val or test
    answers        all references: for `description3d` all sentences of the source about the object,
                   for `conversation` the answer of each turn
    object_ids     all objects that the record is about
    box            centre and size, in aligned metres, of the object `object_id`
    situation, position, rotation   SQA3D's, in the coordinates of its file
"""

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow

from datasets import (
    Dataset,
    Features,
    List,
    Value,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    interleave_datasets,
    load_from_disk,
)
from o2s.datasets.instruction_tasks import (
    TASKS,
    Material,
    SceneLabels,
    Task,
    Wording,
    make_task,
    read_templates,
)
from o2s.datasets.language_files import Description, Entry, Question, json_entries
from o2s.errors import InputError
from o2s.files import replacing
from o2s.io.cloud import quote

Split = Literal["train", "val", "test"]
MADE_FROM, SKIPPED = "made_from.json", "skipped.json"

FEATURES = Features(
    {
        "scene_id": Value("string"),
        "object_id": Value("string"),
        "object_name": Value("string"),
        "task_type": Value("string"),
        "conversations": List({"from": Value("string"), "value": Value("string")}),
        "question_id": Value("string"),
        "source": Value("string"),
        "split": Value("string"),
        "answers": List(Value("string")),
        "object_ids": List(Value("string")),
        "box": List(Value("float64"), length=6),
        "situation": Value("string"),
        "position": List(Value("float64"), length=3),
        "rotation": List(Value("float64"), length=4),
    }
)


@dataclass
class Skipped:
    """What was left out: numbers by source, and each annotation of an object that is not there."""

    not_prepared: Counter[str] = field(default_factory=Counter)
    other_split: Counter[str] = field(default_factory=Counter)
    no_object: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        """One line, empty where nothing was skipped."""
        return ", ".join(f"{count} {what}" for what, count in self.counts().items() if count)

    def counts(self) -> dict[str, int]:
        """The number of annotations by reason."""
        return {
            "of scenes that are not prepared": self.not_prepared.total(),
            "of scenes of another split": self.other_split.total(),
            "of objects that their scene does not have": len(self.no_object),
        }

    def to_json(self) -> dict[str, Any]:
        """As in `skipped.json`."""
        return {
            "not_prepared": dict(sorted(self.not_prepared.items())),
            "other_split": dict(sorted(self.other_split.items())),
            "no_object": self.no_object,
        }


def make_records(
    scenes: Path,
    *,
    split: Split,
    questions: Sequence[Question] = (),
    descriptions: Sequence[Description] = (),
    tasks: Iterable[Task] = TASKS,
    seed: int = 0,
    templates: Mapping[str, Sequence[str]] | None = None,
    without_answers: bool = False,
) -> tuple[Dataset, Skipped]:
    """Make the records of some tasks, in the order of TASKS and within a task of the annotations.

    The same annotations, scenes and seed give the same records in the same order. Skipped are
    annotations of scenes that are not prepared, that lack the object, and of scenes of another
    split. Descriptions and counts are of the scenes prepared as `split`. Since the val and test
    files of ScanQA and SQA3D share ScanNet's val scenes, their questions for train are those of
    train scenes, and for val and test those of all others.

    Args:
        scenes: a folder that `o2s prepare` wrote.
        templates: as from `read_templates`; those of o2s if not given.
        without_answers: take questions without answers, too, as VQA3D records whose last turn has
            the value None.

    Raises:
        InputError: `scenes` is no such folder, questions have no answers, or nothing is left.
    """
    chosen = set(tasks)
    unanswered = [q for q in questions if not q.answers]
    if "VQA3D" in chosen and unanswered and not without_answers:
        first = unanswered[0]
        raise InputError(
            f"{len(unanswered)} of {len(questions)} questions have no answers, the first is "
            f"{quote(first.id)} of {first.source}; say --without-answers to keep them"
        )
    labels, skipped = SceneLabels(scenes), Skipped()
    material = Material(
        labels,
        [name for name, found in labels.splits.items() if found in (split, None)],
        [q for q in questions if _fits(q, q.object_ids, labels, split, skipped)],
        [d for d in descriptions if _fits(d, (d.object_id,), labels, split, skipped)],
        Wording(read_templates() if templates is None else templates, seed),
    )
    records = [record for task in TASKS if task in chosen for record in make_task(task, material)]
    if not records:
        reason = f"; skipped were {skipped}" if str(skipped) else ""
        raise InputError(f"{scenes}: no records of split {split} came out, expected some{reason}")
    rows = [{**_EMPTY, "split": split, **record} for record in records]
    return Dataset.from_list(rows, FEATURES), skipped


def save_records(
    dataset: Dataset, folder: Path, *, skipped: Skipped, made_from: Mapping[str, Any]
) -> None:
    """Save records with `save_to_disk`, `skipped.json` and `made_from.json` beside them.

    They are written to a temporary folder beside, which then takes the place of what an earlier run
    left. `load_records` reads them.

    Raises:
        InputError: `folder` is there and holds anything else.
        OSError: it cannot be written.
    """
    if folder.exists() and not (folder / MADE_FROM).is_file():
        raise InputError(f"{folder}: holds no records and would be overwritten; move it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # by a killed run
        shutil.rmtree(left)
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(8)}.tmp"
    try:
        with _no_progress_bars():
            dataset.save_to_disk(temporary)
        _write_json(temporary / SKIPPED, skipped.to_json())
        _write_json(temporary / MADE_FROM, {**made_from, "skipped": skipped.counts()})
        if folder.exists():
            old = temporary.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_records(folder: Path) -> tuple[Dataset, dict[str, Any]]:
    """Records that `save_records` wrote, mapped from the disk, and what they were made from.

    Raises:
        InputError: there are none, or they are damaged.
    """
    try:
        made_from = json.loads((folder / MADE_FROM).read_bytes())
        dataset = load_from_disk(str(folder))
    except FileNotFoundError:
        raise InputError(f"{folder}: no records; expected a folder of `o2s instruct`") from None
    except (ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: damaged ({reason}); run `o2s instruct` again") from None
    assert isinstance(dataset, Dataset)
    return dataset, made_from


def read_octavius(path: Path) -> Dataset:
    """Records out of a JSON list in Octavius' format; columns that it lacks are empty.

    Ids become texts; keys that are no columns of ours are passed over.

    Raises:
        InputError: the file is missing, damaged or of another format.
    """
    rows = [_octavius_row(entry) for entry in json_entries([path], "Scan2Inst")]
    try:
        return Dataset.from_list(rows, FEATURES)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: values of the wrong kind ({reason}); see {__name__}") from None


def write_octavius(dataset: Dataset, path: Path) -> None:
    """Write records as a JSON list in Octavius' format, whole or not at all.

    Its own fields are always there, our further columns where they hold something.
    `read_octavius` gives the same records again.
    """
    rows = [
        {k: v for k, v in row.items() if k in _OCTAVIUS or (v is not None and v != [])}
        for row in dataset.to_list()
    ]
    _write_json(path, rows)


def mix(datasets: Mapping[str, Dataset], weights: Mapping[str, float], seed: int) -> Dataset:
    """Interleave data sets: each next record is of set i with probability weight i over their sum.

    It ends once every set was gone through at least once (`all_exhausted` of Hugging Face's
    `interleave_datasets`), so that no record is lost; sets that end earlier begin anew. The order
    of the mappings does not matter.

    Raises:
        InputError: a set without a weight or records, a weight without a set or not above 0.
    """
    if not datasets:
        raise InputError("mix: no data sets, expected at least one")
    for name in sorted(datasets.keys() | weights.keys()):
        if name not in datasets or name not in weights:
            lacking = "data set" if name in weights else "weight"
            raise InputError(f"mix: no {lacking} for {quote(name)}, expected one for each")
        if not 0 < weights[name] < float("inf"):
            raise InputError(f"mix: weight of {quote(name)} is {weights[name]}, expected above 0")
        if not len(datasets[name]):
            raise InputError(f"mix: {quote(name)} has no records, expected some")
    names = sorted(datasets)
    total = sum(weights.values())
    return interleave_datasets(
        [datasets[name] for name in names],
        probabilities=[weights[name] / total for name in names],
        seed=seed,
        stopping_strategy="all_exhausted",
    )


def _fits(
    annotation: Question | Description,
    object_ids: Sequence[str],
    labels: SceneLabels,
    split: Split,
    skipped: Skipped,
) -> bool:
    """Whether an annotation is of a prepared scene of the split that has its objects."""
    scene_id, source = annotation.scene_id, annotation.source
    if scene_id not in labels.splits:
        skipped.not_prepared[source] += 1
        return False
    found = labels.splits[scene_id]
    same = found == split or (isinstance(annotation, Question) and "train" not in (found, split))
    if found is not None and not same:
        skipped.other_split[source] += 1
        return False
    lacking = [i for i in object_ids if i not in labels.boxes(scene_id)]
    if lacking:
        entry = {"source": source, "id": annotation.id, "scene_id": scene_id}
        skipped.no_object.append({**entry, "object_ids": lacking})
    return not lacking


def _octavius_row(entry: Entry) -> dict[str, Any]:
    values = {k: v for k, v in entry.values.items() if k in FEATURES and v is not None}
    turns = entry.values.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise entry.wrong("conversations", turns, "a list of turns")
    for number, turn in enumerate(turns):
        speaker = ("human", "gpt")[number % 2]
        known = isinstance(turn, dict) and turn.get("from") == speaker
        unanswered = known and speaker == "gpt" and number == len(turns) - 1
        value = turn.get("value") if known else None
        if not isinstance(value, str) and not (unanswered and value is None):
            raise entry.wrong(f"conversations[{number}]", turn, f"a turn of {speaker} with a value")
    checks = {"object_id": entry.id, "question_id": entry.id, "object_ids": entry.ids}
    checks |= dict.fromkeys(("object_name", "source", "split", "situation"), entry.text)
    checks |= {"answers": entry.texts}
    values |= {key: check(key) for key, check in checks.items() if key in values}
    required = {key: entry.text(key) for key in ("scene_id", "task_type")}
    conversations = [{"from": turn["from"], "value": turn.get("value")} for turn in turns]
    return {**_EMPTY, **values, **required, "conversations": conversations}


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep Hugging Face's bars off the terminal; commands show their own."""
    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()


_OCTAVIUS = ("scene_id", "object_id", "object_name", "task_type", "conversations")
_EMPTY: dict[str, Any] = dict.fromkeys(FEATURES) | {"answers": [], "object_ids": []}
