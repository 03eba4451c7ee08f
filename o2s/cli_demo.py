"""The command `o2s demo`: the main job on the scans that come with o2s."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from o2s.cli_steps import caption_all, look_at
from o2s.files import write_json
from o2s.loading import ModelSource, load_answerer, set_threads
from o2s.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    DeviceOption,
    LanguageModelOption,
    ModelOption,
    SetOption,
    ThreadsOption,
    TrustOption,
    Unit,
    Up,
)
from o2s.terminal import (
    answer_json,
    boxes_json,
    draw,
    out,
    print_boxes,
    progress_bar,
    read_scan,
    say_untrained,
    step,
)

if TYPE_CHECKING:
    from o2s.llm.answering import SceneAnswerer

EXAMPLE = "Example: o2s demo --out demo"

# What is asked of each scan, and what the scan is.
QUESTIONS: Mapping[str, Sequence[str]] = {
    "simulated_bedroom": (
        "What kind of room is this?",
        "How many windows are there in the room?",
        "What color is the dresser?",
        "What is the lamp standing on?",
    ),
    "kinect_office": (
        "Is there a bookshelf in this room?",
        "What color is the bookshelf?",
        "How many beds are there in the room?",
    ),
}
SAID = {
    "simulated_bedroom": "a simulated test room, its furniture in no room that was trained on",
    "kinect_office": "a real Kinect frame of an office bookcase",
}


def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="The folder for the results.")],
    model: ModelOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    override: SetOption = None,
    language_model: LanguageModelOption = None,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Run the main job on the scans that come with o2s.

    Writes for each, in a folder of its name, objects.json (boxes and captions), answers.json,
    tokens.safetensors and scene.png.
    """
    set_threads(threads)
    with progress_bar() as progress:
        with step(progress, "loading the language model"):
            source = ModelSource(model, config, override or [], language_model, trust_pickle)
            answerer = load_answerer(source, device)
        for name in QUESTIONS:
            _show(progress, answerer, name, out_folder / name)
    say_untrained(answerer.untrained)
    names = "objects.json, answers.json, tokens.safetensors and scene.png of each scan"
    out.print(f"{names} are in {out_folder}", markup=False, highlight=False, soft_wrap=True)


def _show(progress: Progress, answerer: "SceneAnswerer", name: str, folder: Path) -> None:
    """All of one scan."""
    from o2s import encoded
    from o2s.encoder import part_digests
    from o2s.io import bundled_scan
    from o2s.llm.saved import untrained_for_tokens

    scan, questions = bundled_scan(name), QUESTIONS[name]
    folder.mkdir(parents=True, exist_ok=True)
    scene = read_scan(progress, scan, Up.auto, Unit.auto)
    look = look_at(progress, answerer.model.encoder, scene)
    with step(progress, "answering"):
        answers = answerer.ask_batch([look] * len(questions), questions)
    captions = caption_all(progress, answerer, look, 24)
    encoded.write(
        folder / "tokens.safetensors",
        scene,
        answerer.tokens(look),
        untrained=untrained_for_tokens(answerer.model.config),
        made_from=encoded.fingerprint(scan, answerer.model.encoder, up="auto", unit="auto"),
        parts=part_digests(answerer.model.encoder.state_dict()),
    )
    untrained = {"untrained": answerer.untrained}
    write_json(folder / "objects.json", boxes_json(scan, scene, look.boxes, captions) | untrained)
    said = [answer_json(scan, answer, len(look.boxes)) for answer in answers]
    write_json(folder / "answers.json", {"answers": said, **untrained})
    draw(scene, look.boxes, folder / "scene.png", captions, answerer.untrained)
    out.print(f"{name}: {SAID[name]}", highlight=False, soft_wrap=True)
    print_boxes(scene, look.boxes, captions)
    table = Table("question", "answer", title=f"answers about {name}")
    for answer in answers:
        table.add_row(answer.question, Text(answer.text))
    out.print(table)
