"""Large models on several GPUs: what can be seen of it with two processes on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from fakes import random_look, save_language_model, small_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from o2s.llm.answering import SceneAnswerer
from o2s.train.scene_lm import answers_in, token_losses

ROOT = Path(__file__).parents[2]
LOOKS = [random_look(0, 3), random_look(1, 5)]
ASKED = [["How many?", "Where is the chair?"], ["Is it a lamp?"]]
SAID = [["two", "left"], ["yes"]]

SHARDED = """
import sys
import torch.distributed as dist
from fakes import small_recipe
from test_sharding import ASKED, LOOKS, SAID, loss_of
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from o2s.llm.answering import SceneAnswerer
from o2s.llm.trained_parts import write_trained_parts
from o2s.train.run_folder import leave_together
from pathlib import Path
import torch

base, out = sys.argv[1], Path(sys.argv[2])
dist.init_process_group("gloo")
rank = dist.get_rank()
answerer = SceneAnswerer.build(small_recipe(base, scene_tokens="both", focus=True))
model = answerer.model  # without dropout
mesh = init_device_mesh("cpu", (2,))
sharded = [m for m in model.modules() if type(m).__name__ in model._no_split_modules]
assert len(sharded) == 2
for layer in sharded:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
row = slice(rank, rank + 1)
loss_of(answerer, LOOKS[row], ASKED[row], SAID[row]).backward()
grads = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.requires_grad}
options = StateDictOptions(full_state_dict=True, cpu_offload=True)
state = get_model_state_dict(model, options=options)
if rank == 0:
    torch.save(grads, out / "grads.pt")
    write_trained_parts(out / "parts.safetensors", model, {}, state)
    answerer.save(out / "model", state)
del model, answerer, grads, state
leave_together()
"""


def loss_of(answerer: SceneAnswerer, looks: list, asked: list, said: list) -> torch.Tensor:
    batch = answerer.processor(asked, looks, said)
    places, wanted = answers_in(batch.pop("labels"))
    losses, _ = token_losses(answerer.model(**batch, logits_to_keep=places).logits, wanted)
    return losses.mean()


@pytest.mark.slow
def test_a_sharded_model_learns_and_is_stored_like_a_whole_one(tmp_path: Path) -> None:
    base = save_language_model(tmp_path / "base")
    (tmp_path / "sharded.py").write_text(SHARDED)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", "sharded.py", base, str(tmp_path)),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests' / 'train'}",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-9000:]
    recipe = small_recipe(base, scene_tokens="both", focus=True)
    whole = SceneAnswerer.build(recipe)
    losses = [loss_of(whole, LOOKS[i : i + 1], ASKED[i : i + 1], SAID[i : i + 1]) for i in (0, 1)]
    (sum(losses) / 2).backward()
    found = torch.load(tmp_path / "grads.pt")
    parts = load_file(tmp_path / "parts.safetensors")
    for name, parameter in whole.model.named_parameters():
        if parameter.requires_grad:
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-4, msg=name)
            torch.testing.assert_close(parts[name], parameter.half(), atol=0, rtol=0, msg=name)
    stored = SceneAnswerer.load(tmp_path / "model")
    texts = [question for asked in ASKED for question in asked[:1]]
    said, same = (a.ask_batch(LOOKS, texts, max_new_tokens=4) for a in (whole, stored))
    assert [a.text for a in said] == [a.text for a in same]


def test_sharding_goes_by_the_layers_of_the_language_model(tmp_path: Path) -> None:
    base = save_language_model(tmp_path / "base")
    model = SceneAnswerer.build(small_recipe(base, scene_tokens="objects")).model
    assert model._no_split_modules == AutoModelForCausalLM.from_pretrained(base)._no_split_modules
    assert model._no_split_modules


@pytest.mark.parametrize("name, kind", [("fsdp", "FSDP"), ("deepspeed", "DEEPSPEED")])
def test_accelerate_reads_the_configs(name: str, kind: str) -> None:
    file = ROOT / "configs" / "launch" / f"{name}.yaml"
    found = load_config_from_file(str(file))
    assert found.distributed_type == kind
    assert found.mixed_precision == "bf16"
    assert f"configs/launch/{name}.yaml" in file.read_text()
