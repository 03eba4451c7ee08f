"""A model at work on the scenes of a benchmark; what it says is stored as it comes.

Three systems answer: the model; the same model blind (no scene tokens); and the same model with the
tokens of another scene (shuffled). Each has a file of JSON lines in the output folder,
`predictions.jsonl`, `predictions_blind.jsonl` and `predictions_shuffled.jsonl`, which `o2s eval`
reads like any other predictions. A run that was killed goes on where it stopped.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64

from o2s import __version__
from o2s.datasets.preparation import read_index
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.scene_boxes import TrueBoxes, read_regions
from o2s.files import write_json, write_text
from o2s.io import read_scene
from o2s.io.cloud import quote
from o2s.llm.answering import SceneAnswerer
from o2s.llm.prompts import DESCRIBE_OBJECT
from o2s.scene import Boxes, RegionFeatures, Scene

System = Literal["model", "blind", "shuffled"]
FILES: dict[System, str] = {
    "model": "predictions.jsonl",
    "blind": "predictions_blind.jsonl",
    "shuffled": "predictions_shuffled.jsonl",
}
SETTINGS = "run.json"

Progress = Callable[[int, int], None]


class Scenes:
    """The prepared scans of a folder by name, each read and encoded once.

    With `truth` their regions are true boxes, of the classes that are annotated, instead of what
    the detector finds.
    """

    def __init__(
        self, folder: Path, encoder: SceneEncoder, truth: Mapping[str, TrueBoxes] | None = None
    ) -> None:
        self.folder = folder
        self._truth = truth
        self._encoder = encoder
        self._files = {entry["name"]: entry["file"] for entry in read_index(folder)["scans"]}
        self._looks: dict[str, RegionFeatures] = {}
        self._offsets: dict[str, np.ndarray] = {}

    def require(self, names: Sequence[str], asked_by: Path) -> None:
        """Raises InputError if one of the scenes is not there."""
        missing = sorted({name for name in names if name not in self._files})
        if missing:
            raise InputError(
                f"{self.folder}: no prepared scan {quote(missing[0])}, one of {len(missing)} that "
                f"{asked_by} asks about and that are missing; run `o2s prepare` on them"
            )

    def read(self, name: str) -> Scene:
        """One scan."""
        return read_scene(self.folder / self._files[name])

    def look(self, name: str) -> RegionFeatures:
        """The encoded regions of one scan: what the detector finds, or the true boxes."""
        if name not in self._looks:
            scene = self.read(name)
            given = None if self._truth is None else _in_scene(self._truth[name], scene)
            self._looks[name] = self._encoder.look(scene, given)
            self._offsets[name] = scene.offset.numpy()
        return self._looks[name]

    def offset(self, name: str) -> Float64[np.ndarray, "3"]:
        """What to add to the coordinates of a scan's regions for those of the prepared scan."""
        self.look(name)
        return self._offsets[name]


def open_scenes(
    folder: Path,
    encoder: SceneEncoder,
    names: Sequence[str],
    asked_by: Path,
    regions: str,
    *,
    shell: bool = False,
) -> Scenes:
    """The scenes that a model is asked about.

    Args:
        folder: prepared scans.
        encoder: the model's.
        names: the scenes.
        asked_by: the file that names them.
        regions: "detector", or "reference" for true boxes.
        shell: whether these have walls, floor and ceiling.

    Raises:
        InputError: a scene is missing, or not annotated where true boxes are wanted.
    """
    scenes = Scenes(folder, encoder)
    scenes.require(names, asked_by)
    if regions == "detector":
        return scenes
    return Scenes(folder, encoder, read_regions(folder, names, shell=shell))


def _in_scene(boxes: TrueBoxes, scene: Scene) -> Boxes:
    """True boxes in the centred coordinates of a scene."""
    rows = torch.from_numpy(boxes.boxes)
    centres = (rows[:, :3] - scene.offset).float()
    sizes, headings = rows[:, 3:6].float(), rows[:, 6].float()
    labels = tuple(label or "object" for label in boxes.labels)
    return Boxes(centres, sizes, headings, torch.ones(len(rows)), labels)


@dataclass(frozen=True)
class Store:
    """A file of JSON lines that grows; a last line that was cut off does not count.

    `key` names what each line is about, `value` what it says of it.
    """

    path: Path
    key: str
    value: str

    def read(self) -> dict[str, Any]:
        """What the lines say so far, by key; a cut line is removed from the file.

        Raises:
            InputError: a line is something else.
        """
        if not self.path.exists():
            return {}
        held = self.path.read_bytes()
        whole = held[: held.rfind(b"\n") + 1]
        found: dict[str, Any] = {}
        try:
            for line in whole.decode().split("\n")[:-1]:
                record = json.loads(line)
                found[str(record[self.key])] = record[self.value]
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{self.path}: line {len(found) + 1} is none of this run's; remove the file, and "
                "what it held is predicted anew"
            ) from None
        if whole != held:
            write_text(self.path, whole.decode())
        return found

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, in one write."""
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(lines)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def answer_questions(
    answerer: SceneAnswerer,
    scenes: Scenes,
    questions: Sequence[AskedQuestion],
    out: Path,
    *,
    seed: int = 0,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    progress: Progress | None = None,
) -> dict[System, list[str]]:
    """The answers of each system, in the order of the questions.

    Where no scene of another room is at hand there is no "shuffled".
    """
    partners = other_scenes([q.scene_id for q in questions], seed)
    systems: tuple[System, ...] = ("model", "blind", *(("shuffled",) if partners else ()))
    done = 0
    answers: dict[System, list[str]] = {}
    for system in systems:
        store = Store(out / FILES[system], "question_id", "answer")
        known = store.read()
        if not all(isinstance(answer, str) for answer in known.values()):
            raise InputError(f"{store.path}: answers that are no texts; remove the file")
        left = [question for question in questions if question.id not in known]
        left.sort(key=lambda question: question.scene_id)  # each scan is encoded once
        done += len(questions) - len(left)
        for start in range(0, len(left), batch_size):
            batch = left[start : start + batch_size]
            looks = None
            if system != "blind":
                names = [q.scene_id for q in batch]
                looks = [scenes.look(partners[n] if system == "shuffled" else n) for n in names]
            said = answerer.ask_batch(
                looks, [q.prompt for q in batch], max_new_tokens=max_new_tokens
            )
            records = [
                {"question_id": q.id, "scene_id": q.scene_id, "answer": answer.text}
                for q, answer in zip(batch, said, strict=True)
            ]
            store.append(records)
            known |= {record["question_id"]: record["answer"] for record in records}
            done += len(batch)
            if progress is not None:
                progress(done, len(questions) * len(systems))
        answers[system] = [known[question.id] for question in questions]
    return answers


def caption_scenes(
    answerer: SceneAnswerer,
    scenes: Scenes,
    names: Sequence[str],
    out: Path,
    *,
    seed: int = 0,
    max_new_tokens: int = 48,
    progress: Progress | None = None,
) -> tuple[System, ...]:
    """Have each system describe the objects of each scene; returns the systems.

    Args:
        answerer: the model.
        scenes: the prepared scans.
        names: the scenes to describe.
        out: where the files of predictions lie or will lie.
        seed: chooses the other scenes of "shuffled".
        max_new_tokens: where a caption is cut off.
        progress: called with the number of scenes done and the number of all.
    """
    partners = other_scenes(names, seed)
    systems: tuple[System, ...] = ("model", "blind", *(("shuffled",) if partners else ()))
    blind: list[str] = []
    for number, system in enumerate(systems):
        store = Store(out / FILES[system], "scene_id", "boxes")
        known = store.read()
        for done, name in enumerate(sorted(set(names))):
            if progress is not None:
                progress(number * len(set(names)) + done, len(systems) * len(set(names)))
            if name in known:
                continue
            look = scenes.look(name)
            if system == "blind":
                blind = blind or [_describe_blind(answerer, max_new_tokens)]
                captions = blind * len(look.boxes)
            elif system == "shuffled":
                other = scenes.look(partners[name])
                told = answerer.caption(other, max_new_tokens=max_new_tokens)
                captions = [told[i % len(told)] if told else "" for i in range(len(look.boxes))]
            else:
                captions = answerer.caption(look, max_new_tokens=max_new_tokens)
            store.append([_described(name, look, scenes.offset(name), captions)])
    return systems


def _describe_blind(answerer: SceneAnswerer, max_new_tokens: int) -> str:
    [answer] = answerer.ask_batch(
        None, [DESCRIBE_OBJECT], task="describe", max_new_tokens=max_new_tokens
    )
    return answer.text


def _described(
    name: str, look: RegionFeatures, offset: np.ndarray, captions: Sequence[str]
) -> dict[str, Any]:
    """A line of predictions: boxes with captions, in the coordinates of the prepared scan."""
    centres = look.boxes.centres.double().numpy() + offset
    return {
        "scene_id": name,
        "boxes": [
            {
                "centre": centres[i].tolist(),
                "size": look.boxes.sizes[i].tolist(),
                "heading": float(look.boxes.headings[i]),
                "score": float(look.boxes.scores[i]),
                "label": look.boxes.labels[i],
                "caption": caption,
            }
            for i, caption in enumerate(captions)
        ],
    }


def other_scenes(names: Sequence[str], seed: int) -> dict[str, str]:
    """To each scene one of another room, evenly spread; empty if all are of one room.

    ScanNet scans a room several times: scene0011_00 and scene0011_01 are the same room.
    """
    rooms = {name: re.sub(r"^(scene\d{4})_\d\d$", r"\1", name) for name in names}
    order = sorted(set(names))
    random.Random(seed).shuffle(order)
    partners = {}
    for i, name in enumerate(order):
        others = [*order[i + 1 :], *order[:i]]
        other = next((n for n in others if rooms[n] != rooms[name]), None)
        if other is None:
            return {}
        partners[name] = other
    return partners


def begin_run(out: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings of a run, or see that a run to be continued had the same.

    Raises:
        InputError: the folder holds a run with other settings.
    """
    path = out / SETTINGS
    if path.exists():
        try:
            earlier = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError):
            earlier = None
        if not isinstance(earlier, dict):
            raise InputError(f"{path}: not the settings of a run; choose another --out")
        keys = [key for key in {**earlier, **settings} if earlier.get(key) != settings.get(key)]
        if keys:
            raise InputError(
                f"{path}: this run was begun with another {', '.join(keys)}; choose another --out, "
                "or remove the folder"
            )
        return
    if out.is_dir() and any((out / name).exists() for name in FILES.values()):
        raise InputError(f"{out}: holds predictions of an unknown run; choose another --out")
    write_json(path, dict(settings))


def model_facts(answerer: SceneAnswerer, source: str) -> dict[str, Any]:
    """Its name, its language model, what is untrained, and a checksum of the weights of ours."""
    digest = hashlib.sha256(__version__.encode())
    config = answerer.model.config
    for key, value in sorted(answerer.model._own_state().items()):
        digest.update(key.encode())
        digest.update(value.float().contiguous().numpy(force=True).tobytes())
    return {
        "model": source,
        "language_model": config.language_model,
        "untrained": answerer.untrained,
        "checksum": digest.hexdigest(),
    }
