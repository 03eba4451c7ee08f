"""Point-BERT on one CPU thread, ours against ULIP's.

    python benchmarks/point_bert.py --ulip CLONE

CLONE is a folder with salesforce/ULIP. Its own module and ours get the same random weights and
regions, 4 at a time, of the sizes of ULIP-1 and ULIP-2. Features are compared first, and gradients
in float64 on one region; the script exits with 1 if they differ. Then both run in turns. Times are
seconds of processor time, which a busy machine disturbs less than the clock on the wall; `ratio` is
theirs over ours. Neither has stochastic depth.

Further tables: objects a second of the `tiny` model, and where our time goes. `floor` is the time
that the multiply-adds alone would take at the speed of a large float32 matrix product here.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from point_bert_peer import load_ulip, ours_with_weights_of
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from o2s.ops.linear import linear
from o2s.point_bert import SIZES, PointBert

REGIONS = 4
POINTS = {"ulip1": 8192, "ulip2": 10_000, "tiny": 1024}
FEATURES, GRADIENTS = 1e-5, 1e-7  # the largest differences that count as equal


def main() -> int:
    parser = argparse.ArgumentParser(description="Point-BERT compared with ULIP's on one thread")
    parser.add_argument("--ulip", type=Path, help="a clone of salesforce/ULIP")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True  # the clone stays untouched
    console = Console(width=120)
    equal = True
    if options.ulip is None:
        console.print("ULIP is left out, there is no --ulip")
    else:
        equal = compare(console, options.ulip.resolve(), options.rounds)
    speed_of_tiny(console, options.rounds)
    where_time_goes(console, options.rounds)
    return int(not equal)


def compare(console: Console, clone: Path, rounds: int) -> bool:
    """Print how theirs and ours differ and how long they take; whether they are equal."""
    differences = Table("size", "largest feature", "largest |difference|", "of gradients, relative")
    minimum = ("their min s", "our min s", "ratio")
    median = ("their median s", "our median s", "ratio")
    times = Table("size", "pass", *minimum, *median, "their multiply-adds", "our")
    equal = True
    for size in ("ulip1", "ulip2"):
        torch.manual_seed(0)
        theirs = load_ulip(clone, SIZES[size])
        # Their sampler never picks a point near the origin.
        ours = ours_with_weights_of(theirs, replace(SIZES[size], skip_near_origin=True))
        points = make_regions(size, REGIONS)
        largest, feature, gradient = differ(theirs, ours, points)
        equal &= feature <= FEATURES and gradient <= GRADIENTS
        differences.add_row(size, f"{largest:.1f}", f"{feature:.1e}", f"{gradient:.1e}")
        for name, run in PASSES.items():
            found = in_turns(partial(run, theirs, points), partial(run, ours, points), rounds)
            cells = []
            for summary in (min, statistics.median):
                a, b = map(summary, found)
                cells += [f"{a:.2f}", f"{b:.2f}", f"{a / b:.2f}"]
            counts = (
                f"{multiply_adds(run, model, points)[''] / 1e9:.0f} G" for model in (theirs, ours)
            )
            times.add_row(size, name, *cells, *counts)
    console.print(differences, times)
    return equal


def differ(theirs: nn.Module, ours: PointBert, points: Tensor) -> tuple[float, float, float]:
    """Largest feature, largest difference of features and of gradients.

    The gradients are those of one region in float64, because rounding decides which of two nearly
    equal neighbours is the maximum. Each parameter's difference is relative to its largest entry,
    or to a thousandth of the largest of all: the gradient of a bias before a normalisation is 0.
    """
    expected, found = forward(theirs, points), forward(ours, points)
    gradients = []
    for model in (theirs, ours):
        training(model.double(), points[:1].double())
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
        model.float().zero_grad(set_to_none=True)
    a, b = gradients
    if a.keys() != b.keys():
        raise ValueError(f"gradients of other parameters: {sorted(a.keys() ^ b.keys())}")
    least = 1e-3 * max(float(value.abs().max()) for value in a.values())
    gradient = max(
        float((a[k] - b[k]).abs().max()) / max(float(a[k].abs().max()), least) for k in a
    )
    return float(expected.abs().max()), float((expected - found).abs().max()), gradient


@torch.no_grad()
def forward(model: nn.Module, points: Tensor) -> Tensor:
    return model.eval()(points)


def training(model: nn.Module, points: Tensor) -> None:
    """Forward and backward pass; each call makes its gradients anew."""
    model.train().zero_grad(set_to_none=True)
    model(points).square().mean().backward()


PASSES: dict[str, Callable[[Any, Tensor], Any]] = {
    "forward": forward,
    "forward + backward": training,
}


def in_turns(
    theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of each, after a first round that does not count."""
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(rounds + 1)][1:]
    return [a for a, _ in pairs], [b for _, b in pairs]


def speed_of_tiny(console: Console, rounds: int) -> None:
    table = Table("tiny, 64 regions at a time", "min ms", "objects a second")
    torch.manual_seed(0)
    model, points = PointBert(SIZES["tiny"]), make_regions("tiny", 64)
    for name, run in PASSES.items():
        run(model, points)
        best = min(seconds(partial(run, model, points)) for _ in range(rounds))
        table.add_row(name, f"{best * 1e3:.0f}", f"{64 / best:.0f}")
    console.print(table)


def where_time_goes(console: Console, rounds: int) -> None:
    """Stages of our forward pass, and the whole of both passes, beside their arithmetic."""
    speed = product_speed()
    columns = ("ms", "share", "G multiply-adds", "floor ms", "over the floor")
    table = Table(
        "size", "stage", *columns, title=f"floor: {speed / 1e9:.0f} G multiply-adds a second"
    )
    for size in POINTS:
        torch.manual_seed(0)
        model, points = PointBert(SIZES[size]), make_regions(size, REGIONS)
        rows: list[tuple[str, float, float, float]] = []
        for name, run in PASSES.items():
            counts = multiply_adds(run, model, points)
            whole = min(seconds(partial(run, model, points)) for _ in range(rounds))
            if run is forward:
                stages = min((stage_seconds(model, points) for _ in range(rounds)), key=sum)
                work = (0.0, counts["encoder"], counts["blocks"])
                work += (counts[""] - sum(work),)
                names = ("grouping", "mini-PointNet", "transformer blocks", "rest")
                total = sum(stages)
                rows += [(n, s, s / total, w) for n, s, w in zip(names, stages, work, strict=True)]
            rows.append((name, whole, 1.0, counts[""]))
        for stage, taken, share, work in rows:
            floor = work / speed
            over = f"{taken / floor:.2f}" if floor > taken / 50 else ""
            cells = (
                f"{taken * 1e3:.0f}",
                f"{share:.0%}",
                f"{work / 1e9:.2f}",
                f"{floor * 1e3:.0f}",
            )
            table.add_row(size, stage, *cells, over)
        table.add_section()
    console.print(table)


def stage_seconds(model: PointBert, points: Tensor) -> tuple[float, float, float, float]:
    """Of a forward pass: grouping, mini-PointNet, transformer blocks, and all the rest."""
    at: list[float] = []

    def note(*_: Any) -> None:
        at.append(time.process_time())

    parts = (model.encoder, model.blocks)
    hooks = [part.register_forward_pre_hook(note) for part in parts]
    hooks += [part.register_forward_hook(note) for part in parts]
    note()
    forward(model, points)
    note()
    for hook in hooks:
        hook.remove()
    begun, grouped, encoded, embedded, transformed, done = at
    rest = (embedded - encoded) + (done - transformed)
    return grouped - begun, encoded - grouped, transformed - embedded, rest


def multiply_adds(
    run: Callable[[Any, Tensor], Any], model: nn.Module, points: Tensor
) -> dict[str, float]:
    """In matrix products, convolutions and attention: of each child of the model, "" for all."""
    with FlopCounterMode(display=False, custom_mapping=_FLOPS) as counter:
        run(model, points)
    found = {name: sum(counts.values()) / 2 for name, counts in counter.get_flop_counts().items()}
    whole = type(model).__name__
    return {name.removeprefix(whole).removeprefix("."): n for name, n in found.items()} | {
        "": found["Global"]
    }


# The counter does not know oneDNN's layers, nor attention on the CPU. Going back through attention
# takes five products, among them once more the attention weights, where going forward takes two.
_FLOPS: dict[Any, Any] = {
    torch.ops.mkldnn._linear_pointwise: (lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, *_, **__: 4 * math.prod(q) * k[2]
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda _, q, k, *__, **___: 10 * math.prod(q) * k[2]
    ),
}


def product_speed(size: int = 2048) -> float:
    """Multiply-adds a second of the best of ten float32 matrix products."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return size**3 / min(seconds(lambda: linear(a, b)) for _ in range(10))


def seconds(call: Callable[[], Any]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def make_regions(size: str, count: int) -> Tensor:
    """Regions [R, P, C] in the unit ball, denser at its surface; other channels in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    xyz = torch.randn(count, POINTS[size], 3, generator=generator)
    reach = torch.rand(count, POINTS[size], 1, generator=generator).sqrt()
    reach[:, 0] = 1
    more = torch.rand(count, POINTS[size], SIZES[size].channels - 3, generator=generator)
    return torch.cat([xyz / xyz.norm(dim=-1, keepdim=True) * reach, more], dim=-1)


if __name__ == "__main__":
    sys.exit(main())
