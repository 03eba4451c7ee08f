"""The command `o2s eval qa`: scores of answers to questions about scenes."""

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
    from o2s.evaluate.answer_files import AskedQuestion
    from o2s.evaluate.answers import DataSet

EXAMPLE = "Example: o2s eval qa predictions.json --reference ScanQA_v1.0_val.json"


class AnswerVariantName(StrEnum):
    """Whose way of scoring answers."""

    all = "all"
    official = "official"
    ll3da = "ll3da"
    leo = "leo"
    chat_scene = "chat-scene"
    llava_3d = "llava-3d"
    video_3d_llm = "video-3d-llm"


class Resample(StrEnum):
    """What the bootstrap draws."""

    questions = "questions"
    scenes = "scenes"


def qa(
    reference: Annotated[
        Path,
        typer.Option(help="ScanQA's file; or SQA3D's questions, or the folder of its files."),
    ],
    predictions: PredictionsArgument = None,
    annotations: Annotated[
        Path | None, typer.Option(help="SQA3D's annotations, which belong to its questions.")
    ] = None,
    split: Annotated[str, typer.Option(help="Whose files to take from a folder of SQA3D.")] = "val",
    variant: Annotated[
        list[AnswerVariantName] | None,
        typer.Option(help="Whose way of scoring; repeatable. All of them, if not given."),
    ] = None,
    blind: Annotated[
        Path | None, typer.Option(help="The model's answers without scene tokens.")
    ] = None,
    shuffled: Annotated[
        Path | None, typer.Option(help="The model's answers with the tokens of other scenes.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="ScanQA's train file, or SQA3D's folder, to count the most frequent answers in."
        ),
    ] = None,
    subset: SubsetOption = False,
    as_published: PublishedOption = False,
    out_folder: OutFolderOption = None,
    json_output: JsonReportOption = False,
    seed: SeedOption = 0,
    draws: DrawsOption = 1000,
    resample: Annotated[
        Resample, typer.Option(help="What the bootstrap draws.")
    ] = Resample.questions,
    scenes: ScenesOption = None,
    max_new_tokens: LengthOption = 64,
    regions: RegionsOption = Regions.detector,
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Score answers to questions about scenes.

    Predictions are a JSON list, or JSON lines, of {"question_id", "answer"}. With --scenes the
    model answers itself, also blind and about shuffled scenes; its answers are stored in OUT as
    they come, and a run that was interrupted goes on when it is started again.
    """
    from o2s.evaluate.answer_files import match_answers, read_answers
    from o2s.evaluate.answer_report import all_variants, report_answers
    from o2s.evaluate.ngrams import java_version, require_pycocoevalcap
    from o2s.evaluate.report import file_facts, versions, write_report
    from o2s.evaluate.running import answer_questions
    from o2s.terminal_report import print_report

    require_pycocoevalcap()
    check_choice(predictions, scenes, out_folder)
    if scenes is not None and (blind or shuffled or subset):
        raise InputError("--blind, --shuffled and --subset go with predictions: --scenes makes all")
    questions, data_set, files = _read_questions(reference, annotations, split)
    training = None
    if train is not None:
        training, kind, _ = _read_questions(train, None, "train")
        if kind != data_set:
            raise InputError(f"--train {train}: of {kind}, and --reference of {data_set}")
    made_from: dict[str, Any] = {
        "reference": [file_facts(file) for file in files],
        "data_set": data_set,
        "seed": seed,
        "draws": draws,
    }
    notes: list[str] = []
    baselines: dict[str, list[str]] = {}
    if predictions is not None:
        everything = questions
        given = read_answers(predictions)
        questions, answers = match_answers(everything, given, predictions, subset=subset)
        for name, path in (("blind", blind), ("shuffled", shuffled)):
            if path is not None:
                others = read_answers(path)
                _, baselines[name] = match_answers(everything, others, path, asked=questions)
        made_from["predictions"] = file_facts(predictions)
        if len(questions) < len(everything):
            notes.append(f"A subset: {len(questions)} of {len(everything)} questions are scored.")
    else:
        assert scenes is not None
        assert out_folder is not None
        source = ModelSource(model, config, override or [], language_model, trust_pickle)
        set_threads(threads)
        settings: dict[str, Any] = {
            "reference": [file_facts(file)["sha256"] for file in files],
            "regions": regions.value,
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }
        names = [question.scene_id for question in questions]
        place = (scenes, names, reference, out_folder)
        with model_at_work("answering", source, device, *place, settings, shell=False) as work:
            said = answer_questions(
                work.answerer,
                work.scenes,
                questions,
                out_folder,
                seed=seed,
                max_new_tokens=max_new_tokens,
                progress=work.progress,
            )
        answers = said.pop("model")
        baselines = {str(system): texts for system, texts in said.items()}
        made_from |= settings
        notes += untrained_note(settings)
    found_versions = versions("torch", "transformers", "pycocoevalcap") | {"java": java_version()}
    with progress_bar() as progress, step(progress, "scoring"):
        report = report_answers(
            questions,
            answers,
            data_set=data_set,
            variants=all_variants([v.value for v in variant or [AnswerVariantName.all]]),
            baselines=baselines,
            training=training,
            seed=seed,
            draws=draws,
            by_scene=resample is Resample.scenes,
            as_published=as_published,
            made_from=made_from | {"versions": found_versions},
            notes=notes,
        )
    if out_folder is not None:
        write_report(report, out_folder)
    print_report(report, json_output=json_output)


def _read_questions(
    reference: Path, annotations: Path | None, split: str
) -> tuple[list["AskedQuestion"], "DataSet", list[Path]]:
    from o2s.datasets.language_files import find_sqa3d
    from o2s.evaluate.answer_files import read_scanqa_questions, read_sqa3d_questions

    if annotations is not None:
        pair = (reference, annotations)
        return read_sqa3d_questions(*pair), "sqa3d", list(pair)
    if reference.is_dir():
        [(questions, found)] = find_sqa3d([reference], split)
        if found is None:
            raise InputError(f"{reference}: no file *annotations_{split}*.json; expected SQA3D's")
        return read_sqa3d_questions(questions, found), "sqa3d", [questions, found]
    return read_scanqa_questions(reference), "scanqa", [reference]
