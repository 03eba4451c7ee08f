"""Scores of answers, captions and boxes: ours against the public evaluators, and how fast.

    python benchmarks/scores.py --scanqa CLONE --ll3da CLONE --leo CLONE --chat-scene CLONE \\
        --llava-3d CLONE --video-3d-llm CLONE --scan2cap CLONE --mmdet3d CLONE

Made-up predictions with odd cases are scored by each project whose clone is named, with its own
code out of its untouched files, and by o2s; one thread each, in turns. `part` says what of a
project ran: "matching + texts" is its whole evaluation with a stand-in for the model, "thresholds +
texts" its comparison with k and all after it; "texts" is what it does with the captions that our
matching chose. Times are medians of seconds and include the start of Java, `ratio` is theirs over
ours. Exits with 1 if a score differs by more than 1e-6 although ours repeats the project's faults.
The second table has ours as it is by default.

SPICE is left out: it needs a download. Texts have no line ends, which only some projects survive.
"""

import argparse
import ast
import contextlib
import importlib
import io
import itertools
import json
import math
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded, here and in what is started

import numpy as np
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as coco_meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from rich.console import Console
from rich.table import Table

from o2s.evaluate import answers, captions
from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.caption_matching import match
from o2s.evaluate.detection import score_detection
from o2s.evaluate.ngrams import METRICS, Meteor
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes

Scores = Mapping[str, float | None]

ROUNDS, SCENES, THRESHOLDS, LIMIT = 3, 40, (0.25, 0.5), 1e-6
JAVA = shutil.which("java") is not None
WORDS = (
    "the a an chair table desk brown black white left right of behind next to under window door "
    "two three 3 10 lamp tv corner kitchen cabinet it is on top yes no round"
).split()
NAMES = ("chair", "table", "desk", "cabinet", "lamp", "office_chair")
ODD = (
    [
        "",
        " ",
        ".",
        "椅子",
        "café table",
        "the desk’s left",
        "BLACK Chair",
        "tv",
        "chai",
        "letf side",
    ]
    + ["3", "0", "10 chairs", "an office chair", "the the table", "3 o' clock", "brown .", "Yes."]
    + ["two-seat couch", "desk, chair", "3.5", "\tdesk", "black  chair...", "it's black", "chair2"]
    + [
        "This is a DESK, brown. It is left.",
        "a desk .  It is on top.",
        "3.5 feet tall, 1,000 books.",
    ]
)
ODD_REFERENCES = ("Brown Chair", "?", "2", "a lamp", "desk.", "café", "the desk’s left", " tv ")
FAULTY = ((("twenty-three", "three"), "three"), (("?", "desk"), "lamp"), (("desk",), ""))
# What a project calls a score, where it is not our name.
SYNONYMS = (
    {f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}
    | dict.fromkeys(("ROUGE_L", "Rouge", "rouge"), "ROUGE-L")
    | dict.fromkeys(("CiDEr", "CIDER", "cider", "Cider"), "CIDEr")
    | {
        "bleu": "BLEU-4",
        "meteor": "METEOR",
        "Meteor": "METEOR",
        "em": "EM@1",
        "em_refined": "EM-refined",
    }
    | {"EM": "EM@1", "EM1": "EM@1", "EM1_refined": "EM-refined", "Top1 (EM)": "EM@1"}
)


COCO = ("Bleu", "Meteor", "Rouge", "Cider")
KNOWN = {*METRICS, "EM@1", "EM-refined"}
TIMES = ("their seconds", "our seconds", "ratio")
START = Path.cwd()


@dataclass(frozen=True)
class Case:
    """Made-up predictions and what they are scored against."""

    questions: list[AskedQuestion]
    answers: list[str]
    truth: dict[str, TrueBoxes]
    predictions: dict[str, PredictedBoxes]
    described: list[captions.DescribedObject]


def main() -> int:
    parser = argparse.ArgumentParser(description="Scores compared with those of public evaluators")
    for name in sorted({option for option, *_ in PEERS}):
        parser.add_argument(f"--{name}", type=Path, help=f"a clone of {name}'s repository")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=400)
    options = parser.parse_args()
    case = make_case(np.random.default_rng(options.seed), options.questions)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", SyntaxWarning)  # the peers' regular expressions
    console = Console(width=120)
    if not JAVA:
        console.print("no java: neither METEOR nor what is counted over Penn Treebank tokens")
    results = Table("scores", "variant", "part", "compared", "largest |difference|", *TIMES)
    defaults = Table("scores", "variant", "largest |difference|", "in", "faults that explain it")
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        for option, kind, variant, part, theirs, ours in PEERS:
            clone = getattr(options, option.replace("-", "_"))
            if clone is None:
                console.print(f"{kind}, {variant}: skipped, no --{option}")
                continue
            found, repeated, default, *seconds = measure(
                partial(theirs, START / clone, case), partial(ours, variant, case)
            )
            differences = differ(found, repeated)
            largest = max(differences.values())
            worst = max(worst, largest)
            times = [f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", f"{seconds[0] / seconds[1]:.1f}"]
            results.add_row(kind, variant, part, f"{len(differences)}", f"{largest:.1e}", *times)
            if kind == "answers":
                left = {name: d for name, d in differ(found, default).items() if d > LIMIT}
                faults = ", ".join(answers.VARIANTS[variant].faults) if left else ""
                row = (f"{max(left.values(), default=0):.1e}", ", ".join(left) or "", faults)
                defaults.add_row(kind, variant, *row)
    console.print(results)
    console.print(defaults)
    for name, text in answers.FAULTS.items():
        console.print(f"{name}: {text}")
    return int(not worst <= LIMIT)


def measure(theirs: Callable[[], Scores], ours: Callable[..., Any]) -> tuple[Any, ...]:
    """Their scores, ours with and without the faults, and the seconds of the first two."""
    times: list[tuple[float, float]] = []
    found, repeated, default = {}, {}, {}
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with quiet():
            found = theirs()
        between = time.perf_counter()
        with Meteor() as meteor:
            repeated = ours(meteor, as_published=True)
            ended = time.perf_counter()
            default = ours(meteor, as_published=False) if not default else default
        times.append((between - begun, ended - between))
    return found, repeated, default, *map(statistics.median, zip(*times, strict=True))


def differ(theirs: Scores, ours: Scores) -> dict[str, float]:
    """The differences of all scores that the project has, but for those that need Java."""
    return {
        name: abs(value - other)
        for name, value in theirs.items()
        if value is not None and (other := ours[name]) is not None
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the projects print, and without what the Java that they start prints."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(io.StringIO()):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def make_case(rng: np.random.Generator, questions: int) -> Case:
    asked, said = [], []
    for i in range(questions):
        references, answer = FAULTY[i] if i < len(FAULTY) else make_answer(rng)
        text = "What is it?"
        asked.append(AskedQuestion(f"q-{i}", "scene0000_00", text, text, "Object", references))
        said.append(answer)
    truth, predictions, described = {}, {}, []
    ranks = rng.permutation(SCENES * 100)  # no score comes twice
    for i in range(SCENES):
        true, found = make_scene(rng, f"scene{i:04d}_00", ranks[i * 100 :])
        truth[true.scene_id], predictions[true.scene_id] = true, found
        annotated = [k for k in range(len(true)) if k < 2 or rng.random() < 0.8]
        described += [make_described(rng, true, k) for k in annotated]
    return Case(asked, said, truth, predictions, described)


def make_answer(rng: np.random.Generator) -> tuple[tuple[str, ...], str]:
    """References, some odd or repeated, and an answer that is often near to one of them."""
    references = [phrase(rng, 5) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.2:
        references.append(references[0])
    if rng.random() < 0.15:
        references[-1] = str(rng.choice(ODD_REFERENCES))
    near = str(rng.choice(references))
    part = " ".join(near.split()[: rng.integers(1, 4)])
    changed = (near, near, part, near.upper(), f"{near}.", f"the {near}", f"{near} {part}")
    odd = (str(rng.choice(ODD)), phrase(rng, 40), phrase(rng, 5))
    return tuple(references), str(rng.choice(changed if rng.random() < 0.7 else odd))


def phrase(rng: np.random.Generator, longest: int) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, longest + 1)))


def make_scene(
    rng: np.random.Generator, name: str, ranks: np.ndarray
) -> tuple[TrueBoxes, PredictedBoxes]:
    """Objects and boxes on a fine grid, which float32 holds exactly too.

    Objects 0 and 1 have boxes with an IoU of exactly 0.5 and 0.25, object 2 the same box twice, the
    last one is missed; the others have as many as come. Some scenes have more than 50 boxes.
    """
    count = 12
    true = np.zeros((count, 7))
    true[:, :3], true[:, 3:6] = rng.uniform(-4, 4, (count, 3)), rng.uniform(0.4, 1.6, (count, 3))
    true[:, :6] = np.round(true[:, :6] * 64) / 64
    target = np.concatenate([[0, 1, 2, 2], rng.integers(2, count - 1, rng.choice([12, 20, 75]))])
    noise = rng.normal(0, 1, (len(target), 6)) * rng.choice([0.02, 0.05, 0.15], (len(target), 1))
    boxes = true[target]
    boxes[:, :6] = np.round((boxes[:, :6] + noise) * 64) / 64
    boxes[:, 3:6] = boxes[:, 3:6].clip(1 / 64)
    boxes[:2], boxes[3] = true[:2], boxes[2]
    boxes[:2, 5] *= [0.5, 0.25]
    order = rng.permutation(len(target))
    labels = rng.choice(NAMES, count)
    found = np.where(rng.random(len(target)) < 0.85, labels[target], rng.choice(NAMES))[order]
    scores = (ranks[: len(target)] / len(ranks)).astype(np.float32).astype(np.float64)
    texts = tuple(make_caption(rng) for _ in target)
    held = PredictedBoxes(name, boxes[order], scores, tuple(map(str, found)), texts)
    return TrueBoxes(name, tuple(map(str, range(count))), true, tuple(map(str, labels))), held


def make_caption(rng: np.random.Generator) -> str:
    said = f"this is a {phrase(rng, 8)}. it is {phrase(rng, 8)}, and {phrase(rng, 4)}"
    return str(rng.choice([said, said, f"{said}.", said.upper(), str(rng.choice(ODD))]))


def make_described(
    rng: np.random.Generator, true: TrueBoxes, number: int
) -> captions.DescribedObject:
    """Of one to four descriptions, some longer than the 30 tokens that most projects read."""
    texts = [f"This is a {phrase(rng, 40)}, {phrase(rng, 9)}." for _ in range(rng.integers(1, 4))]
    texts += texts[:1] if rng.random() < 0.2 else []
    tokens = tuple(tuple(re.findall(r"[\w-]+|[^\w\s]", text.lower())) for text in texts)
    name = true.labels[number]
    names = (name,) * len(texts)
    identity = true.ids[number]
    return captions.DescribedObject(true.scene_id, identity, name, tuple(texts), tokens, names)


def take(file: Path, names: Sequence[str], **given: Any) -> dict[str, Any]:
    """Definitions out of a file, run with what is given in place of the file's imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    body = [node for node in tree.body if getattr(node, "name", None) in names]
    exec(compile(ast.Module(body, []), str(file), "exec"), given)
    return given


def stand_in(name: str, folder: Path | None = None, **names: Any) -> ModuleType:
    """A module of that name; with a folder, a package that finds its modules there."""
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update(names, __path__=[] if folder is None else [str(folder)])
    return module


def own_scorers(name: str, folder: Path) -> dict[str, Any]:
    """A project's own copies of the COCO scorers, under the module name by which it imports them.

    Clones lack METEOR's program: their wrapper of it is told that it lies in pycocoevalcap.
    """
    parts = name.split(".")
    for i in range(1, len(parts)):
        stand_in(".".join(parts[:i]))
    stand_in(name, folder)
    stand_in(f"{name}.meteor")
    meteor = stand_in(f"{name}.meteor.meteor", __file__=coco_meteor.__file__, Meteor=NoMeteor)
    if JAVA:
        exec((folder / "meteor/meteor.py").read_text(encoding="utf-8"), meteor.__dict__)
    modules = [importlib.import_module(f"{name}.{n}.{n}") for n in ("bleu", "cider", "rouge")]
    return {k: vars(m)[k] for m in (*modules, meteor) for k in COCO if k in vars(m)}


class NoMeteor:
    def compute_score(self, references: dict[Any, Any], _: object) -> tuple[float, list[float]]:
        return math.nan, [math.nan] * len(references)


class NoTokenizer:
    def tokenize(self, texts: dict[Any, Any]) -> dict[Any, list[str]]:
        return {key: [held["caption"] for held in values] for key, values in texts.items()}


def compute(scorers: list[tuple[Any, Any]], references: dict, texts: dict) -> dict[str, Any]:
    """The scores as the projects' own loops collect them."""
    found = {}
    for scorer, names in scorers:
        score = scorer.compute_score(references, texts)[0]
        found |= dict(zip(names, score, strict=True)) if isinstance(score, list) else {names: score}
    return found


def listed(scorers: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    bleu = (scorers["Bleu"](4), [f"Bleu_{n}" for n in range(1, 5)])
    return [bleu, *((scorers[k](), SYNONYMS.get(k, k)) for k in COCO[1:])]


def renamed(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores by our names, such as "CIDEr" or "CIDEr@0.5"; what is no such score is left out."""
    found = {}
    for name, value in scores.items():
        metric, at, k = name.split("] ")[-1].partition("@")
        metric = SYNONYMS.get(metric, metric)
        if metric in KNOWN:
            found[metric + (f"@{float(k):g}" if at else "")] = float(value)
    return found


def official(clone: Path, case: Case) -> Scores:
    """Its F-value is left out: it needs WordNet, and fails where an answer is empty."""
    given = SHARED | {"np": np, "eprint": print, "tokens_unigram_f_value": lambda *_: 0.0}
    code = take(clone / "scripts/score.py", ("evals_json", "eval_pycoco"), **given)
    keys = ("question_id", "question", "answers", "scene_id")
    gold = [dict(zip(keys, (q.id, q.text, q.answers, ""), strict=True)) for q in case.questions]
    said = {q.id: {"answer_top10": [a]} for q, a in zip(case.questions, case.answers, strict=True)}
    scores = code["eval_pycoco"](gold, said) | code["evals_json"](gold, said)
    return {name: value / 100 for name, value in renamed(scores).items()}


def ll3da(clone: Path, script: str, data: Any, batches: list, **options: Any) -> Scores:
    """The whole evaluation; in place of the model, its outputs come with the batch."""
    scorers = SimpleNamespace(**own_scorers("utils.capeval", clone / "utils/capeval"))
    iou = ("get_box3d_min_max_batch_tensor", "box3d_iou_batch_tensor")
    given = take(clone / "utils/box_util.py", iou, torch=torch) | {
        **dict.fromkeys(("capblue", "capcider", "caprouge", "capmeteor"), scorers),
        **{"time": time, "OrderedDict": OrderedDict, "defaultdict": defaultdict},
        **{"is_primary": lambda: False, "barrier": lambda: None, "all_gather_dict": lambda x: x},
        "SmoothedValue": mock.MagicMock(),
        "parse_predictions": lambda boxes, *_: np.ones(boxes.shape[:2]),  # drops no box
    }
    names = ("score_captions", "prepare_corpus", "evaluate")
    model = mock.Mock(side_effect=lambda inputs, **_: batches[int(inputs["instruction"][0])][1])
    model.parameters = lambda: iter([torch.zeros(1)])
    loader = mock.MagicMock(dataset=data, __len__=lambda _: len(batches))
    loader.__iter__.side_effect = lambda: iter(
        [
            defaultdict(lambda: torch.zeros(1), held, instruction=torch.tensor([i]))
            for i, (held, _) in enumerate(batches)
        ]
    )
    with mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):
        evaluate = take(clone / f"eval_utils/{script}.py", names, **given)["evaluate"]
        return renamed(evaluate(SimpleNamespace(**options), 0, model, None, loader))


def decoder(texts: Sequence[str]) -> SimpleNamespace:
    """A tokenizer whose tokens are numbers of whole texts."""
    return SimpleNamespace(batch_decode=lambda ids, **_: [texts[int(row[0])] for row in ids])


def ll3da_answers(clone: Path, case: Case) -> Scores:
    asked = [
        {"question_id": q.id, "question": q.text, "answers": list(q.answers)}
        for q in case.questions
    ]
    rows = torch.arange(len(asked))
    data = SimpleNamespace(annotations=asked, tokenizer=decoder(case.answers))
    batches = [({"scan_idx": rows}, {"output_ids": rows[:, None]})]
    return ll3da(clone, "evaluate_qa", data, batches, max_epoch=1)


def ll3da_captions(clone: Path, case: Case) -> Scores:
    texts, batches = [], []
    for scene, found in case.predictions.items():
        rows = torch.arange(len(texts), len(texts) + len(found))
        texts += found.captions
        truth = case.truth[scene]
        ids = torch.tensor([[int(i) for i in truth.ids]])
        held = {"scan_idx": torch.tensor([len(batches)]), "gt_object_ids": ids}
        held["gt_box_corners"] = corners(truth.boxes)
        out = {"box_corners": corners(found.boxes), "output_ids": rows.view(1, -1, 1)}
        out["sem_cls_logits"] = torch.tensor([1.0, 0.0]).repeat(1, len(found), 1)  # of an object
        batches.append((held, defaultdict(lambda: torch.zeros(1), out)))
    data = SimpleNamespace(scan_names=list(case.truth), tokenizer=decoder(texts), task_name="")
    data.scanrefer = annotations(case)
    runs = [
        ll3da(clone, "evaluate_densecap", data, batches, max_epoch=1, test_min_iou=k)
        for k in THRESHOLDS
    ]
    return runs[0] | runs[1]


def corners(boxes: np.ndarray) -> torch.Tensor:
    signs = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    spread = boxes[:, None, :3] + boxes[:, None, 3:6] * signs
    return torch.tensor(spread, dtype=torch.float32)[None]


def annotations(case: Case) -> list[dict[str, Any]]:
    keys = ("scene_id", "object_id", "object_name", "token")
    return [
        dict(zip(keys, (o.scene_id, o.object_id, o.name, list(tokens)), strict=True))
        for o in case.described
        for tokens in o.tokens
    ]


def chosen(case: Case, rule: str, threshold: float) -> list[tuple[str, int, str | None]]:
    """A key, the box and the caption of each described object, as our matching has it."""
    objects = {(o.scene_id, o.object_id) for o in case.described}
    boxes = {}
    for scene, true in case.truth.items():
        annotated = np.array([(scene, i) in objects for i in true.ids])
        found = match(rule, case.predictions[scene].boxes, true.boxes, annotated, threshold)
        boxes |= {(scene, i): int(box) for i, box in zip(true.ids, found, strict=True)}
    rows = []
    for o in case.described:
        box = boxes[o.scene_id, o.object_id]
        said = case.predictions[o.scene_id].captions[box] if box >= 0 else None
        rows.append((f"{o.scene_id}|{o.object_id}|{o.name}", box, said))
    return rows


def scan2cap(clone: Path, case: Case) -> Scores:
    scorers = own_scorers("lib.capeval", clone / "lib/capeval")
    conf = SimpleNamespace(TRAIN=SimpleNamespace(MAX_DES_LEN=30))
    names = ("prepare_corpus", "check_candidates", "organize_candidates")
    code = take(clone / "lib/eval_helper.py", names, CONF=conf)
    corpus, scores = code["prepare_corpus"](annotations(case)), {}
    for k in THRESHOLDS:
        rows = chosen(case, "scan2cap", k)
        said = {key: [" ".join(["sos", *t.split(), "eos"])] for key, _, t in rows if t is not None}
        said = code["organize_candidates"](corpus, code["check_candidates"](corpus, said))
        scores |= {f"{n}@{k}": v for n, v in compute(listed(scorers), corpus, said).items()}
    return renamed(scores)


def leo_answers(clone: Path, case: Case) -> Scores:
    given = own_scorers("evaluator.ngram_metrics", clone / "evaluator/ngram_metrics")
    given |= {"EVALUATOR_REGISTRY": SimpleNamespace(register=lambda: lambda held: held)}
    given |= take(clone / "data/data_utils.py", ("clean_answer",), re=re)
    code = take(
        clone / "evaluator/scanqa_eval.py", ("ScanQAEvaluator",), **given | {"np": np, "Path": Path}
    )
    evaluator = code["ScanQAEvaluator"](SimpleNamespace(exp_dir="."), "scanqa")
    data = {
        "output_txt": case.answers,
        "output_gt": [[t.strip() for t in q.answers] for q in case.questions],
    }
    evaluator.update(defaultdict(lambda: [""] * len(case.answers), data))
    return renamed(evaluator.record("val", False)[1])


def chat_scene_answers(clone: Path, case: Case) -> Scores:
    given = take(clone / "utils/helper.py", ("clean_answer", "answer_match"), re=re)
    code = take(clone / "utils/eval.py", ("calc_scanqa_score",), **given)
    said = [
        {"scene_id": "", "gt_id": 0, "qid": 0, "pred": answer, "ref_captions": list(q.answers)}
        for q, answer in zip(case.questions, case.answers, strict=True)
    ]
    return renamed(code["calc_scanqa_score"](said, SHARED["PTBTokenizer"](), listed(SHARED)))


def chat_scene_captions(clone: Path, case: Case) -> Scores:
    iou = ("get_box3d_min_max", "box3d_iou", "construct_bbox_corners")
    given = take(clone / "utils/box_utils.py", iou, np=np) | {"torch": torch, "json": json}
    code = take(clone / "utils/eval.py", ("calc_scan2cap_score",), **given)
    code["default_instance_attr_file"] = "annotations/found.pt"
    Path("annotations").mkdir(exist_ok=True)
    for name, held in (("found", case.predictions), ("scannet_val_attributes", case.truth)):
        rows = {k: {"locs": torch.tensor(v.boxes[:, :6]).float()} for k, v in held.items()}
        torch.save(rows, f"annotations/{name}.pt")
    corpus = {
        f"{o.scene_id}|{o.object_id}": [f"sos {t} eos" for t in o.descriptions]
        for o in case.described
    }
    Path("annotations/scan2cap_val_corpus.json").write_text(json.dumps(corpus))
    said = []
    for key, box, text in chosen(case, "chat-scene", 0.0):
        scene, number, _ = key.split("|")
        if text is not None:
            said.append({"scene_id": scene, "gt_id": int(number), "pred_id": box, "pred": text})
    return renamed(code["calc_scan2cap_score"](said, SHARED["PTBTokenizer"](), listed(SHARED)))


def llava_3d(clone: Path, case: Case) -> Scores:
    names = ("clean_answer", "answer_match", "calc_scanqa_score")
    code = take(clone / "llava/eval/scanqa_evaluator.py", names, re=re, tqdm=list)
    said = [{"question_id": i, "text": text} for i, text in enumerate(case.answers)]
    gold = [{"question_id": i, "text": q.answers} for i, q in enumerate(case.questions)]
    tokenizer = SHARED["PTBTokenizer"]()
    return renamed(code["calc_scanqa_score"](said, gold, tokenizer, listed(SHARED)))


def video_3d_llm(clone: Path, script: str, lines: list[dict[str, Any]]) -> dict[str, float]:
    """A script reads a file and prints its scores: times 100, but for EM."""
    own_scorers("llava.eval.caption_eval", clone / "llava/eval/caption_eval")
    Path("said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = take(clone / f"llava/eval/{script}.py", ("main",), json=json)
        code["main"](SimpleNamespace(input_file="said.jsonl"))
    rows = [line.split(": ", 1) for line in printed.getvalue().splitlines() if ": " in line]
    found = {name: text for name, text in rows if name in {*SYNONYMS, *KNOWN}}
    orders = found.pop("BLEU").split(", ")  # all four, or BLEU-4 alone
    found |= {f"BLEU-{i}": text for i, text in enumerate(orders, 5 - len(orders))}
    return renamed({n: float(t) / (1 if n == "EM" else 100) for n, t in found.items()})


def video_3d_llm_answers(clone: Path, case: Case) -> Scores:
    folder = Path("data/processed")
    folder.mkdir(parents=True, exist_ok=True)
    gold = [{"id": f"{q.id}_0", "metadata": {"answers": q.answers}} for q in case.questions]
    (folder / "scanqa_val_llava_style.json").write_text(json.dumps(gold))
    said = [
        {"sample_id": held["id"], "pred_response": text}
        for held, text in zip(gold, case.answers, strict=True)
    ]
    return video_3d_llm(clone, "eval_scanqa", said)


def video_3d_llm_captions(clone: Path, case: Case) -> Scores:
    scores = {}
    for k in THRESHOLDS:
        lines = [
            {"sample_id": key, "pred_response": (t or "").strip(), "gt_response": o.descriptions}
            for (key, _, t), o in zip(chosen(case, "video-3d-llm", k), case.described, strict=True)
        ]
        found = video_3d_llm(clone, "eval_scan2cap", lines)
        scores |= {f"{name}@{k}": value for name, value in found.items()}
    return scores


def mmdet3d(clone: Path, case: Case) -> Scores:
    """With rectangles in place of mmcv's compiled `box_iou_rotated`: no box here is turned."""
    folder = clone / "mmdet3d"
    stand_in("mmcv")
    ops = {"box_iou_rotated": rectangle_iou}
    stand_in("mmcv.ops", **ops, points_in_boxes_all=None, points_in_boxes_part=None)
    stand_in("mmdet3d", folder)
    stand_in("mmdet3d.structures", folder / "structures")
    utils = stand_in("mmdet3d.utils", folder / "utils")
    converter = importlib.import_module("mmdet3d.utils.array_converter")
    utils.__dict__["array_converter"] = converter.array_converter
    boxes = importlib.import_module("mmdet3d.structures.bbox_3d")
    given = {"np": np, "torch": torch, "AsciiTable": mock.MagicMock(), "print_log": print}
    given["AsciiTable"].return_value.table = ""
    # NumPy 2.4 makes no number of an array of one number, as this code asks of `float`.
    given["float"] = lambda value: np.asarray(value, dtype=np.float64).item()
    names = ("average_precision", "eval_det_cls", "eval_map_recall", "indoor_eval")
    code = take(folder / "evaluation/functional/indoor_eval.py", names, **given)

    def three_d(held: PredictedBoxes | TrueBoxes) -> tuple[Any, np.ndarray]:
        rows = torch.tensor(held.boxes).float()
        labels = np.array([NAMES.index(label) for label in held.labels])
        return boxes.DepthInstance3DBoxes(rows, origin=(0.5, 0.5, 0.5)), labels

    gold, said = [], []
    for scene, true in case.truth.items():
        found = case.predictions[scene]
        gold.append(dict(zip(("gt_bboxes_3d", "gt_labels_3d"), three_d(true), strict=True)))
        said.append(dict(zip(("bboxes_3d", "labels_3d"), three_d(found), strict=True)))
        said[-1]["labels_3d"] = torch.tensor(said[-1]["labels_3d"])
        said[-1]["scores_3d"] = torch.tensor(found.scores).float()
    mode = boxes.Box3DMode.DEPTH
    return code["indoor_eval"](gold, said, list(THRESHOLDS), NAMES, box_mode_3d=mode)


def rectangle_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    high = torch.minimum((a[:, :2] + a[:, 2:4] / 2)[:, None], b[:, :2] + b[:, 2:4] / 2)
    low = torch.maximum((a[:, :2] - a[:, 2:4] / 2)[:, None], b[:, :2] - b[:, 2:4] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (a[:, 2:4].prod(1)[:, None] + b[:, 2:4].prod(1) - shared)


def our_answers(variant: str, case: Case, meteor: Meteor, *, as_published: bool) -> Scores:
    style = answers.VARIANTS[variant]
    found = answers.score_answers(
        case.questions, case.answers, style, meteor=meteor, as_published=as_published
    )
    return {name: score.value for name, score in found.all.items()}


def our_captions(variant: str, case: Case, meteor: Meteor, *, as_published: bool) -> Scores:
    held = (case.described, case.truth, case.predictions, variant)
    return {
        f"{name}@{k}": score.value
        for k in THRESHOLDS
        for name, score in captions.score_captions(
            *held, k, meteor=meteor, as_published=as_published
        ).all.items()
    }


def our_boxes(variant: str, case: Case, _: Meteor, *, as_published: bool) -> Scores:
    """By the names that mmdet3d gives them; it is one variant, whose faults are not repeated."""
    report = score_detection(
        case.predictions, case.truth, classes=NAMES, variant="mmdet3d", draws=0
    )
    found: dict[str, float | None] = {}
    for k, table in zip(THRESHOLDS, report.tables, strict=False):
        for row in table.rows:
            mean = row.name.startswith("mean")
            names = ("mAP", "mAR") if mean else (f"{row.name}_AP", f"{row.name}_rec")
            for name, score in zip(names, ("AP", "AR"), strict=True):
                found[f"{name}_{k:.2f}"] = row.scores[score].value
    return found


# Whose code is shared by projects that import it from pycocoevalcap.
SHARED: dict[str, Any] = {
    "Bleu": Bleu,
    "Meteor": coco_meteor.Meteor if JAVA else NoMeteor,
    "Rouge": Rouge,
    "Cider": Cider,
    "PTBTokenizer": PTBTokenizer if JAVA else NoTokenizer,
}
# The option, what is scored, the variant, the part of the project that runs; theirs and ours.
PEERS: list[tuple[str, str, str, str, Callable[..., Any], Callable[..., Any]]] = [
    ("scanqa", "answers", "official", "texts", official, our_answers),
    ("ll3da", "answers", "ll3da", "texts", ll3da_answers, our_answers),
    ("leo", "answers", "leo", "texts", leo_answers, our_answers),
    ("chat-scene", "answers", "chat-scene", "texts", chat_scene_answers, our_answers),
    ("llava-3d", "answers", "llava-3d", "texts", llava_3d, our_answers),
    ("video-3d-llm", "answers", "video-3d-llm", "texts", video_3d_llm_answers, our_answers),
    ("scan2cap", "captions", "scan2cap", "texts", scan2cap, our_captions),
    ("ll3da", "captions", "ll3da", "matching + texts", ll3da_captions, our_captions),
    (
        "chat-scene",
        "captions",
        "chat-scene",
        "thresholds + texts",
        chat_scene_captions,
        our_captions,
    ),
    ("video-3d-llm", "captions", "video-3d-llm", "texts", video_3d_llm_captions, our_captions),
    ("mmdet3d", "boxes", "mmdet3d", "all", mmdet3d, our_boxes),
]

if __name__ == "__main__":
    sys.exit(main())
