"""Running the scoring code of public projects out of their clones; used by scores.py."""

import ast
import contextlib
import importlib
import io
import json
import math
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from pycocoevalcap.meteor import meteor as coco_meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from o2s.evaluate import captions
from o2s.evaluate.answer_files import AskedQuestion
from o2s.evaluate.caption_matching import match
from o2s.evaluate.ngrams import METRICS
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes

THRESHOLDS = (0.25, 0.5)
JAVA = shutil.which("java") is not None
NAMES = ("chair", "table", "desk", "cabinet", "lamp", "office_chair")
KINDS = ("Bleu", "Meteor", "Rouge", "Cider")
OURS = {  # what the projects call our scores
    **{f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{name: name for name in METRICS} | {"bleu": "BLEU-4", "meteor": "METEOR"},
    **dict.fromkeys(("ROUGE_L", "Rouge", "rouge"), "ROUGE-L"),
    **dict.fromkeys(("CiDEr", "CIDER", "Cider", "cider"), "CIDEr"),
    **dict.fromkeys(("EM", "EM1", "em", "Top1 (EM)"), "EM@1"),
    **dict.fromkeys(("EM1_refined", "em_refined"), "EM-refined"),
}
Scores = Mapping[str, float | None]


class Case(NamedTuple):
    """Made-up predictions and what they are scored against."""

    questions: list[AskedQuestion]
    answers: list[str]
    truth: dict[str, TrueBoxes]
    predictions: dict[str, PredictedBoxes]
    described: list[captions.DescribedObject]


def take(file: Path, *names: str, **given: Any) -> dict[str, Any]:
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


def scorers(name: str = "pycocoevalcap", folder: Path | None = None) -> dict[str, Any]:
    """The COCO scorers: a project's own copies, under the name by which it imports them.

    Clones lack METEOR's program: their wrapper of it is told that it lies in pycocoevalcap.
    """
    if folder is not None:
        parts = name.split(".")
        for i in range(len(parts)):
            stand_in(".".join(parts[: i + 1]), folder)
    modules = [importlib.import_module(f"{name}.{k.lower()}.{k.lower()}") for k in KINDS]
    modules[1].__file__ = coco_meteor.__file__
    if not JAVA:
        none = mock.Mock(compute_score=lambda held, _: (math.nan, [math.nan] * len(held)))
        modules[1].__dict__["Meteor"] = lambda: none
    return {k: vars(module)[k] for k, module in zip(KINDS, modules, strict=True)}


def listed(kinds: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Scorers and their names, as the projects list them."""
    names = ([f"Bleu_{n}" for n in range(1, 5)], "METEOR", "Rouge", "CIDEr")
    made = [kinds[k](4) if k == "Bleu" else kinds[k]() for k in KINDS]
    return list(zip(made, names, strict=True))


def tokenizer() -> Any:
    """Without Java one that leaves texts as they are, whose scores are not compared."""
    if JAVA:
        return PTBTokenizer()
    return mock.Mock(tokenize=lambda t: {k: [h["caption"] for h in v] for k, v in t.items()})


def renamed(scores: Mapping[str, Any], scale: float = 1) -> dict[str, float]:
    """Scores by our names, such as "CIDEr" or "CIDEr@0.5", without what is none of ours."""
    found = {}
    for name, value in scores.items():
        metric, _, k = name.split("] ")[-1].partition("@")
        if metric in OURS:
            found[OURS[metric] + (f"@{float(k):g}" if k else "")] = float(value) / scale
    return found


def at_thresholds(theirs: Callable[..., Scores]) -> Callable[..., Scores]:
    """A project that scores captions at one threshold, at all."""

    def run(clone: Path, case: Case) -> Scores:
        return {f"{n}@{k:g}": v for k in THRESHOLDS for n, v in theirs(clone, case, k).items()}

    return run


def official(clone: Path, case: Case) -> Scores:
    """Without its F-value, which needs WordNet and fails where an answer is empty."""
    given = scorers() | {"PTBTokenizer": tokenizer, "np": np, "eprint": print}
    given |= {"tokens_unigram_f_value": lambda *_: 0.0}
    code = take(clone / "scripts/score.py", "evals_json", "eval_pycoco", **given)
    keys = ("question_id", "question", "answers", "scene_id")
    gold = [dict(zip(keys, (q.id, "", q.answers, ""), strict=True)) for q in case.questions]
    said = {f"q-{i}": {"answer_top10": [text]} for i, text in enumerate(case.answers)}
    return renamed(code["eval_pycoco"](gold, said) | code["evals_json"](gold, said), 100)


def ll3da(clone: Path, script: str) -> dict[str, Any]:
    modules = SimpleNamespace(**scorers("utils.capeval", clone / "utils/capeval"))
    given = dict.fromkeys(("capblue", "capcider", "caprouge", "capmeteor"), modules)
    given |= {"defaultdict": defaultdict}
    return take(clone / f"eval_utils/{script}.py", "score_captions", "prepare_corpus", **given)


def ll3da_answers(clone: Path, case: Case) -> Scores:
    references = {i: list(q.answers) for i, q in enumerate(case.questions)}
    said = {i: [" ".join(filter(None, a.split(" ")))] for i, a in enumerate(case.answers)}
    return renamed(ll3da(clone, "evaluate_qa")["score_captions"](references, said)[2])


@at_thresholds
def ll3da_captions(clone: Path, case: Case, k: float) -> Scores:
    code = ll3da(clone, "evaluate_densecap")
    corpus = code["prepare_corpus"](annotations(case))[0]
    said = [f"sos {t} eos" if t else "sos eos" for _, t in chosen(case, "ll3da", k)]
    texts = {key: [t.replace("  ", " ")] for key, t in zip(corpus, said, strict=True)}
    return renamed(code["score_captions"](corpus, texts)[2])


def annotations(case: Case) -> list[dict[str, Any]]:
    """Descriptions as ScanRefer has them."""
    keys = ("scene_id", "object_id", "object_name", "token")
    rows = [(o.scene_id, o.object_id, o.name, list(t)) for o in case.described for t in o.tokens]
    return [dict(zip(keys, row, strict=True)) for row in rows]


def chosen(case: Case, rule: str, threshold: float) -> list[tuple[int, str | None]]:
    """The box, -1 for none, and the caption of each described object, by our matching."""
    objects, boxes = {(o.scene_id, o.object_id) for o in case.described}, {}
    for scene, true in case.truth.items():
        annotated = np.array([(scene, i) in objects for i in true.ids])
        found = match(rule, case.predictions[scene].boxes, true.boxes, annotated, threshold)
        boxes |= {(scene, i): int(box) for i, box in zip(true.ids, found, strict=True)}
    rows = [(o.scene_id, boxes[o.scene_id, o.object_id]) for o in case.described]
    return [(b, None if b < 0 else case.predictions[s].captions[b]) for s, b in rows]


@at_thresholds
def scan2cap(clone: Path, case: Case, k: float) -> Scores:
    conf = SimpleNamespace(TRAIN=SimpleNamespace(MAX_DES_LEN=30))
    names = ("prepare_corpus", "check_candidates", "organize_candidates")
    code = take(clone / "lib/eval_helper.py", *names, CONF=conf)
    corpus = code["prepare_corpus"](annotations(case))
    texts = zip(corpus, chosen(case, "scan2cap", k), strict=True)
    said = {key: [" ".join(["sos", *t.split(), "eos"])] for key, (_, t) in texts if t is not None}
    said, scores = code["organize_candidates"](corpus, code["check_candidates"](corpus, said)), {}
    for scorer, names in listed(scorers("lib.capeval", clone / "lib/capeval")):
        score = scorer.compute_score(corpus, said)[0]
        several = dict(zip(names, score, strict=True)) if isinstance(score, list) else {}
        scores |= several or {names: score}
    return renamed(scores)


def leo(clone: Path, case: Case) -> Scores:
    given = scorers("evaluator.ngram_metrics", clone / "evaluator/ngram_metrics")
    given |= {"EVALUATOR_REGISTRY": mock.Mock(register=lambda: lambda held: held)}
    given |= take(clone / "data/data_utils.py", "clean_answer", re=re)
    given |= {"np": np, "Path": Path}
    code = take(clone / "evaluator/scanqa_eval.py", "ScanQAEvaluator", **given)
    evaluator = code["ScanQAEvaluator"](SimpleNamespace(exp_dir="."), "scanqa")
    references = [[t.strip() for t in q.answers] for q in case.questions]  # as its data set does
    data = {"output_txt": case.answers, "output_gt": references}
    evaluator.update(defaultdict(lambda: [""] * len(references), data))
    return renamed(evaluator.record("val", False)[1])


def chat_scene_answers(clone: Path, case: Case) -> Scores:
    given = take(clone / "utils/helper.py", "clean_answer", "answer_match", re=re)
    score = take(clone / "utils/eval.py", "calc_scanqa_score", **given)["calc_scanqa_score"]
    pairs = zip(case.questions, case.answers, strict=True)
    held = [{"pred": text, "ref_captions": list(q.answers)} for q, text in pairs]
    said = [item | {"scene_id": "", "gt_id": 0, "qid": 0} for item in held]
    return renamed(score(said, tokenizer(), listed(scorers())))


def chat_scene_captions(clone: Path, case: Case) -> Scores:
    iou = ("get_box3d_min_max", "box3d_iou", "construct_bbox_corners")
    given = take(clone / "utils/box_utils.py", *iou, np=np) | {"torch": torch, "json": json}
    given |= {"default_instance_attr_file": "annotations/found.pt"}
    code = take(clone / "utils/eval.py", "calc_scan2cap_score", **given)
    folder = Path("annotations")
    folder.mkdir(exist_ok=True)
    for name, held in (("found", case.predictions), ("scannet_val_attributes", case.truth)):
        boxes = {scene: {"locs": torch.tensor(v.boxes[:, :6]).float()} for scene, v in held.items()}
        torch.save(boxes, folder / f"{name}.pt")
    keys = [f"{o.scene_id}|{o.object_id}" for o in case.described]
    texts = [[f"sos {text} eos" for text in o.descriptions] for o in case.described]
    corpus = json.dumps(dict(zip(keys, texts, strict=True)))
    (folder / "scan2cap_val_corpus.json").write_text(corpus)
    rows = zip(case.described, chosen(case, "chat-scene", 0.0), strict=True)
    found = [(o.scene_id, int(o.object_id), *row) for o, row in rows if row[1] is not None]
    names = ("scene_id", "gt_id", "pred_id", "pred")
    said = [dict(zip(names, row, strict=True)) for row in found]
    return renamed(code["calc_scan2cap_score"](said, tokenizer(), listed(scorers())))


def llava_3d(clone: Path, case: Case) -> Scores:
    names = ("clean_answer", "answer_match", "calc_scanqa_score")
    code = take(clone / "llava/eval/scanqa_evaluator.py", *names, re=re, tqdm=list)
    said = [{"question_id": i, "text": text} for i, text in enumerate(case.answers)]
    gold = [{"question_id": i, "text": q.answers} for i, q in enumerate(case.questions)]
    return renamed(code["calc_scanqa_score"](said, gold, tokenizer(), listed(scorers())))


def video_3d_llm(clone: Path, script: str, lines: list[dict[str, Any]]) -> Scores:
    """A script reads a file and prints its scores, times 100 but for EM."""
    scorers("llava.eval.caption_eval", clone / "llava/eval/caption_eval")
    Path("said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = take(clone / f"llava/eval/{script}.py", "main", json=json)
        code["main"](SimpleNamespace(input_file="said.jsonl"))
    found = dict(re.findall(r"^(\w+): (.*)$", printed.getvalue(), re.MULTILINE))
    orders = found.pop("BLEU").split(", ")  # all four, or BLEU-4 alone
    found |= {f"BLEU-{i}": text for i, text in enumerate(orders, 5 - len(orders))}
    exact = {"EM": found.pop("EM")} if "EM" in found else {}
    return renamed(found, 100) | renamed(exact)


def video_answers(clone: Path, case: Case) -> Scores:
    gold = [{"id": f"{q.id}_0", "metadata": {"answers": q.answers}} for q in case.questions]
    Path("data/processed").mkdir(parents=True, exist_ok=True)
    Path("data/processed/scanqa_val_llava_style.json").write_text(json.dumps(gold))
    said = [{"sample_id": f"q-{i}_0", "pred_response": t} for i, t in enumerate(case.answers)]
    return video_3d_llm(clone, "eval_scanqa", said)


@at_thresholds
def video_captions(clone: Path, case: Case, k: float) -> Scores:
    texts = [("" if t is None else t).strip() for _, t in chosen(case, "video-3d-llm", k)]
    names = ("sample_id", "pred_response", "gt_response")
    rows = zip(range(len(texts)), texts, (o.descriptions for o in case.described), strict=True)
    return video_3d_llm(clone, "eval_scan2cap", [dict(zip(names, r, strict=True)) for r in rows])


def mmdet3d(clone: Path, case: Case) -> Scores:
    """With rectangles in place of mmcv's compiled `box_iou_rotated`: no box here is turned."""
    folder = clone / "mmdet3d"
    stand_in("mmcv")
    unused = dict.fromkeys(("points_in_boxes_all", "points_in_boxes_part"))
    stand_in("mmcv.ops", box_iou_rotated=rectangle_iou, **unused)
    for name in ("", "/structures", "/utils"):
        stand_in(f"mmdet3d{name}".replace("/", "."), clone / f"mmdet3d{name}")
    converter = importlib.import_module("mmdet3d.utils.array_converter").array_converter
    sys.modules["mmdet3d.utils"].__dict__["array_converter"] = converter
    three_d = importlib.import_module("mmdet3d.structures.bbox_3d")
    given = {"np": np, "torch": torch, "AsciiTable": mock.MagicMock(), "print_log": mock.Mock()}
    given["AsciiTable"].return_value.table = ""
    # Since NumPy 2.4 an array of one number is no number, as which this code takes it.
    given["float"] = lambda value: np.asarray(value, np.float64).item()
    names = ("average_precision", "eval_det_cls", "eval_map_recall", "indoor_eval")
    code = take(folder / "evaluation/functional/indoor_eval.py", *names, **given)

    def read(held: PredictedBoxes | TrueBoxes) -> tuple[Any, torch.Tensor]:
        boxes = torch.tensor(held.boxes).float()
        labels = torch.tensor([NAMES.index(label) for label in held.labels])
        return three_d.DepthInstance3DBoxes(boxes, origin=(0.5, 0.5, 0.5)), labels

    gold, said = [], []
    for scene, found in case.predictions.items():
        boxes, labels = read(case.truth[scene])
        gold.append({"gt_bboxes_3d": boxes, "gt_labels_3d": labels.numpy()})
        boxes, labels = read(found)
        scores = torch.tensor(found.scores).float()
        said.append({"bboxes_3d": boxes, "labels_3d": labels, "scores_3d": scores})
    mode = three_d.Box3DMode.DEPTH
    return code["indoor_eval"](gold, said, list(THRESHOLDS), NAMES, box_mode_3d=mode)


def rectangle_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    high = torch.minimum((a[:, :2] + a[:, 2:4] / 2)[:, None], b[:, :2] + b[:, 2:4] / 2)
    low = torch.maximum((a[:, :2] - a[:, 2:4] / 2)[:, None], b[:, :2] - b[:, 2:4] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (a[:, 2:4].prod(1)[:, None] + b[:, 2:4].prod(1) - shared)
