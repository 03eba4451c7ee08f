"""LoRA-MoE on one CPU thread against PEFT's LoRA: `python benchmarks/lora_moe.py [--whole]`.

The peer of top-2 of E experts of rank r is PEFT's own `lora.Linear` of rank 2 r: as much is active.
Where the processor has AVX-512, our layer and its base multiply with oneDNN, the peer as torch does
(`benchmarks/linear.py`; ATEN_CPU_CAPABILITY=avx2 takes that away, and the experts' part is left).
Each layer is first checked against the plain sum over experts, and the script fails if it differs.
Ours and the peer's runs alternate; times are the best of each in milliseconds of wall time, the
ratio is ours over the peer's. "dense" is the published way, every expert computed in one einsum and
weighted afterwards.

`--whole` instead: SmolLM2-135M, 8 x 96 tokens, E 4, top-2, r 8 against LoRA of rank 16: a training
step and a process's peak memory.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from o2s.llm.lora_moe import LoraMoeConfig, LoraMoeLinear, Route
from o2s.llm.lora_moe.gate import RouteState
from o2s.weights import resolve_language_model

TOP, ROWS = 2, 8
Run = Callable[[], Any]


class Layers:
    """One base layer with our experts, PEFT's LoRA of the active rank, and the published way."""

    def __init__(self, width: int, r: int, experts: int, rows: int) -> None:
        torch.manual_seed(0)
        base = nn.Linear(width, width).requires_grad_(False)
        self.state = RouteState()
        config = LoraMoeConfig(r=r, lora_alpha=2.0 * r, num_experts=experts, top_k=TOP)
        self.ours = LoraMoeLinear(copy.deepcopy(base), "default", config, self.state)
        nn.init.normal_(self.ours.lora_moe_B["default"], std=0.02)
        holder = nn.Module()
        holder.proj = base
        lora = LoraConfig(r=TOP * r, lora_alpha=2 * TOP * r, target_modules=["proj"])
        peer: Any = get_peft_model(cast(Any, holder), lora)
        self.peer = peer.base_model.model.proj
        chosen = torch.rand(rows, experts).topk(TOP)
        weights = torch.zeros(rows, experts).scatter(1, chosen.indices, chosen.values)
        self.weights = weights / weights.sum(dim=1, keepdim=True)
        self.state.current = {"default": Route.from_weights(self.weights)}

    def plain(self, x: Tensor) -> Tensor:
        """The reference: a loop over the experts."""
        a, b = self.ours.lora_moe_A["default"], self.ours.lora_moe_B["default"]
        out = self.ours.base_layer(x)
        for expert in range(len(a)):
            said = 2.0 * (x @ a[expert].T @ b[expert].T)
            out = out + self.weights[:, expert, None, None] * said
        return out

    def dense(self, x: Tensor) -> Tensor:
        """The published way."""
        a, b = self.ours.lora_moe_A["default"], self.ours.lora_moe_B["default"]
        hidden = torch.einsum("bti,eri->bter", x, a)
        every = torch.einsum("bter,eor->bteo", hidden, b)
        return self.ours.base_layer(x) + 2.0 * torch.einsum("bteo,be->bto", every, self.weights)

    def check(self, x: Tensor) -> None:
        expected = self.plain(x)
        for found in (self.ours(x), self.dense(x)):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            for _ in range(2):
                torch.testing.assert_close(self.ours(x), expected, atol=1e-4, rtol=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--whole", action="store_true", help="a whole language model instead")
    parser.add_argument("--only", choices=("ours", "peer"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.only:
        print(json.dumps(whole(chosen.only)))
    elif chosen.whole:
        compare_whole(Console())
    else:
        compare_layers(Console())


def compare_layers(console: Console) -> None:
    table = Table("D", "r", "E", "rows x tokens", "what", "ours ms", "LoRA ms", "ratio", "dense")
    for width, r, experts in product((576, 2048), (8, 32), (4, 8)):
        for rows, tokens in ((ROWS, 64), (ROWS, 256), (1, 1), (ROWS, 1)):
            layers = Layers(width, r, experts, rows)
            x = torch.randn(rows, tokens, width)
            layers.check(x)
            for what in ("train", "prefill") if tokens > 1 else ("decode",):
                runs = [layers.ours, layers.peer]
                if what == "train" and experts == 8:
                    runs.append(layers.dense)
                times = alternate([step(run, x, learns=what == "train") for run in runs])
                cells = [f"{times[0]:.2f}", f"{times[1]:.2f}", f"{times[0] / times[1]:.2f}"]
                cells += [f"{time / times[0]:.1f} x ours" for time in times[2:]]
                size = f"{rows} x {tokens}"
                table.add_row(str(width), str(r), str(experts), size, what, *cells)
    console.print(table)


def step(run: Callable[[Tensor], Tensor], x: Tensor, *, learns: bool) -> Run:
    """A forward pass; with `learns` also the backward pass, to the input and the experts."""

    def infer() -> None:
        with torch.inference_mode():
            run(x)

    def train() -> None:
        run(x.detach().requires_grad_()).sum().backward()

    return train if learns else infer


def alternate(runs: Sequence[Run], seconds: float = 1.0) -> list[float]:
    """The best time of each in milliseconds; they take turns, so that all meet the same machine."""
    best = [float("inf")] * len(runs)
    for run in runs:
        run()
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 5 or time.perf_counter() < end:
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], 1000 * (time.perf_counter() - start))
        rounds += 1
    return best


def compare_whole(console: Console) -> None:
    found: dict[str, dict[str, float]] = {"ours": {}, "peer": {}}
    for _ in range(2):
        for which, best in found.items():
            command = [sys.executable, __file__, "--whole", "--only", which]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for name, value in json.loads(said.splitlines()[-1]).items():
                best[name] = min(best.get(name, value), value)
    table = Table("", "LoRA-MoE", "LoRA", "ratio")
    for name in found["ours"]:
        ours, peer = found["ours"][name], found["peer"][name]
        table.add_row(name, f"{ours:.2f}", f"{peer:.2f}", f"{ours / peer:.2f}")
    console.print(table)


def whole(which: str) -> dict[str, float]:
    """A training step of the whole model in seconds, and the peak memory of this process."""
    source = resolve_language_model("smollm2-135m")
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    ids = torch.randint(0, 40_000, (ROWS, 96), generator=torch.Generator().manual_seed(0))
    question: dict[str, Tensor] = {}
    if which == "ours":
        model = get_peft_model(model, LoraMoeConfig(r=8, num_experts=4, top_k=TOP))
        question = {"question_ids": ids[:, :16]}
    else:
        lora = LoraConfig(r=TOP * 8, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        model(input_ids=ids, labels=ids, **question).loss.backward()
        best = min(best, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"training step, s": best, "peak memory, GB": peak}


if __name__ == "__main__":
    main()
