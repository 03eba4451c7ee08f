"""Begin the focus of questions: pointers that find what a question speaks of.

Before the language model learns to read them, sides and counts begin as the words for them, and the
pointers are fitted to what instruction records say of questions. Nothing says which region the
question's words are about, but:

    the answer is a side            -> the side that the three pointers come to is that one
    the answer names the object     -> what is spoken of is something that is near or on it, or
                                       that it is near or on ("What is on the bed?" "pillow")
    the answer does not             -> what is spoken of is the object ("What colour is the bed?")
    the answer is a number, or no   -> so many regions are spoken of; yes: one or more

Each is the likelihood of what is said, summed over all regions that it may be said of. Pointers
that saw each room as it is would know those of training far better than others, so regions are
dropped, put in and misnamed, and words left out.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from datasets import Dataset as Records
from o2s.encoded import EncodedScan
from o2s.encoder import evaluating
from o2s.llm.focus import COUNTS, Pointed
from o2s.llm.modeling import SceneLM
from o2s.llm.processing import SceneLMProcessor, arrange
from o2s.llm.relations import relations
from o2s.scene import RegionFeatures
from o2s.train.language_bridge import word_embeddings
from o2s.train.scene_lm_data import LookAugmentation, described_objects, match
from o2s.words import SIDES

SCENES, QUESTIONS = 16, 8  # a step, and of each scene
AUGMENT = LookAugmentation(jitter=0.05, drop=0.1, intruders=0.05, rename=0.15, color=0.03)
UNHEARD = 0.1  # share of the words


@dataclass(frozen=True)
class Pointing:
    """A question, the regions that it may speak of (empty if that is not known), the side of SIDES
    that is its answer, and how many regions it may speak of (empty if that is not known)."""

    text: str
    regions: tuple[int, ...]
    side: int | None = None
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Looked:
    """A scene as the language model reads it, and questions about it."""

    look: RegionFeatures
    questions: tuple[Pointing, ...]


@dataclass(frozen=True)
class FocusReport:
    """On held-out questions: the share whose region is pointed at, whose side is right, and of
    those that ask how many whose number is."""

    pointed: float | None
    sided: float | None
    counted: float | None


def pointings(
    records: Records,
    scans: Mapping[str, EncodedScan],
    least_score: float,
) -> list[Looked]:
    """What the questions of records say of where they point.

    Args:
        records: of `o2s instruct`; questions are those of VQA3D, objects all that are described.
        scans: the scene of each.
        least_score: regions below it are not read.
    """
    questions: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)
    columns = ("task_type", "scene_id", "conversations", "object_ids")
    for kind, scene, turns, ids in zip(*(records[c] for c in columns), strict=True):
        if kind == "VQA3D":
            questions[scene].append((turns[0]["value"], turns[1]["value"], ids))
    objects = described_objects(records)
    found: list[Looked] = []
    for scene, asked in sorted(questions.items()):
        (look,), _ = arrange([scans[scene].look], None, sort=True, least_score=least_score)
        scan = replace(scans[scene], look=look)
        near, on = relations(look.boxes)
        pointed: list[Pointing] = []
        for text, answer, ids in asked:
            side = SIDES.index(answer) if answer in SIDES else None
            counts = _counts(answer)
            about = [objects[scene][i] for i in ids if i in objects[scene]]
            places = {p for p in (match(scan, o.box) for o in about) if p is not None}
            if len(ids) > 1 and not counts:
                places = set()  # of which of them it speaks is not known
            elif places and not counts and about[0].name in answer:
                # What it is near or on, and what is near or on it.
                (place,) = places
                places = {p for p in (near[place], on[place]) if p is not None}
                both = enumerate(zip(near, on, strict=True))
                places |= {p for p, others in both if place in others}
            if places or side is not None or counts:
                pointed.append(Pointing(text, tuple(sorted(places)), side, counts))
        if pointed and len(look.boxes):
            found.append(Looked(look, tuple(pointed)))
    return found


def _counts(answer: str) -> tuple[int, ...]:
    """How many things a question with this answer may speak of."""
    if answer == "yes":
        return tuple(range(1, len(COUNTS)))
    return (COUNTS.index(answer),) if answer in COUNTS else ()


def begin_words(model: SceneLM, processor: SceneLMProcessor) -> None:
    """Let sides and counts begin as the words for them."""
    assert model.focus is not None
    embedding = cast(Any, model).get_input_embeddings()
    for words, soft in ((SIDES, model.focus.sides), (COUNTS, model.focus.counts)):
        soft.data.copy_(word_embeddings(words, processor.tokenizer, embedding).detach())


def fit_focus(
    model: SceneLM,
    processor: SceneLMProcessor,
    train: Sequence[Looked],
    held_out: Sequence[Looked],
    steps: int,
    seed: int = 0,
) -> FocusReport:
    """Fit the pointers of a model's focus; nothing else of it.

    Args:
        train: what they are fitted to.
        held_out: what they are measured on.
    """
    assert model.focus is not None
    random_, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    parameters = list(model.focus.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    model.train()
    for _ in range(steps if train else 0):
        chosen = [random_.choice(train) for _ in range(SCENES)]
        changed = [changed_look(c, random_.choice(train), generator) for c in chosen]
        asked = [random_.sample(c.questions, min(QUESTIONS, len(c.questions))) for c in changed]
        looks = [c.look for c in changed]
        pointed = _point(model, processor, looks, asked, generator)
        found = (pointed.regions[:, :, 0], pointed.sides, pointed.counts)
        likely = torch.cat(
            [
                (probability * said).sum(dim=2)[said.any(dim=2)]
                for probability, said in zip(found, _said(asked, pointed), strict=True)
            ]
        )
        if not len(likely):
            continue
        optimizer.zero_grad()
        (-likely.clamp_min(1e-6).log().mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    for parameter in model.parameters():
        parameter.grad = None
    model.eval()
    return measure_focus(model, processor, held_out)


def changed_look(looked: Looked, other: Looked, generator: torch.Generator) -> Looked:
    """A scene as a worse detector might see it, and what its questions speak of there."""
    look, places = AUGMENT(looked.look, other.look, None, generator)
    questions: list[Pointing] = []
    for question in looked.questions:
        regions = tuple(places[r] for r in question.regions if places[r] >= 0)
        gone = len(question.regions) - len(regions)
        counts = tuple(count - gone for count in question.counts if count >= gone)
        questions.append(replace(question, regions=regions, counts=counts))
    return Looked(look, tuple(questions))


@torch.no_grad()
def measure_focus(
    model: SceneLM, processor: SceneLMProcessor, held_out: Sequence[Looked]
) -> FocusReport:
    """How often the pointers of a model find what questions speak of."""
    right: list[bool] = []
    sided: list[bool] = []
    counted: list[bool] = []
    with evaluating(model):
        for looked in held_out:
            pointed = _point(model, processor, [looked.look], [looked.questions])
            best = pointed.regions[0, :, 0].argmax(dim=1).tolist()
            sides = pointed.sides[0].argmax(dim=1).tolist()
            counts = pointed.counts[0].argmax(dim=1).tolist()
            found = zip(looked.questions, best, sides, counts, strict=True)
            for question, region, side, count in found:
                if question.regions:
                    right.append(region in question.regions)
                if question.side is not None:
                    sided.append(side == question.side)
                if len(question.counts) == 1:
                    counted.append(count in question.counts)
    return FocusReport(*(sum(x) / len(x) if x else None for x in (right, sided, counted)))


def _point(
    model: SceneLM,
    processor: SceneLMProcessor,
    looks: Sequence[RegionFeatures],
    asked: Sequence[Sequence[Pointing]],
    unheard: torch.Generator | None = None,
) -> Pointed:
    texts = [[question.text for question in of_scene] for of_scene in asked]
    inputs = processor.pointing(texts, looks)
    if unheard is not None:
        words = inputs["focus_ids"]
        words[torch.rand(words.shape, generator=unheard) < UNHEARD] = -1
    return model.point({name: held.to(model.device) for name, held in inputs.items()})


def _said(
    asked: Sequence[Sequence[Pointing]], pointed: Pointed
) -> tuple[Bool[Tensor, "B Q R1"], Bool[Tensor, "B Q 4"], Bool[Tensor, "B Q 13"]]:
    """Which regions each question may speak of, which side is its answer, and which counts are."""
    regions, sides, counts = (
        torch.zeros_like(like, dtype=torch.bool)
        for like in (pointed.regions[:, :, 0], pointed.sides, pointed.counts)
    )
    for i, of_scene in enumerate(asked):
        for q, question in enumerate(of_scene):
            regions[i, q, list(question.regions)] = True
            counts[i, q, list(question.counts)] = True
            if question.side is not None:
                sides[i, q, question.side] = True
    return regions, sides, counts
