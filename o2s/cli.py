"""The command line: `o2s COMMAND`, each command a plain function.

Modules that load torch or transformers are imported inside the commands, so that `o2s --help`
answers at once.
"""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from o2s.cli_demo import EXAMPLE as DEMO_EXAMPLE
from o2s.cli_demo import demo
from o2s.cli_eval import app as evaluation
from o2s.cli_find import EXAMPLE as FIND_EXAMPLE
from o2s.cli_find import find
from o2s.cli_furniture import EXAMPLE as FURNITURE_EXAMPLE
from o2s.cli_furniture import furniture
from o2s.cli_instruct import EXAMPLE, instruct
from o2s.cli_prepare import prepare
from o2s.cli_rooms import rooms
from o2s.cli_routes import EXAMPLE as ROUTES_EXAMPLE
from o2s.cli_routes import routes
from o2s.cli_steps import caption_all, look_at, see
from o2s.cli_train import app as training
from o2s.errors import InputError
from o2s.loading import (
    ModelSource,
    find_device,
    load_encoder,
    load_encoder_config,
    set_threads,
)
from o2s.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    DetectorName,
    DeviceOption,
    JsonOption,
    LanguageModelOption,
    ModelOption,
    PictureOption,
    ScanArgument,
    SetOption,
    ThreadsOption,
    TrustOption,
    Unit,
    UnitOption,
    Up,
    UpOption,
    check_picture,
)
from o2s.terminal import (
    ConsoleHandler,
    answer_json,
    boxes_json,
    draw,
    each,
    out,
    print_boxes,
    print_error,
    print_json,
    progress_bar,
    read_scan,
    say_empty,
    say_untrained,
    step,
)

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="o2s",
    help="Scans in, answers out: let a language model see a 3D indoor scene.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(prepare, name="prepare")
app.add_typer(training, name="train")
app.add_typer(evaluation, name="eval")
app.command(epilog=FURNITURE_EXAMPLE)(furniture)
app.command(epilog="Example: o2s rooms --furniture sweethome3d-furniture --scenes 20 --out rooms")(
    rooms
)
app.command(epilog=EXAMPLE)(instruct)
app.command(epilog=FIND_EXAMPLE)(find)
app.command(epilog=ROUTES_EXAMPLE)(routes)
app.command(epilog=DEMO_EXAMPLE)(demo)


@app.command(epilog="Example: o2s ask room.ply 'How many chairs are there?'")
def ask(
    scan: ScanArgument,
    questions: Annotated[
        list[str],
        typer.Argument(help="What to ask about it; several are asked as one conversation."),
    ],
    json_output: JsonOption = False,
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    up: UpOption = Up.auto,
    unit: UnitOption = Unit.auto,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 64,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Say what each question is taken to speak of; and, of one question, how long the "
            "first word and the others took.",
        ),
    ] = False,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Answer a question about a scan, or several, each after what was said before."""
    for question in questions:
        if not question.strip():
            raise InputError("a question is empty; expected words")
    set_threads(threads)
    with progress_bar() as progress:
        source = ModelSource(model, config, override or [], language_model, trust_pickle)
        scene, answerer, look = see(progress, scan, up, unit, source, device)
        from o2s.llm.answering import TokenClock  # after `see`, which loads it and says so

        with step(progress, "answering"):
            clock = TokenClock()
            if len(questions) == 1:
                (question,) = questions
                answer = answerer.ask(look, question, max_new_tokens=max_new_tokens, clock=clock)
                answers = [answer]
            else:
                answers = answerer.converse(look, questions, max_new_tokens=max_new_tokens)
    if verbose:
        for question, spoken in zip(
            questions, answerer.spoken_of(look, questions) or [], strict=False
        ):
            logger.info("%s speaks of: %s", question, spoken)
        if len(questions) == 1:
            logger.info("%s", clock)
    say_untrained(answerer.untrained)
    say_empty(scene, look.boxes)
    if json_output:
        said = [answer_json(scan, answer, len(look.boxes)) for answer in answers]
        print_json(said[0] if len(said) == 1 else {"answers": said})
    else:
        for answer in answers:
            out.print(answer.text, markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: o2s caption room.ply --picture room.png")
def caption(
    scan: ScanArgument,
    json_output: JsonOption = False,
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    up: UpOption = Up.auto,
    unit: UnitOption = Unit.auto,
    picture: PictureOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest caption.")] = 32,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Describe every object of a scan: box, label, score and sentence."""
    check_picture(picture)
    set_threads(threads)
    with progress_bar() as progress:
        source = ModelSource(model, config, override or [], language_model, trust_pickle)
        scene, answerer, look = see(progress, scan, up, unit, source, device)
        captions = caption_all(progress, answerer, look, max_new_tokens)
    say_untrained(answerer.untrained)
    say_empty(scene, look.boxes)
    if json_output:
        print_json(boxes_json(scan, scene, look.boxes, captions))
    else:
        print_boxes(scene, look.boxes, captions)
    if picture is not None:
        draw(scene, look.boxes, picture, captions, answerer.untrained)


@app.command(epilog="Example: o2s detect room.ply --json > boxes.json")
def detect(
    scan: ScanArgument,
    detector: Annotated[
        DetectorName | None, typer.Option(help="Which detector, instead of the config's.")
    ] = None,
    json_output: JsonOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    up: UpOption = Up.auto,
    unit: UnitOption = Unit.auto,
    picture: PictureOption = None,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Find the objects of a scan: boxes, and classes where the detector knows them."""
    from o2s.encoder import build_detector

    check_picture(picture)
    set_threads(threads)
    overrides = [*(override or [])]
    if detector is not None:
        overrides.append(f"encoder.detector={detector}")
    encoder_config = load_encoder_config(ModelSource(None, config, overrides))
    module = build_detector(encoder_config, trust_pickle=trust_pickle).to(find_device(device))
    with progress_bar() as progress:
        scene = read_scan(progress, scan, up, unit)
        with step(progress, "finding objects"):
            boxes = module(scene).best(encoder_config.max_regions)
    say_untrained(["detector"] if module.needs_training else [])
    say_empty(scene, boxes)
    if json_output:
        print_json(boxes_json(scan, scene, boxes))
    else:
        print_boxes(scene, boxes)
    if picture is not None:
        draw(scene, boxes, picture)


@app.command(epilog="Example: o2s encode rooms/*.ply --out encoded")
def encode(
    scans: Annotated[list[Path], typer.Argument(help="Scan files.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where to write <name>.safetensors.")],
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    up: UpOption = Up.auto,
    unit: UnitOption = Unit.auto,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Write scene tokens and region features, one .safetensors a scan.

    Scans that have been encoded already, with the same encoder, are left alone: a command that
    was interrupted can be run again and does the rest.
    """
    from o2s import encoded
    from o2s.encoder import part_digests

    if out_folder.is_file():
        raise InputError(f"--out {out_folder}: is a file; expected a folder")
    set_threads(threads)
    encoded.check_names(scans, out_folder)
    source = ModelSource(model, config, override or [], trust_pickle=trust_pickle)
    encoder, untrained = load_encoder(source)
    encoder.to(find_device(device))
    parts = part_digests(encoder.state_dict())
    done = failed = 0
    out_folder.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        for scan in each(progress, "encoding", scans):
            try:
                made_from = encoded.fingerprint(scan, encoder, up=up.value, unit=unit.value)
                target = out_folder / f"{scan.stem}.safetensors"
                if encoded.is_current(target, made_from):
                    continue
                scene = read_scan(progress, scan, up, unit)
                tokens = encoder.gather([look_at(progress, encoder, scene)])[0]
                facts = {"untrained": untrained, "made_from": made_from, "parts": parts}
                encoded.write(target, scene, tokens, **facts)
                done += 1
            except InputError as error:
                failed += 1
                print_error(error)
    say_untrained(untrained)
    as_before = len(scans) - done - failed
    summary = f"{done} encoded, {as_before} already there, in {out_folder}"
    out.print(summary, markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise InputError(f"{failed} of {len(scans)} scans could not be encoded (named above)")


@app.command(epilog="Example: o2s weights smollm2-135m")
def weights(
    name: Annotated[str | None, typer.Argument(help="Fetch these, or verify if fetched.")] = None,
) -> None:
    """List the pretrained weights; fetch and verify those that are named."""
    from o2s import weights as store

    if name is None:
        for entry in store.WEIGHTS.values():
            state = f"fetched, in {entry.folder}" if entry.fetched else "not fetched"
            out.print(entry.name, style="bold", highlight=False)
            for line in (entry.what, f"{entry.licence}, from the {entry.source}", state):
                out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        return
    with progress_bar() as progress:
        if not store.named(name).fetched:
            with step(progress, f"fetching {name}, once"):
                store.fetch(name)
        with step(progress, f"verifying {name}"):
            broken = store.verify(name)
    folder = store.named(name).folder
    if broken:
        raise InputError(
            f"{folder}: {', '.join(broken)} changed since fetched; remove the folder and run "
            f"`o2s weights {name}` again"
        )
    out.print(f"{name}: verified, in {folder}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: mistakes of the user's are one line and exit code 2."""
    logging.getLogger("o2s").handlers = [ConsoleHandler()]
    logging.getLogger("o2s").setLevel(logging.INFO)
    warnings.simplefilter("ignore", FutureWarning)  # what libraries tell each other
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large pages, fewer faults
    try:
        app()
    except InputError as error:
        print_error(error)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        print_error(f"{error.filename or 'writing'}: {error.strerror}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
