"""The tasks of Scan2Inst: from questions, descriptions and scene labels to single records.

Every wording comes from `instruction_templates.yaml`, chosen by the seed and the record's id, so
that a record does not depend on which others are made.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args

import yaml

from o2s.datasets.language_files import Description, Question
from o2s.datasets.preparation import read_index
from o2s.errors import InputError
from o2s.io.cloud import quote
from o2s.io.labelled import LabelledScan, read_labelled

Task = Literal[
    "classification3d",
    "description3d",
    "VQA3D",
    "conversation",
    "dense_captioning",
    "object_counting",
]
TASKS: tuple[Task, ...] = get_args(Task)
TEMPLATES = Path(__file__).with_name("instruction_templates.yaml")
TURNS = 5  # the most questions in one conversation
LABELS = "scene_labels"  # the source of records that need no annotation in words


@dataclass(frozen=True)
class Wording:
    """Chooses among the wordings of a key, by a seed and the id of a record."""

    templates: Mapping[str, Sequence[str]]
    seed: int

    def __call__(self, key: str, identity: str, **values: str) -> str:
        choices = self.templates[key]
        return choices[self.draw(key, identity) % len(choices)].format(**values)

    def draw(self, *words: str) -> int:
        """A number drawn for these words, the same on every machine."""
        digest = sha256("\0".join([str(self.seed), *words]).encode()).digest()
        return int.from_bytes(digest[:8], "big")


def read_templates(path: Path = TEMPLATES) -> dict[str, list[str]]:
    """The wordings: for each key of the file that comes with o2s, a list of texts.

    Raises:
        InputError: no such file, not YAML, or a key that is missing, unknown, without texts, or
            whose texts have other {names} than they should; all are named.
    """
    try:
        held = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a YAML file of wordings") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(held, dict):
        raise InputError(f"{path}: no keys and values; expected {', '.join(_PLACEHOLDERS)}")
    problems = [f"{key}: no such key" for key in held if key not in _PLACEHOLDERS]
    for key, names in _PLACEHOLDERS.items():
        texts = held.get(key)
        if not isinstance(texts, list) or not texts:
            problems.append(f"{key}: {quote(texts) if key in held else 'missing'}, expected texts")
            continue
        for number, text in enumerate(texts):
            blank = not isinstance(text, str) or not text.strip()
            if blank or _placeholders(text) != sorted(names):
                expected = " ".join(f"{{{name}}}" for name in names) or "no {names}"
                problems.append(f"{key}[{number}]: {quote(text)}, expected a text with {expected}")
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    return held


class SceneLabels:
    """What prepared scenes hold, each read once when it is first asked for.

    Raises:
        InputError: the folder is none that `o2s prepare` wrote; later, a scene that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        scans = read_index(folder)["scans"]
        # What others call a split, such as S3DIS' areas, is none here.
        self.splits: dict[str, str | None] = {
            scan["name"]: scan["split"] if scan["split"] in ("train", "val", "test") else None
            for scan in scans
        }
        self._paths = {scan["name"]: folder / scan["file"] for scan in scans}
        self._held: dict[str, tuple[dict[str, list[float]], dict[str, list[str]]]] = {}

    def boxes(self, scene_id: str) -> dict[str, list[float]]:
        """Centre and size, in aligned metres, of each object, by its id."""
        return self._read(scene_id)[0]

    def counted(self, scene_id: str) -> dict[str, list[str]]:
        """The ids of the objects of each class that can be counted.

        Classes are nyu40's, with empty lists for those that the scene has none of; the objects' own
        names where a data set has no nyu40 classes. Left out are the shell of the room, what is of
        no certain class, and plurals ("books"), where one annotation is of several things.
        """
        return self._read(scene_id)[1]

    def _read(self, scene_id: str) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
        if scene_id not in self._held:
            scan = read_labelled(self._paths[scene_id])
            boxes: dict[str, list[float]] = {}
            if scan.objects is not None:
                pairs = zip(scan.objects.ids.tolist(), scan.objects.boxes.tolist(), strict=True)
                boxes = {str(identity): box for identity, box in pairs}
            self._held[scene_id] = boxes, _count(scan)
        return self._held[scene_id]


@dataclass(frozen=True)
class Material:
    """What records are made of: annotations that fit the scenes, and the scenes of the split."""

    labels: SceneLabels
    scene_ids: Sequence[str]
    questions: Sequence[Question]
    descriptions: Sequence[Description]
    wording: Wording


Record = dict[str, Any]


def make_task(task: Task, material: Material) -> Iterator[Record]:
    """The records of one task, in the order of the annotations or, without them, of the scenes."""
    makers: dict[Task, Callable[[Material], Iterator[Record]]] = {
        "classification3d": _classification,
        "description3d": _description,
        "VQA3D": _questions,
        "conversation": _conversations,
        "dense_captioning": _dense_captions,
        "object_counting": _counting,
    }
    for record in makers[task](material):
        yield {"task_type": task, **record}


def plural(name: str) -> str:
    """Of a class name in the singular, by the rules of English and a few exceptions."""
    before, _, last = name.rpartition(" ")
    if last in _PLURALS:
        several = _PLURALS[last]
    elif last.endswith("shelf"):
        several = last[:-1] + "ves"
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        several = last + "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        several = last[:-1] + "ies"
    else:
        several = last + "s"
    return f"{before} {several}".strip()


def _classification(material: Material) -> Iterator[Record]:
    """One record for each object that is described: its name."""
    first: dict[tuple[str, str], Description] = {}
    for description in material.descriptions:
        first.setdefault((description.scene_id, description.object_id), description)
    for description in first.values():
        identity = f"{description.scene_id}-{description.object_id}"
        question = material.wording("classification3d", identity)
        yield {
            **_referring(material, description),
            "question_id": identity,
            "conversations": _turns((question, description.object_name)),
            "answers": [description.object_name],
        }


def _description(material: Material) -> Iterator[Record]:
    """One record for each sentence."""
    references: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for d in material.descriptions:
        references[d.source, d.scene_id, d.object_id].append(d.text)
    for d in material.descriptions:
        yield {
            **_referring(material, d),
            "question_id": d.id,
            "conversations": _turns((material.wording("description3d", d.id), d.text)),
            "answers": references[d.source, d.scene_id, d.object_id],
        }


def _referring(material: Material, description: Description) -> Record:
    return {
        "scene_id": description.scene_id,
        "object_id": description.object_id,
        "object_name": description.object_name,
        "source": description.source,
        "object_ids": [description.object_id],
        "box": material.labels.boxes(description.scene_id)[description.object_id],
    }


def _questions(material: Material) -> Iterator[Record]:
    """One record for each question, with the first answer."""
    for q in material.questions:
        asked = _ask(material.wording, "VQA3D", q)
        yield {
            "scene_id": q.scene_id,
            "source": q.source,
            "question_id": q.id,
            "conversations": _turns((asked, q.answers[0] if q.answers else None)),
            "answers": list(q.answers),
            "object_ids": list(q.object_ids),
            "situation": q.situation,
            "position": q.position,
            "rotation": q.rotation,
        }


def _conversations(material: Material) -> Iterator[Record]:
    """All answered questions about a scene, shuffled, in conversations of 2 to TURNS questions."""
    by_scene: dict[str, list[Question]] = defaultdict(list)
    for question in material.questions:
        if question.answers:
            by_scene[question.scene_id].append(question)
    for scene_id, questions in by_scene.items():
        if len(questions) < 2:
            continue
        random.Random(material.wording.draw("conversation", scene_id)).shuffle(questions)
        parts = -(-len(questions) // TURNS)
        for number in range(parts):
            held = questions[number::parts]
            turns = [(_ask(material.wording, "conversation", q), q.answers[0]) for q in held]
            object_ids = dict.fromkeys(i for q in held for i in q.object_ids)
            yield {
                "scene_id": scene_id,
                "source": _join(q.source for q in held),
                "question_id": f"{scene_id}-{number}",
                "conversations": _turns(*turns),
                "answers": [q.answers[0] for q in held],
                "object_ids": list(object_ids),
            }


def _ask(wording: Wording, key: str, question: Question) -> str:
    identity = f"{question.source}-{question.id}"
    if question.situation is None:
        return wording(key, identity, question=question.text)
    situation = question.situation + ("" if question.situation.endswith((".", "!", "?")) else ".")
    return wording(f"{key}_with_situation", identity, situation=situation, question=question.text)


def _dense_captions(material: Material) -> Iterator[Record]:
    """All described objects of a scene, in the order of their ids, with one sentence each."""
    by_scene: dict[str, dict[str, list[Description]]] = defaultdict(lambda: defaultdict(list))
    for d in material.descriptions:
        by_scene[d.scene_id][d.object_id].append(d)
    for scene_id, objects in by_scene.items():
        boxes = material.labels.boxes(scene_id)
        object_ids = sorted(objects, key=int)
        lines, sources = [], []
        for object_id in object_ids:
            choices, identity = objects[object_id], f"{scene_id}-{object_id}"
            chosen = choices[material.wording.draw("sentence", identity) % len(choices)]
            sources.append(chosen.source)
            values = {
                "object_id": object_id,
                "box": ", ".join(f"{round(value, 2) + 0:.2f}" for value in boxes[object_id]),
                "description": chosen.text,
            }
            lines.append(material.wording("dense_captioning_object", scene_id, **values))
        answer = "\n".join(lines)
        yield {
            "scene_id": scene_id,
            "source": _join(sources),
            "question_id": scene_id,
            "conversations": _turns((material.wording("dense_captioning", scene_id), answer)),
            "answers": [answer],
            "object_ids": object_ids,
        }


def _counting(material: Material) -> Iterator[Record]:
    """For each scene, each class that it has and one, drawn by lot, that it has not."""
    for scene_id in material.scene_ids:
        counted = material.labels.counted(scene_id)
        absent = [name for name, object_ids in counted.items() if not object_ids]
        asked = [name for name, object_ids in counted.items() if object_ids]
        if asked and absent:
            asked.append(absent[material.wording.draw("absent", scene_id) % len(absent)])
        for name in asked:
            identity = f"{scene_id}-{name}"
            question = material.wording("object_counting", identity, plural=plural(name))
            count = str(len(counted[name]))
            yield {
                "scene_id": scene_id,
                "object_name": name,
                "source": LABELS,
                "question_id": identity,
                "conversations": _turns((question, count)),
                "answers": [count],
                "object_ids": counted[name],
            }


def _count(scan: LabelledScan) -> dict[str, list[str]]:
    if scan.objects is None:
        return {}
    if "nyu40" in scan.objects.classes:
        names = [_SPELLING.get(name, name) for name in scan.class_names["nyu40"]]
        values = scan.objects.classes["nyu40"].tolist()
        found = [names[value] if value > 0 else "unannotated" for value in values]
    else:
        names, found = (), scan.objects.names
    counted: dict[str, list[str]] = {name: [] for name in sorted({*names, *found})}
    for name, identity in zip(found, scan.objects.ids.tolist(), strict=True):
        counted[name].append(str(identity))
    return {n: ids for n, ids in counted.items() if n not in _UNCOUNTED and not _is_plural(n)}


def _is_plural(name: str) -> bool:
    return name.endswith("s") and not name.endswith("ss")


def _turns(*pairs: tuple[str, str | None]) -> list[dict[str, str | None]]:
    return [
        {"from": speaker, "value": value}
        for pair in pairs
        for speaker, value in zip(("human", "gpt"), pair, strict=True)
    ]


def _join(sources: Iterator[str] | Sequence[str]) -> str:
    return "+".join(sorted(set(sources)))


def _placeholders(text: str) -> list[str]:
    """The {names} in a text, in order; `?` for anything else between braces."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return ["?"]
    fields = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    return sorted("?" if spec or conversion else name for name, spec, conversion in fields)


_PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "classification3d": (),
    "description3d": (),
    "VQA3D": ("question",),
    "VQA3D_with_situation": ("situation", "question"),
    "conversation": ("question",),
    "conversation_with_situation": ("situation", "question"),
    "dense_captioning": (),
    "dense_captioning_object": ("object_id", "box", "description"),
    "object_counting": ("plural",),
}
_UNCOUNTED = {"wall", "floor", "ceiling", "otherstructure", "otherfurniture", "otherprop"}
_UNCOUNTED |= {"unannotated", "unlabeled", "object", "clutter", "furniture", "beam", "column"}
_SPELLING = {"refridgerator": "refrigerator"}  # as nyu40 spells it
_PLURALS = {"person": "people", "man": "men", "woman": "women", "knife": "knives"}
