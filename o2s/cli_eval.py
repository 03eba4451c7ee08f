"""The commands `o2s eval`: scores of answers, captions, boxes, classes and images."""

import typer

from o2s import (
    cli_eval_captions,
    cli_eval_detection,
    cli_eval_images,
    cli_eval_naming,
    cli_eval_probe,
    cli_eval_qa,
    cli_eval_zero_shot,
)

app = typer.Typer(
    help="Score predictions, or run a model and score it, as the papers do.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command(epilog=cli_eval_qa.EXAMPLE)(cli_eval_qa.qa)
app.command(epilog=cli_eval_captions.EXAMPLE)(cli_eval_captions.captions)
app.command(epilog=cli_eval_naming.EXAMPLE)(cli_eval_naming.naming)
app.command(epilog=cli_eval_detection.EXAMPLE)(cli_eval_detection.detection)
app.command("zero-shot", epilog=cli_eval_zero_shot.EXAMPLE)(cli_eval_zero_shot.zero_shot)
app.command(epilog=cli_eval_probe.EXAMPLE)(cli_eval_probe.probe)
app.command(epilog=cli_eval_images.EXAMPLE)(cli_eval_images.images)
