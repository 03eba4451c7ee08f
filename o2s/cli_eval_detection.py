"""The command `o2s eval detection`: scores of boxes, read from files or found on the way."""

import hashlib
import json
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from o2s.cli_eval_shared import check_folder
from o2s.errors import InputError
from o2s.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    DetectorName,
    JsonOption,
    ModelOption,
    SetOption,
    ThreadsOption,
    TrustOption,
)
from o2s.terminal import progress_bar, step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from o2s.evaluate.scene_boxes import PredictedBoxes
    from o2s.loading import ModelSource
    from o2s.scene import Boxes, Scene

EXAMPLE = "Example: o2s eval detection boxes --reference prepared --split val --out scores"


class VariantName(StrEnum):
    """Whose rules to follow where projects differ."""

    three_detr = "3detr"
    mmdet3d = "mmdet3d"


def detection(
    reference: Annotated[
        Path, typer.Option(help="A folder that `o2s prepare` wrote, or a JSON file of true boxes.")
    ],
    predictions: Annotated[
        Path | None,
        typer.Argument(help="A folder of <scene>.json as `o2s detect --json` prints, or a file."),
    ] = None,
    detector: Annotated[
        DetectorName | None, typer.Option(help="Find boxes with this detector instead.")
    ] = None,
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    classes: Annotated[
        str, typer.Option(help="The class list of the prepared scans; a file has its own labels.")
    ] = "scannet18",
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", help="A class that is no object: wall; repeatable."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only the scenes of this split.")] = None,
    iou: Annotated[
        list[float] | None,
        typer.Option(help="Right above this IoU; repeatable. 0.25 and 0.5 if not given."),
    ] = None,
    recall_at: Annotated[
        list[int] | None,
        typer.Option(help="Recall of this many boxes a scene; repeatable. 8 to 256, else."),
    ] = None,
    variant: Annotated[
        VariantName, typer.Option(help="A class without true boxes counts 0, or is no number.")
    ] = VariantName.three_detr,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="The folder for scores.json and scores.md.")
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Draw the first so many scenes into OUT/pictures.")
    ] = 0,
    trust_pickle: TrustOption = False,
    json_output: JsonOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws scenes for the intervals.")] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Score boxes: AP, AR and recall of proposals, with intervals.

    With --detector or --model, boxes are found in every scan of the prepared folder --reference and
    written to OUT/predictions/<scene>.json; a command that was interrupted can be run again and
    does the rest.
    """
    from o2s.evaluate.detection import RECALL_AT, THRESHOLDS, score_detection
    from o2s.evaluate.detection_pictures import draw_detections
    from o2s.evaluate.report import versions, write_report
    from o2s.evaluate.scene_boxes import (
        prepared_scans,
        read_predicted_boxes,
        read_true_boxes,
        require_same_scenes,
        scored_classes,
    )
    from o2s.loading import ModelSource, set_threads
    from o2s.terminal_report import print_report

    thresholds, counts = tuple(iou or THRESHOLDS), tuple(recall_at or RECALL_AT)
    _check(thresholds, counts)
    if pictures and (out_folder is None or not reference.is_dir()):
        raise InputError("--pictures needs --out and a prepared folder as --reference")
    if [predictions is None, detector is None, model is None].count(False) != 1:
        raise InputError("give one of these: a folder or file of boxes, --detector, or --model")
    if out_folder is not None:
        check_folder(out_folder)
    set_threads(threads)
    with progress_bar() as progress:
        with step(progress, "reading true boxes"):
            truth = read_true_boxes(reference, classes, split)
            names = scored_classes(reference, classes, truth)
            names = _without(names, leave_out or [])
        source: dict[str, Any] = {"name": predictions.resolve().name} if predictions else {}
        if predictions is None:
            if out_folder is None or not reference.is_dir():
                wrong = "--reference" if out_folder is not None else "--out"
                raise InputError(f"{wrong} must be a folder where boxes are found on the way")
            predictions = out_folder / "predictions"
            given = ModelSource(model, config, override or [], trust_pickle=trust_pickle)
            chosen = _settings(detector, given)
            source = {"settings": chosen[0]}
            _find(progress, reference, split, out_folder, *chosen)
            found = read_predicted_boxes(predictions)
            found = {name: found[name] for name in truth}  # earlier runs may have had more scenes
        else:
            with step(progress, "reading boxes"):
                found = read_predicted_boxes(predictions)
        require_same_scenes(found, truth, found_in=predictions, reference=reference)
        found = {name: boxes.without(leave_out or []) for name, boxes in found.items()}
        agnostic = _is_class_agnostic(found, names, found_in=predictions)
        with step(progress, "scoring"):
            report = score_detection(
                found,
                truth,
                classes=names,
                class_agnostic=agnostic,
                thresholds=thresholds,
                recall_at=counts,
                variant=variant.value,
                seed=seed,
                made_from={
                    "predictions": source | {"checksum": _checksum(predictions)},
                    "reference": {
                        "name": reference.resolve().name,
                        "checksum": _checksum(reference),
                    },
                    "classes": classes if reference.is_dir() else "of the reference",
                    "left out": leave_out or [],
                    "split": split,
                    "versions": versions(),
                },
            )
        if pictures and out_folder is not None:
            scans = dict(list(prepared_scans(reference, split).items())[:pictures])
            with step(progress, "drawing") as update:
                folder = out_folder / "pictures"
                draw_detections(scans, found, truth, names, folder, update)
    if out_folder is not None:
        write_report(report, out_folder)
    print_report(report, json_output=json_output)


def _check(thresholds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    for value in thresholds:
        if not 0 <= value < 1:
            raise InputError(f"--iou is {value}, expected a number from 0 to below 1")
    for value in counts:
        if value < 1:
            raise InputError(f"--recall-at is {value}, expected at least 1")
    for name, values in (("--iou", thresholds), ("--recall-at", counts)):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise InputError(f"{name} {twice[0]} is given twice, expected different numbers")


def _without(classes: "Sequence[str]", leave_out: "Sequence[str]") -> tuple[str, ...]:
    for name in leave_out:
        if name not in classes:
            raise InputError(f"--leave-out {name}: no such class, expected of {', '.join(classes)}")
    return tuple(name for name in classes if name not in leave_out)


def _is_class_agnostic(
    predictions: "Mapping[str, PredictedBoxes]", classes: "Sequence[str]", *, found_in: Path
) -> bool:
    """Whether no box has a class: all labels are "object" or missing.

    Raises:
        InputError: some labels are classes and others are not, or are names that are no classes.
    """
    from o2s.io.cloud import quote

    known = set(classes)
    labels = {label for boxes in predictions.values() for label in boxes.labels}
    if labels <= known:
        return False
    if labels <= {"", "object"}:
        return True
    for scene, boxes in predictions.items():
        for number, label in enumerate(boxes.labels):
            if label not in known:
                shown = ", ".join(classes[:40]) + (", ..." if len(classes) > 40 else "")
                raise InputError(
                    f"{found_in}: box {number} of scene {quote(scene)} has the label "
                    f'{quote(label)}; expected one of {shown}; or "object" for all boxes'
                )
    raise AssertionError("labels that are in no box")


def _settings(
    detector: DetectorName | None, given: "ModelSource"
) -> tuple[dict[str, Any], "Callable[[Scene], Boxes]"]:
    """What the boxes depend on beside the scans, and the function that finds them."""
    from o2s import __version__
    from o2s.detect import LearnedDetector
    from o2s.encoder import EncoderConfig, build_detector, choose
    from o2s.loading import load_encoder, load_encoder_config

    digest = hashlib.sha256()
    if detector is None:
        encoder, _ = load_encoder(given)
        settings, find = encoder.config, encoder.detect
        most: int | None = settings.max_regions
        for value in encoder.detector.state_dict().values():
            digest.update(value.contiguous().numpy(force=True).tobytes())
    else:
        overrides = [*given.overrides, f"encoder.detector={detector}"]
        settings = load_encoder_config(replace(given, overrides=overrides))
        module = build_detector(settings, trust_pickle=given.trust_pickle)
        most = settings.max_regions
        if isinstance(module, LearnedDetector):
            module.choose_as_published()
            choose(module, settings)
            settings = replace(settings, **{settings.detector: module.config})
            # Average precision is of all boxes, unless someone wants fewer.
            most = None if most == EncoderConfig().max_regions else most
        for value in module.state_dict().values():
            digest.update(value.contiguous().numpy(force=True).tobytes())

        def find(scene: "Scene") -> "Boxes":
            boxes = module(scene)
            return boxes if most is None else boxes.best(most)

    facts: dict[str, Any] = {
        "detector": settings.detector,
        settings.detector: asdict(getattr(settings, settings.detector)),
        "max_regions": most,
        "weights": digest.hexdigest(),
        "o2s": __version__,
    }
    return json.loads(json.dumps(facts)), find


def _find(
    progress: Progress,
    reference: Path,
    split: str | None,
    out_folder: Path,
    settings: dict[str, Any],
    find: "Callable[[Scene], Boxes]",
) -> None:
    """Boxes of all prepared scans into OUT/predictions; those that are there stay."""
    from o2s.evaluate.scene_boxes import prepared_scans
    from o2s.files import alone_in, clear_leftovers, write_json
    from o2s.io import read_scene
    from o2s.io.labelled import labelled_facts

    scans = prepared_scans(reference, split)
    folder = out_folder / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(out_folder), step(progress, "finding objects") as update:
        clear_leftovers(folder)
        _settle(out_folder / "detector.json", folder, settings)
        for done, (name, scan) in enumerate(scans.items()):
            update(done, len(scans))
            target = folder / f"{name}.json"
            made_from = (labelled_facts(scan) or {}).get("made_from")
            if _made_from(target) == made_from and made_from is not None:
                continue
            scene = read_scene(scan)
            boxes = find(scene)
            rows = boxes.tensor.double().numpy(force=True)
            rows[:, :3] += scene.offset.numpy()
            entries = [
                {
                    "centre": row[:3],
                    "size": row[3:6],
                    "heading": row[6],
                    "score": score,
                    "label": label,
                }
                for row, score, label in zip(
                    rows.tolist(), boxes.scores.tolist(), boxes.labels, strict=True
                )
            ]
            write_json(target, {"scan": str(scan), "boxes": entries, "made_from": made_from})


def _settle(path: Path, folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings beside the boxes, or refuse to mix them with others.

    Raises:
        InputError: boxes are there that were found with other settings.
    """
    from o2s.files import write_json

    if not path.exists() and not any(folder.glob("*.json")):
        write_json(path, settings)
        return
    held = _read_json(path)
    if held != settings:
        was = "with settings that are not there" if held is None else f"with {json.dumps(held)}"
        raise InputError(
            f"{folder}: boxes were found {was}, not {json.dumps(settings)}; remove {folder} and "
            f"{path.name}, or choose another --out"
        )


def _made_from(path: Path) -> str | None:
    held = _read_json(path)
    return held.get("made_from") if isinstance(held, dict) else None


def _read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _checksum(path: Path) -> str:
    """Of a file; of the .json files of a folder and of what its prepared scans were made from."""
    from o2s.evaluate.scene_boxes import made_from

    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    scans = {file.name: file for file in path.glob("*.safetensors")}
    digest = hashlib.sha256(made_from(scans).encode())
    for file in sorted(p for p in path.glob("*.json") if not p.name.startswith(".")):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()
