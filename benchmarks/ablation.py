"""What each part of the instruction-tuned model is worth: the same short training without it.

    torchrun --nproc-per-node 2 benchmarks/ablation.py --instructions instructions \\
        --encoded encoded --out ablation --steps 100 --seeds 0 1 --variant moe lora

Every variant is trained on the same records in the same order, for the same number of steps, and
scored on the same records of val: per task the share of answers that are said exactly, and the loss
of descriptions. "moe" is the recipe `scene_lm_tiny`; the others change one thing of it:

    lora        one LoRA with as many parameters as all experts have, instead of LoRA-MoE
    no-focus    what a question speaks of is not read again
    unbegun     object tokens and focus begin at random, not in language
    octavius    16 tokens that queries gather, instead of object tokens
    both        queries and object tokens

"moe" against "lora" is Octavius' claim (arXiv 2311.02684, section 4): tasks learned together
interfere less with routed experts. A run that was stopped goes on when it is started again.
"""

import argparse
import contextlib
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from o2s import config
from o2s.llm.lora_moe import LoraMoeConfig
from o2s.train.run_folder import leave_together
from o2s.train.scene_lm_recipe import InstructionRecipe
from o2s.train.scene_lm_run import SCORES, train_scene_lm

VARIANTS = ("moe", "lora", "no-focus", "unbegun", "octavius", "both")


def recipe_of(variant: str, arguments: argparse.Namespace, seed: int) -> InstructionRecipe:
    """The recipe of one run."""
    base = config.load(arguments.config, InstructionRecipe)
    steps = arguments.steps
    base = replace(
        base,
        data=replace(
            base.data,
            instructions=str(arguments.instructions),
            encoded=str(arguments.encoded),
            val_records=arguments.val_records,
        ),
        optimisation=replace(
            base.optimisation,
            steps=steps,
            every=steps,
            batch_size=arguments.batch_size or base.optimisation.batch_size,
            seed=seed,
        ),
        model=replace(base.model, seed=seed),
    )
    model, experts = base.model, base.model.lora_moe
    if variant == "lora" and experts is not None:
        # alpha / r stays, so that the scale does.
        rank = experts.r * experts.num_experts
        alpha = experts.lora_alpha / experts.r * rank
        lora = LoraMoeConfig(num_experts=1, top_k=1, r=rank, lora_alpha=alpha)
        model = replace(model, lora_moe=lora)
    elif variant == "no-focus":
        model = replace(model, focus=False)
    elif variant == "octavius":
        model = replace(model, scene_tokens="octavius", focus=False)
    elif variant == "both":
        model = replace(model, scene_tokens="both")
    return replace(base, model=model, begin_in_language=variant != "unbegun")


@contextlib.contextmanager
def step(what: str) -> Iterator[Callable[[int, int], None]]:
    """No line of progress: the losses are in the run's TensorBoard files."""
    yield lambda done, total: None


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instructions", type=Path, required=True)
    parser.add_argument("--encoded", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="scene_lm_tiny")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--batch-size", type=int, help="records in each process; the recipe's, else"
    )
    parser.add_argument("--val-records", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first = int(os.environ.get("RANK", "0")) == 0
    found: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds:
        for variant in arguments.variant:
            folder = arguments.out / f"{variant}-{seed}"
            if not (folder / SCORES).exists():
                train_scene_lm(recipe_of(variant, arguments, seed), folder, step)
            if first:  # which alone has written them
                scores = json.loads((folder / SCORES).read_bytes())["val"]
                found.setdefault(variant, []).append(scores)
                print(variant, seed, {name: round(value, 3) for name, value in scores.items()})
    if first:
        Console().print(table_of(found, arguments.steps))
    leave_together()


def table_of(found: dict[str, list[dict[str, float]]], steps: int) -> Table:
    """Means over seeds, and how far the seeds are apart."""
    names = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    table = Table("variant", "seeds", *names, title=f"val after {steps} steps")
    for variant, runs in found.items():
        cells = []
        for name in names:
            values = [run[name] for run in runs if name in run]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
        table.add_row(variant, str(len(runs)), *cells)
    return table


if __name__ == "__main__":
    main()
