"""Scores of answers, captions and boxes: ours against the public evaluators, and how fast.

    python benchmarks/scores.py --scanqa CLONE --ll3da CLONE --leo CLONE --chat-scene CLONE \\
        --llava-3d CLONE --video-3d-llm CLONE --scan2cap CLONE --mmdet3d CLONE

Made-up predictions with odd cases are scored by each project whose clone is named, with its own
code out of its untouched files, and by o2s; one thread each, in turns. Times are mean seconds
with the start of Java, `ratio` is theirs over ours. Exits with 1 if a score differs by more than
1e-6 where ours repeats the project's faults. The second table has ours as it is by default.

`part` is what of a project ran. "texts" is what it does with the captions that our matching chose,
"IoU + texts" also its comparison with the thresholds; "scores" is the same as "texts", but the
predicted texts are prepared here, as the project prepares them in the midst of its loop.

SPICE is left out, it needs a download. No text has a line end, which only some projects survive.
"""

import argparse
import contextlib
import io
import math
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded, here and in what is started

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from score_peers import (
    JAVA,
    NAMES,
    THRESHOLDS,
    Case,
    Scores,
    chat_scene_answers,
    chat_scene_captions,
    leo,
    ll3da_answers,
    ll3da_captions,
    llava_3d,
    mmdet3d,
    official,
    scan2cap,
    video_answers,
    video_captions,
)

from o2s.evaluate import answers, captions
from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.detection import score_detection
from o2s.evaluate.ngrams import Meteor
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes

ROUNDS, SCENES, LIMIT = 2, 40, 1e-6
SPEECH = """the a an chair table desk brown black white left right of behind next to under window
door two three 3 10 lamp tv corner kitchen cabinet it is on top yes no round"""
ODD = """|.|椅子|café table|façade|BLACK Chair|tv|chai|letf side|3|0|10 chairs|an office chair|Yes.
|the the table|3 o' clock|brown .|two-seat couch|desk, chair|3.5|\tdesk|black  chair...|it's|chair2
|This is a DESK, brown. It is left.|a desk .  It is on top.|1,000 books.| |?|Brown Chair|2| desk."""
FAULTY = ((("twenty-three", "three"), "three"), (("?", "desk"), "lamp"), (("desk",), ""))


def main() -> int:
    parser = argparse.ArgumentParser(description="Scores compared with those of public evaluators")
    for name in dict.fromkeys(option for option, *_ in PEERS):
        parser.add_argument(f"--{name}", type=Path, help=f"a clone of {name}'s repository")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=400)
    options = vars(parser.parse_args())
    clones = {name: path.resolve() for name, path in options.items() if isinstance(path, Path)}
    case = make_case(np.random.default_rng(options["seed"]), options["questions"])
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True  # clones stay untouched
    warnings.simplefilter("ignore", SyntaxWarning)  # the projects' regular expressions
    console = Console(width=120)
    if not JAVA:
        console.print("no java: neither METEOR nor scores over Penn Treebank tokens are compared")
    columns = ("largest |difference|", "their seconds", "our seconds", "ratio")
    results = Table("scores", "variant", "part", "compared", *columns)
    defaults = Table("answers by default", columns[0], "scores that differ", "faults that explain")
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        for option, kind, variant, part, theirs, ours in PEERS:
            clone = clones.get(option.replace("-", "_"))
            if clone is None:
                console.print(f"{kind}, {variant}: skipped, no --{option}")
                continue
            found, repeated, default, times = measure(
                partial(theirs, clone, case), partial(ours, variant, case)
            )
            differences = differ(found, repeated)
            largest = max(differences.values(), default=0.0)
            worst = max(worst, largest)
            seconds = [*(f"{t:.2f}" for t in times), f"{times[0] / times[1]:.1f}" if JAVA else ""]
            results.add_row(kind, variant, part, f"{len(differences)}", f"{largest:.1e}", *seconds)
            if kind == "answers":
                left = {name: d for name, d in differ(found, default).items() if d > LIMIT}
                faults = ", ".join(answers.VARIANTS[variant].faults) if left else ""
                defaults.add_row(
                    variant, f"{max(left.values(), default=0):.4f}", ", ".join(left), faults
                )
    console.print(results, defaults)
    for name, text in answers.FAULTS.items():
        console.print(f"{name}: {text}")
    return int(worst > LIMIT)


def measure(theirs: Callable[[], Scores], ours: Callable[..., Scores]) -> tuple[Any, ...]:
    """Their scores, ours with and without the faults, and the seconds of the first two."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with quiet():
            found = theirs()
        between = time.perf_counter()
        with Meteor() as meteor:
            repeated = ours(meteor, as_published=True)
            times.append((between - begun, time.perf_counter() - between))
            default = ours(meteor, as_published=False)
    return found, repeated, default, tuple(map(statistics.fmean, zip(*times, strict=True)))


def differ(theirs: Scores, ours: Scores) -> dict[str, float]:
    """The differences of the scores that the project has, without those that lack Java."""
    pairs = {name: (value, ours[name]) for name, value in theirs.items()}
    known = {n: (a, b) for n, (a, b) in pairs.items() if a is not None and b is not None}
    return {n: math.inf if math.isnan(a) else abs(a - b) for n, (a, b) in known.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the projects print, and the Java programs that they start."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(io.StringIO()):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def make_case(rng: np.random.Generator, count: int) -> Case:
    pairs = [*FAULTY, *(make_answer(rng) for _ in range(count - len(FAULTY)))]
    asked = [AskedQuestion(f"q-{i}", "", "", "", "Other", pair[0]) for i, pair in enumerate(pairs)]
    ranks = rng.permutation(SCENES * 100)  # no score of a box comes twice
    truth, found, described = {}, {}, []
    for i in range(SCENES):
        name = f"scene{i:04d}_00"
        truth[name], found[name] = make_scene(rng, name, ranks[i * 100 :])
        described += [make_described(rng, truth[name], k) for k in (0, 1, 2, 4, 5, -1)]
    return Case(asked, [answer for _, answer in pairs], truth, found, described)


def make_answer(rng: np.random.Generator) -> tuple[tuple[str, ...], str]:
    """References, some odd or repeated, and an answer that is often near to one of them."""
    references = [phrase(rng, 5) for _ in range(rng.integers(1, 4))]
    references += references[:1] if rng.random() < 0.2 else []
    if rng.random() < 0.15:
        references[-1] = odd(rng).strip() or "?"
    near = str(rng.choice(references))
    part = " ".join(near.split()[: rng.integers(1, 4)])
    changed = (near, near, part, near.upper(), f"{near}.", f"the {near}", f"{near} {part}")
    strange = (odd(rng), odd(rng), phrase(rng, 40), phrase(rng, 5))
    return tuple(references), str(rng.choice(changed if rng.random() < 0.7 else strange))


def phrase(rng: np.random.Generator, longest: int) -> str:
    return " ".join(rng.choice(SPEECH.split(), rng.integers(1, longest + 1)))


def odd(rng: np.random.Generator) -> str:
    return str(rng.choice(ODD.replace("\n", "").split("|")))


def make_scene(
    rng: np.random.Generator, name: str, ranks: np.ndarray
) -> tuple[TrueBoxes, PredictedBoxes]:
    """Objects and boxes on a fine grid, whose points are the same in float32.

    Objects 0 and 1 have boxes with an IoU of exactly 0.5 and 0.25, object 2 the same box twice, the
    last one none, the others as many as come. Some scenes have more than 50 boxes.
    """
    true = np.zeros((rng.integers(8, 14), 7))
    true[:, :6] = rng.uniform([-4] * 3 + [0.4] * 3, [4] * 3 + [1.6] * 3, (len(true), 6))
    more = rng.integers(2, len(true) - 1, rng.choice([12, 20, 75]))
    target = np.concatenate([[0, 1, 2, 2], more])
    boxes = true[target]
    noise = rng.choice([0.02, 0.05, 0.15], (len(boxes), 1))
    boxes[:, :6] += rng.normal(0, noise, (len(boxes), 6))
    true, boxes = np.round(true * 64) / 64, np.round(boxes * 64) / 64
    boxes[:, 3:6] = boxes[:, 3:6].clip(1 / 64)
    boxes[:2], boxes[3] = true[:2], boxes[2]
    boxes[:2, 5] *= [0.5, 0.25]
    names = rng.choice(NAMES, len(true))
    labels = np.where(rng.random(len(target)) < 0.85, names[target], rng.choice(NAMES))
    scores = (ranks[: len(target)] / (SCENES * 100)).astype(np.float32).astype(np.float64)
    said = tuple(make_caption(rng) for _ in target)
    order = rng.permutation(len(target))
    found = PredictedBoxes(name, boxes[order], scores, tuple(map(str, labels[order])), said)
    return TrueBoxes(name, tuple(map(str, range(len(true)))), true, tuple(map(str, names))), found


def make_caption(rng: np.random.Generator) -> str:
    said = f"this is a {phrase(rng, 8)}. it is {phrase(rng, 8)}, and {phrase(rng, 4)}"
    return str(rng.choice([said, f"{said}.", said.upper(), odd(rng)]))


def make_described(rng: np.random.Generator, true: TrueBoxes, i: int) -> captions.DescribedObject:
    """Some descriptions come twice, some have more than the 30 tokens that most projects read."""
    texts = [f"This is a {phrase(rng, 40)}, {phrase(rng, 9)}." for _ in range(rng.integers(1, 4))]
    texts += texts[:1] if rng.random() < 0.2 else []
    tokens = tuple(tuple(re.findall(r"[\w-]+|[^\w\s]", text.lower())) for text in texts)
    name = (true.labels[i],) * len(texts)
    return captions.DescribedObject(true.scene_id, true.ids[i], name[0], tuple(texts), tokens, name)


def our_answers(variant: str, case: Case, meteor: Meteor, *, as_published: bool) -> Scores:
    style, options = answers.VARIANTS[variant], {"meteor": meteor, "as_published": as_published}
    found = answers.score_answers(case.questions, case.answers, style, **options).all
    return {name: score.value for name, score in found.items()}


def our_captions(variant: str, case: Case, meteor: Meteor, *, as_published: bool) -> Scores:
    held = (case.described, case.truth, case.predictions, variant)
    options = {"meteor": meteor, "as_published": as_published}
    found = {k: captions.score_captions(*held, k, **options).all for k in THRESHOLDS}
    return {f"{n}@{k:g}": score.value for k, scores in found.items() for n, score in scores.items()}


def our_boxes(variant: str, case: Case, _: Meteor, *, as_published: bool) -> Scores:
    """By the names that mmdet3d gives them; ours never repeats its fault, means that are NaN."""
    held = (case.predictions, case.truth)
    report = score_detection(*held, classes=NAMES, variant="mmdet3d", draws=0)
    found: dict[str, float | None] = {}
    for k, table in zip(THRESHOLDS, report.tables, strict=False):
        for row in table.rows:
            ap, ar = (f"{row.name}_AP", f"{row.name}_rec") if row.name in NAMES else ("mAP", "mAR")
            found[f"{ap}_{k:.2f}"] = row.scores["AP"].value
            found[f"{ar}_{k:.2f}"] = row.scores["AR"].value
    return found


# An option, what is scored, the variant, the part that runs, theirs and ours.
PEERS: list[tuple[str, str, str, str, Callable[..., Scores], Callable[..., Scores]]] = [
    ("scanqa", "answers", "official", "all", official, our_answers),
    ("ll3da", "answers", "ll3da", "scores", ll3da_answers, our_answers),
    ("leo", "answers", "leo", "all", leo, our_answers),
    ("chat-scene", "answers", "chat-scene", "all", chat_scene_answers, our_answers),
    ("llava-3d", "answers", "llava-3d", "all", llava_3d, our_answers),
    ("video-3d-llm", "answers", "video-3d-llm", "all", video_answers, our_answers),
    ("scan2cap", "captions", "scan2cap", "scores", scan2cap, our_captions),
    ("ll3da", "captions", "ll3da", "scores", ll3da_captions, our_captions),
    ("chat-scene", "captions", "chat-scene", "IoU + texts", chat_scene_captions, our_captions),
    ("video-3d-llm", "captions", "video-3d-llm", "texts", video_captions, our_captions),
    ("mmdet3d", "boxes", "mmdet3d", "all", mmdet3d, our_boxes),
]

if __name__ == "__main__":
    sys.exit(main())
