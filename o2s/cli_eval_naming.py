"""The command `o2s eval naming`: what a model calls the objects that are pointed out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from o2s.cli_eval_shared import (
    Regions,
    RegionsOption,
    check_folder,
    model_at_work,
    untrained_note,
)
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
    SeedOption,
    SetOption,
    ThreadsOption,
    TrustOption,
)

EXAMPLE = (
    "Example: o2s eval naming --reference ScanRefer_filtered_val.json --scenes prepared --out names"
)


def naming(
    reference: Annotated[Path, typer.Option(help="A file of descriptions in ScanRefer's format.")],
    scenes: Annotated[Path, typer.Option(help="The folder that `o2s prepare` wrote.")],
    out_folder: Annotated[Path, typer.Option("--out", help="The folder for names and scores.")],
    json_output: JsonReportOption = False,
    seed: SeedOption = 0,
    draws: DrawsOption = 1000,
    max_new_tokens: LengthOption = 12,
    regions: RegionsOption = Regions.detector,
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Score the classification of referred objects.

    Each object that the file describes is pointed out to the model among all that it sees, which
    says what it is. Beside it stand the model's blind answer and the detector's label. Names are
    stored in OUT as they come, and a run that was interrupted goes on when it is started again.
    """
    from o2s.evaluate.caption_report import check_boxes, read_described
    from o2s.evaluate.naming import name_objects, report_names
    from o2s.evaluate.report import file_facts, versions, write_report
    from o2s.evaluate.scene_boxes import read_true_boxes
    from o2s.terminal_report import print_report

    check_folder(out_folder)
    described = read_described(reference)
    names = sorted({o.scene_id for o in described})
    truth = read_true_boxes(scenes, scenes=names)
    source = ModelSource(model, config, override or [], language_model, trust_pickle)
    set_threads(threads)
    settings: dict[str, Any] = {
        "reference": file_facts(reference)["sha256"],
        "regions": regions.value,
        "max_new_tokens": max_new_tokens,
    }
    check_boxes(described, truth, reference=reference, boxes=scenes)
    place = (scenes, names, reference, out_folder)
    with model_at_work("naming", source, device, *place, settings, shell=True) as work:
        named = name_objects(
            work.answerer,
            work.scenes,
            described,
            truth,
            out_folder,
            max_new_tokens=max_new_tokens,
            progress=work.progress,
        )
    facts = {**settings, "reference": file_facts(reference), "seed": seed, "draws": draws}
    report = report_names(
        described,
        named,
        seed=seed,
        draws=draws,
        made_from=facts | {"versions": versions("torch", "transformers")},
        notes=untrained_note(settings),
    )
    write_report(report, out_folder)
    print_report(report, json_output=json_output)
