"""The command `o2s eval captions`: scores of dense captioning."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from o2s.cli_eval_shared import (
    Regions,
    RegionsOption,
    check_choice,
    model_at_work,
    untrained_note,
)
from o2s.errors import InputError
from o2s.loading import ModelSource, set_threads
from o2s.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    DeviceOption,
    DrawsOption,
    JsonReportOption,
    LanguageModelOption,
    LengthOption,
    ModelOption,
    OutFolderOption,
    PredictionsArgument,
    PublishedOption,
    ScenesOption,
    SeedOption,
    SetOption,
    SubsetOption,
    ThreadsOption,
    TrustOption,
)
from o2s.terminal import progress_bar, step

if TYPE_CHECKING:
    from o2s.evaluate.captions import DescribedObject
    from o2s.evaluate.scene_boxes import PredictedBoxes

EXAMPLE = (
    "Example: o2s eval captions captions --reference ScanRefer_filtered_val.json --boxes prepared"
)


class CaptionVariantName(StrEnum):
    """Whose way of scoring captions."""

    all = "all"
    scan2cap = "scan2cap"
    ll3da = "ll3da"
    chat_scene = "chat-scene"
    leo = "leo"
    video_3d_llm = "video-3d-llm"
    benchmark = "benchmark"


def captions(
    reference: Annotated[Path, typer.Option(help="A file of descriptions in ScanRefer's format.")],
    predictions: PredictionsArgument = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="The true boxes: a folder that `o2s prepare` wrote, or a JSON file; --scenes, "
            "if not given."
        ),
    ] = None,
    variant: Annotated[
        list[CaptionVariantName] | None,
        typer.Option(help="Whose way of scoring; repeatable. All of them, if not given."),
    ] = None,
    iou: Annotated[
        list[float] | None, typer.Option(help="A threshold; repeatable. 0.25 and 0.5, else.")
    ] = None,
    blind: Annotated[
        Path | None, typer.Option(help="The model's captions without scene tokens.")
    ] = None,
    shuffled: Annotated[
        Path | None, typer.Option(help="The model's captions with the tokens of other scenes.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="ScanRefer's train file, to count the most frequent description in."),
    ] = None,
    subset: SubsetOption = False,
    as_published: PublishedOption = False,
    out_folder: OutFolderOption = None,
    json_output: JsonReportOption = False,
    seed: SeedOption = 0,
    draws: DrawsOption = 1000,
    scenes: ScenesOption = None,
    max_new_tokens: LengthOption = 48,
    regions: RegionsOption = Regions.detector,
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Score the captions of the objects of scenes, m@kIoU.

    Predictions are a folder of what `o2s caption --json` prints, one file a scene, or a JSON list,
    or JSON lines, of {"scene_id", "box", "caption"} with centre and size in metres, in the aligned
    coordinates of the true boxes. With --scenes the model describes its own boxes, also blind and
    with the tokens of other scenes; its captions are stored in OUT as they come, and a run that
    was interrupted goes on when it is started again.
    """
    from o2s.evaluate.caption_report import (
        all_variants,
        check_captions,
        read_described,
        report_captions,
    )
    from o2s.evaluate.ngrams import java_version, require_pycocoevalcap
    from o2s.evaluate.report import file_facts, versions, write_report
    from o2s.evaluate.running import FILES, caption_scenes
    from o2s.evaluate.scene_boxes import read_predicted_boxes, read_true_boxes
    from o2s.terminal_report import print_report

    require_pycocoevalcap()
    check_choice(predictions, scenes, out_folder)
    if scenes is not None and (blind or shuffled):
        raise InputError("--blind and --shuffled go with predictions: --scenes makes its own")
    thresholds = list(dict.fromkeys(iou or [0.25, 0.5]))
    for k in thresholds:
        if not 0 < k <= 1:
            raise InputError(f"--iou is {k}, expected thresholds above 0 and up to 1")
    where = boxes or scenes
    if where is None:
        raise InputError("say with --boxes where the true boxes are: a prepared folder or a file")
    described = read_described(reference)
    training = None if train is None else read_described(train)
    truth = read_true_boxes(where, scenes={o.scene_id for o in described})
    made_from: dict[str, Any] = {
        "reference": file_facts(reference),
        "boxes": where.name,
        "seed": seed,
        "draws": draws,
    }
    notes: list[str] = []
    held: dict[str, Mapping[str, PredictedBoxes]] = {}
    if predictions is not None:
        paths = {"model": predictions, "blind": blind, "shuffled": shuffled}
        held = {n: read_predicted_boxes(path) for n, path in paths.items() if path is not None}
    else:
        assert scenes is not None
        assert out_folder is not None
        paths = {}
        source = ModelSource(model, config, override or [], language_model, trust_pickle)
        set_threads(threads)
        settings: dict[str, Any] = {
            "reference": file_facts(reference)["sha256"],
            "regions": regions.value,
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }
        names = sorted({o.scene_id for o in described})
        place = (scenes, names, reference, out_folder)
        with model_at_work("describing", source, device, *place, settings, shell=True) as work:
            systems = caption_scenes(
                work.answerer,
                work.scenes,
                names,
                out_folder,
                seed=seed,
                max_new_tokens=max_new_tokens,
                progress=work.progress,
            )
        for system in systems:
            paths[system] = out_folder / FILES[system]
            held[system] = read_predicted_boxes(paths[system])
        made_from |= settings
        notes += untrained_note(settings)
    if subset:
        described, note = _only(described, held["model"])
        notes += note
        held = {
            name: {scene: boxes for scene, boxes in found.items() if scene in held["model"]}
            for name, found in held.items()
        }
    truth = {scene: truth[scene] for scene in {o.scene_id for o in described} if scene in truth}
    for name, found in held.items():
        check_captions(
            described, truth, found, reference=reference, boxes=where, found_in=paths[name] or where
        )
    found_versions = versions("torch", "transformers", "pycocoevalcap") | {"java": java_version()}
    for name, found in held.items():
        missing = sorted(held["model"].keys() - found.keys())
        if missing:
            raise InputError(
                f"{paths[name]}: no boxes of scene {missing[0]}, one of {len(missing)} that the "
                f"predictions have; expected the same scenes with --{name}"
            )
    with progress_bar() as progress, step(progress, "scoring"):
        report = report_captions(
            described,
            truth,
            held.pop("model"),
            variants=all_variants([v.value for v in variant or [CaptionVariantName.all]]),
            thresholds=thresholds,
            baselines=held,
            training=training,
            seed=seed,
            draws=draws,
            as_published=as_published,
            made_from=made_from | {"versions": found_versions},
            notes=notes,
        )
    if out_folder is not None:
        write_report(report, out_folder)
    print_report(report, json_output=json_output)


def _only(
    described: list["DescribedObject"], predictions: Mapping[str, "PredictedBoxes"]
) -> tuple[list["DescribedObject"], list[str]]:
    """The objects of scenes with predictions, and a note of how many those are."""
    chosen = [o for o in described if o.scene_id in predictions]
    if not chosen:
        return described, []
    scenes, all_scenes = {o.scene_id for o in chosen}, {o.scene_id for o in described}
    return chosen, [f"A subset: {len(scenes)} of {len(all_scenes)} scenes are scored."]
