"""Classification of referred objects: what does the model call the object that is pointed out?

An object is seen as the region of the detector that overlaps its true box most, from an IoU of 0.25
on. One that was not found counts as named wrongly in the rows over all objects, so that the errors
of detector and language separate: `found` says how many there were. A name is right if it is the
annotated one, letter case and underscores apart.

The detector's own label is the bar to clear: a model that only repeats it has learned nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64

from o2s.errors import InputError
from o2s.evaluate.bootstrap import Sampled, draw_counts, sampled_mean
from o2s.evaluate.captions import DescribedObject
from o2s.evaluate.report import Report, Row, Table
from o2s.evaluate.running import Progress, Scenes, Store
from o2s.evaluate.scene_boxes import TrueBoxes
from o2s.llm.answering import SceneAnswerer
from o2s.llm.prompts import NAME_OBJECT
from o2s.ops.boxes import same_box

SAME_OBJECT = 0.25
FILE = "names.jsonl"

Namer = Literal["model", "blind", "detector"]
TITLES: Mapping[Namer, str] = {
    "model": "model",
    "blind": "blind (no scene tokens)",
    "detector": "the detector's label",
}
Named = dict[Namer, list[str | None]]


def name_objects(
    answerer: SceneAnswerer,
    scenes: Scenes,
    described: Sequence[DescribedObject],
    truth: Mapping[str, TrueBoxes],
    out: Path,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 12,
    progress: Progress | None = None,
) -> Named:
    """What each of the objects is called, in their order; None where it was not found.

    Names are stored in `FILE` as they come, and a run that was killed goes on where it stopped.

    Raises:
        InputError: the file holds something else.
    """
    store = Store(out / FILE, "object", "names")
    known = store.read()
    wanted = {(o.scene_id, o.object_id): o for o in described}
    left: dict[str, list[DescribedObject]] = {}
    for o in wanted.values():
        if _key(o) not in known:
            left.setdefault(o.scene_id, []).append(o)
    blind = ""
    if left:
        [answer] = answerer.ask_batch(
            None, [NAME_OBJECT], task="classify", max_new_tokens=max_new_tokens
        )
        blind = answer.text
    done = len(wanted) - sum(map(len, left.values()))
    for scene, objects in sorted(left.items()):
        look = scenes.look(scene)
        regions = [_region(o, truth[scene], scenes) for o in objects]
        for start in range(0, len(objects), batch_size):
            batch = slice(start, start + batch_size)
            found = [region for region in regions[batch] if region is not None]
            said = answerer.ask_batch(
                [look] * len(found),
                [NAME_OBJECT] * len(found),
                task="classify",
                marked=found,
                max_new_tokens=max_new_tokens,
            )
            texts = iter(said)
            records = []
            for o, region in zip(objects[batch], regions[batch], strict=True):
                names: dict[Namer, str | None] = dict.fromkeys(TITLES)
                if region is not None:
                    label = look.boxes.labels[region]
                    names = {"model": next(texts).text, "blind": blind, "detector": label}
                records.append({"object": _key(o), "names": names})
            store.append(records)
            known |= {record["object"]: record["names"] for record in records}
            done += len(records)
            if progress is not None:
                progress(done, len(wanted))
    try:
        return {n: [known[_key(o)][n] for o in described] for n in TITLES}
    except (KeyError, TypeError):
        raise InputError(f"{store.path}: names of another form; remove the file") from None


def report_names(
    described: Sequence[DescribedObject],
    named: Mapping[Namer, Sequence[str | None]],
    *,
    seed: int = 0,
    draws: int = 1000,
    made_from: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Score the names of N objects.

    Args:
        described: the objects; `name` is right.
        named: of each namer N names, None where the object was not found.
        seed: of the bootstrap, which draws scenes.
        draws: of the bootstrap; 0 for no intervals.
        made_from: facts for the report.
        notes: further notes.
    """
    right: dict[Namer, Any] = {
        namer: np.array([said is not None and same_name(said, o.name) for said, o in pairs], float)
        for namer, names in named.items()
        for pairs in [list(zip(names, described, strict=True))]
    }
    found = np.array([name is not None for name in named["model"]])
    counts = draw_counts([o.scene_id for o in described], seed=seed, draws=draws) if draws else None

    def scored(rows: Float64[np.ndarray, "N"], only: np.ndarray | None = None) -> Sampled:
        if only is None:
            return sampled_mean(rows, counts)
        return sampled_mean(rows[only], None if counts is None else counts[:, only])

    tables: list[Table] = []
    size = {"objects": len(described), "found": int(found.sum())}
    rows = []
    for namer, hits in right.items():
        of_all, of_found = scored(hits), scored(hits, found)
        scores = {"of all": of_all.estimate(), "of those found": of_found.estimate()}
        rows.append(Row(TITLES[namer], size, scores))
    for namer in ("blind", "detector"):
        gain = scored(right["model"]).minus(scored(right[namer]))
        gain_found = scored(right["model"], found).minus(scored(right[namer], found))
        scores = {"of all": gain.estimate(), "of those found": gain_found.estimate()}
        rows.append(Row(f"gain over {TITLES[namer].split(' (')[0]}", size, scores))
    tables.append(Table("named rightly", rows))
    names = np.array([_plain(o.name) for o in described])
    by_class = []
    for name, count in sorted(Counter(names.tolist()).items(), key=lambda item: (-item[1], item)):
        of_class = names == name
        shares = {TITLES[namer]: scored(hits, of_class).estimate() for namer, hits in right.items()}
        held = {"objects": count, "found": int((found & of_class).sum())}
        by_class.append(Row(name, held, shares))
    tables.append(Table("by class, of all", by_class))
    texts = [*notes, f"Found is a region with an IoU of {SAME_OBJECT} or more."]
    if draws:
        texts.append(f"Intervals: {draws} bootstrap draws of scenes.")
    return Report("classification of referred objects", tables, made_from or {}, texts)


def same_name(said: str, name: str) -> bool:
    """Whether a model says a name: letter case, underscores and a full stop apart."""
    return _plain(said) == _plain(name)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().strip(" .").split())


def _key(o: DescribedObject) -> str:
    return f"{o.scene_id}/{o.object_id}"


def _region(o: DescribedObject, truth: TrueBoxes, scenes: Scenes) -> int | None:
    """The region that is an object, if one is."""
    wanted = torch.from_numpy(truth.boxes[truth.ids.index(o.object_id)]).clone()
    wanted[:3] -= torch.from_numpy(scenes.offset(o.scene_id))
    return same_box(wanted.float(), scenes.look(o.scene_id).boxes.tensor, SAME_OBJECT)
