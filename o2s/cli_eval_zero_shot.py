"""The command `o2s eval zero-shot`: objects named by the nearest class name, scored."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from o2s.cli_eval_shared import check_folder
from o2s.errors import InputError
from o2s.options import (
    ENCODER_CONFIG,
    ConfigOption,
    DeviceOption,
    DrawsOption,
    JsonOption,
    SetOption,
    TextKind,
    TextKindOption,
    TextTokenizerOption,
    ThreadsOption,
    TrustOption,
    check_text_options,
)
from o2s.terminal import progress_bar, step

if TYPE_CHECKING:
    from rich.progress import Progress

    from o2s.datasets.triplets import TripletSource
    from o2s.encoder import SceneEncoder
    from o2s.evaluate.object_features import AnnotatedScans, Cut, ObjectFeatures
    from o2s.evaluate.shape_features import Sampling
    from o2s.evaluate.text_embeddings import TextEmbeddings
    from o2s.loading import ModelSource

EXAMPLE = "Example: o2s eval zero-shot --scenes prepared --split test --out scores"
MINILM = "minilm-l6-v2"


class CutName(StrEnum):
    """What belongs to an object: all points in its box, or those labelled as the object."""

    boxes = "boxes"
    instances = "instances"


class LayoutName(StrEnum):
    """How whole shapes lie on the disk."""

    modelnet40 = "modelnet40"
    modelnet10 = "modelnet10"
    objaverse_lvis = "objaverse-lvis"
    scanobjectnn = "scanobjectnn"
    furniture = "furniture"


class SamplingName(StrEnum):
    """Which points are taken of a shape that has more."""

    random = "random"
    farthest = "farthest"


class Resampled(StrEnum):
    """What the bootstrap draws."""

    objects = "objects"
    scenes = "scenes"


def zero_shot(
    features: Annotated[
        Path | None,
        typer.Argument(help="A .safetensors file with `features` [N, D] and `targets` [N]."),
    ] = None,
    scenes: Annotated[
        Path | None, typer.Option(help="Or a folder that `o2s prepare` wrote: embed its objects.")
    ] = None,
    shapes: Annotated[
        Path | None, typer.Option(help="Or whole shapes: a folder or file in a --layout.")
    ] = None,
    layout: Annotated[
        LayoutName | None, typer.Option(help="With --shapes: how they lie on the disk.")
    ] = None,
    sampling: Annotated[
        SamplingName,
        typer.Option(help="With --shapes: points drawn by a seed, or the farthest as in ULIP."),
    ] = SamplingName.random,
    model: Annotated[
        Path | None, typer.Option(help="With --scenes or --shapes: the folder of a saved model.")
    ] = None,
    config: ConfigOption = ENCODER_CONFIG,
    overrides: SetOption = None,
    cut: Annotated[
        CutName, typer.Option(help="With --scenes: cut objects out by boxes or by labels.")
    ] = CutName.boxes,
    split: Annotated[
        str | None,
        typer.Option(
            help="With --scenes or --shapes: only this split; of shapes, test by default."
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Embedded classes: a .safetensors file, as --write-text writes it."),
    ] = None,
    text_model: Annotated[
        str | None,
        typer.Option(
            help="Or a folder, file or hub name of a text model, to embed --classes. MiniLM, "
            "which the region encoder of o2s was trained with, if neither is given."
        ),
    ] = None,
    text_kind: TextKindOption = None,
    text_tokenizer: TextTokenizerOption = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Classes to choose from: a file, one name a line or a JSON list, or furniture, "
            "what the region encoder of o2s knows. With --scenes, names of objects, or a class "
            "list of the scans, such as scannet20. If not given, those of --text or furniture with "
            "--scenes, and those of the shapes with --shapes."
        ),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="A JSON or YAML list of prompts, each with one {}.")
    ] = None,
    template_set: Annotated[
        str | None, typer.Option(help="Which list of --templates, where it holds several.")
    ] = None,
    write_text: Annotated[
        Path | None, typer.Option(help="Keep the embedded classes in this .safetensors file.")
    ] = None,
    resample: Annotated[
        Resampled, typer.Option(help="What the intervals draw: objects one by one, or scenes.")
    ] = Resampled.objects,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap's draws.")] = 0,
    draws: DrawsOption = 1000,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="A folder for scores.json, scores.md and confusion.png."),
    ] = None,
    json_output: JsonOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    trust_pickle: TrustOption = False,
) -> None:
    """Score zero-shot classification: the class whose embedded name is nearest wins.

    With --out the embedded objects of --scenes or --shapes are kept in OUT/features.safetensors,
    which is an input of this command, and piece by piece in OUT/features, so that a killed run goes
    on.
    """
    from o2s.datasets.preparation import read_index
    from o2s.evaluate.object_features import (
        FURNITURE,
        AnnotatedScans,
        class_names,
        read_features,
        write_features,
    )
    from o2s.evaluate.report import file_facts, write_report
    from o2s.evaluate.text_embeddings import write_text_embeddings
    from o2s.evaluate.zero_shot import score_zero_shot
    from o2s.files import alone_in, clear_leftovers
    from o2s.loading import ModelSource, set_threads
    from o2s.terminal_report import print_report
    from o2s.view.confusion import draw_confusion

    _require_one({"FEATURES": features, "--scenes": scenes, "--shapes": shapes})
    check_text_options(text_model, text_kind, text_tokenizer)
    if features is not None or text is not None:
        _require_one({"--text": text, "--text-model": text_model})
    elif text_model is None:
        text_model = MINILM
    if text is not None and (templates or template_set):
        raise InputError("--templates and --template-set go with --text-model, not with --text")
    ours = model or overrides or config != ENCODER_CONFIG
    if features is not None and (ours or split or cut is CutName.instances):
        raise InputError(
            "--model, --config, --set, --split and --cut go with --scenes, not with FEATURES; all "
            "but --cut go with --shapes as well"
        )
    if shapes is not None and (cut is CutName.instances or resample is Resampled.scenes):
        raise InputError("--cut and --resample scenes go with scans: --shapes has no scenes")
    if (shapes is None) != (layout is None):
        raise InputError(
            f"give --shapes and --layout together; layouts are {', '.join(LayoutName)}"
        )
    if shapes is None and sampling is SamplingName.farthest:
        raise InputError("--sampling goes with --shapes")
    if template_set is not None and templates is None:
        raise InputError("--template-set chooses among the lists of --templates: give that as well")
    if out_folder is not None:
        check_folder(out_folder)
    if write_text is not None and write_text.is_dir():
        raise InputError(f"--write-text {write_text}: is a folder; expected the name of a file")
    source = ModelSource(model, config, overrides or [], trust_pickle=trust_pickle)
    set_threads(threads)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        if out_folder is not None:
            out_folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_in(out_folder))
            clear_leftovers(out_folder)
        objects, scans, found = None, None, None
        words = None
        if scenes is not None:
            if text is not None and classes is None:
                read_index(scenes)  # what is wrong with it is said first
                words = _read_text(text)
            known = None if words is None else words.classes
            scans = AnnotatedScans.find(scenes, classes or FURNITURE, split, known)
            candidates = scans.classes
        else:
            candidates = None if classes is None else class_names(classes)
        if features is not None:
            objects = read_features(features)
        if shapes is not None:
            assert layout is not None
            found = _open_shapes(progress, layout, shapes, split or "test")
            candidates = candidates or found.classes
        named = candidates or (None if objects is None else objects.classes)
        if words is None and text is not None:
            words = _read_text(text)
        if words is None:
            assert text_model is not None
            prompts = _prompts(templates, template_set)
            kind = (text_kind or TextKind.clip).value
            tower = {"kind": kind, "tokenizer": text_tokenizer, "trust_pickle": trust_pickle}
            words = _embed_text(progress, named, prompts, text_model, device, **tower)
        if write_text is not None:
            write_text_embeddings(words, write_text)
        cache = None if out_folder is None else out_folder / "features"
        if scans is not None:
            objects = _embed_scans(
                progress, scans, words, source, cut=cut.value, device=device, cache=cache
            )
        if found is not None:
            assert shapes is not None
            assert layout is not None
            assert candidates is not None
            objects = _embed_shapes(
                progress,
                found,
                words.select(candidates),
                source,
                sampling=sampling.value,
                device=device,
                cache=cache,
                path=shapes,
                facts={"layout": layout.value, "split": split or "test"},
            )
        assert objects is not None
        if features is None and out_folder is not None:
            write_features(objects, out_folder / "features.safetensors")
        with step(progress, "scoring"):
            report, confusion = score_zero_shot(
                objects,
                words,
                candidates=candidates,
                resample=resample.value,
                seed=seed,
                draws=draws,
            )
            read = [path for path in (features, text, templates) if path is not None]
            files = {"files": [file_facts(path) for path in read]}
            report = replace(report, made_from={**report.made_from, **files})
        if out_folder is not None:
            names = candidates or objects.classes or words.classes
            title = f"Zero-shot classification of {len(objects.targets)} objects"
            title += " (untrained encoder)" if objects.untrained else ""
            draw_confusion(confusion, names, out_folder / "confusion.png", title=title)
            write_report(report, out_folder)
    print_report(report, json_output=json_output)


def _embed_scans(
    progress: "Progress",
    scans: "AnnotatedScans",
    words: "TextEmbeddings",
    source: "ModelSource",
    *,
    cut: "Cut",
    device: str | None,
    cache: Path | None,
) -> "ObjectFeatures":
    from o2s.evaluate.object_features import embed_scans

    words.select(scans.classes)  # what does not fit is said before the long work
    encoder, untrained = _load_encoder(source, words, device)
    with step(progress, "embedding objects") as update:
        return embed_scans(
            scans,
            encoder,
            cut=cut,
            untrained=untrained,
            facts=_model_facts(source),
            cache=cache,
            progress=update,
        )


def _open_shapes(
    progress: "Progress", layout: LayoutName, path: Path, split: str
) -> "TripletSource":
    from o2s.evaluate.shape_features import open_shapes

    with step(progress, "reading shapes") as update:
        return open_shapes(layout.value, path, split, progress=update)


def _embed_shapes(
    progress: "Progress",
    shapes: "TripletSource",
    words: "TextEmbeddings",
    source: "ModelSource",
    *,
    sampling: "Sampling",
    device: str | None,
    cache: Path | None,
    path: Path,
    facts: Mapping[str, str],
) -> "ObjectFeatures":
    from o2s.evaluate.shape_features import embed_shapes

    encoder, untrained = _load_encoder(source, words, device)
    with step(progress, "embedding shapes") as update:
        return embed_shapes(
            shapes,
            encoder,
            name=str(path),
            classes=words.classes,
            sampling=sampling,
            untrained=untrained,
            facts={**facts, **_model_facts(source)},
            cache=cache,
            progress=update,
        )


def _load_encoder(
    source: "ModelSource", words: "TextEmbeddings", device: str | None
) -> tuple["SceneEncoder", list[str]]:
    from o2s.evaluate.zero_shot import require_same_width
    from o2s.loading import find_device, load_encoder

    encoder, untrained = load_encoder(source)
    encoder.to(find_device(device))
    require_same_width(encoder.point_bert.config.embedding, "the region encoder", words)
    return encoder, untrained


def _model_facts(source: "ModelSource") -> dict[str, Any]:
    return {
        "model": source.config if source.folder is None else source.folder.name,
        "overrides": list(source.overrides),
    }


def _read_text(path: Path) -> "TextEmbeddings":
    from o2s.evaluate.text_embeddings import read_text_embeddings

    return read_text_embeddings(path)


def _prompts(templates: Path | None, template_set: str | None) -> Sequence[str]:
    from o2s.evaluate.text_embeddings import TEMPLATES, read_templates

    return read_templates(templates or TEMPLATES, template_set)


def _embed_text(
    progress: "Progress",
    classes: Sequence[str] | None,
    prompts: Sequence[str],
    model: str,
    device: str | None,
    **tower: Any,
) -> "TextEmbeddings":
    from transformers.utils import logging as transformers_logging

    from o2s.evaluate.text_embeddings import embed_classes
    from o2s.loading import find_device

    if classes is None:
        raise InputError("--text-model needs --classes, a file of class names to embed")
    transformers_logging.disable_progress_bar()
    with step(progress, "embedding class names") as update:
        found = find_device(device)
        return embed_classes(classes, prompts, model, device=found, progress=update, **tower)


def _require_one(given: Mapping[str, object]) -> None:
    if sum(value is not None for value in given.values()) != 1:
        raise InputError(f"give either {' or '.join(given)}, and only one of them")
