"""LoRA-MoE among what PEFT, torch and transformers do with adapters."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import ASKED, CALLS, GATES, IDS, MASK, QUESTIONS, adapted, base_model, logits
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from o2s.llm.lora_moe import LoraMoeConfig

REACHED = ["instance", "dense", "layer", "learned", "fixed"]  # gates whose routes can be exported


def run(*command: str, folder: Path | None = None) -> None:
    """Python in a new process, which must end well."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("kind", REACHED)
def test_an_exported_route_is_a_plain_lora(language_model: str, kind: str, tmp_path: Path) -> None:
    model = adapted(language_model, **GATES[kind], rank_pattern={"k_proj": 3})
    call = {n: v[:1] for n, v in CALLS.get(kind, ASKED).items()}
    expected = logits(model, IDS[:1], **call)
    model.base_model.export_route(tmp_path / "lora", **call)
    torch.save(expected, tmp_path / "expected.pt")
    run(
        "-c",
        f"""
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({language_model!r}, dtype=torch.float32)
model = PeftModel.from_pretrained(base, {str(tmp_path / "lora")!r}).eval()
with torch.no_grad():
    got = model(torch.tensor({IDS[:1].tolist()})).logits
torch.testing.assert_close(got, torch.load({str(tmp_path / "expected.pt")!r}), atol=1e-5, rtol=1e-5)
assert model.active_peft_config.peft_type.value == "LORA"
assert not [name for name in sys.modules if name.split(".")[0] == "o2s"]
""",
    )


def test_weights_can_be_exported_too(language_model: str, tmp_path: Path) -> None:
    model = adapted(language_model, use_rslora=True)
    weights = torch.tensor([0.2, 0.5, 0.0, 0.3])
    model.base_model.export_route(tmp_path, weights=weights)
    plain = PeftModel.from_pretrained(base_model(language_model), str(tmp_path)).eval()
    assert plain.active_peft_config.r == 3 * 2
    expected = logits(model, routing_weights=weights.expand(2, 4))
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_exported_is_named(language_model: str, tmp_path: Path) -> None:
    model = adapted(language_model, gate="token")
    with pytest.raises(ValueError, match="gate is 'token', expected one with a route"):
        model.base_model.export_route(tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    model = adapted(language_model)
    several = model.base_model.route(QUESTIONS, MASK)
    with pytest.raises(ValueError, match="expected one route"):
        next(iter(model.base_model.layers("default").values())).folded("default", several)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected 4 finite numbers"):
        model.base_model.export_route(tmp_path / "lora", weights=torch.ones(3))
    with pytest.raises(ValueError, match="expected 4 finite numbers"):
        model.base_model.fix_route(torch.tensor([1.0, 0.0, torch.nan, 0.0]))


def test_ranks_and_scalings_by_layer(language_model: str) -> None:
    options = {"rank_pattern": {"k_proj": 5}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3.0}}
    model = adapted(language_model, r=2, lora_alpha=6.0, use_rslora=True, **options)
    layers = model.base_model.layers("default")
    ranks = {name: len(layer.lora_moe_A["default"][0]) for name, layer in layers.items()}
    assert {rank for name, rank in ranks.items() if "k_proj" in name} == {5}
    assert {rank for name, rank in ranks.items() if "k_proj" not in name} == {2}
    scaling = {name: layer.scaling["default"] for name, layer in layers.items()}
    assert scaling["model.layers.1.self_attn.v_proj"] == pytest.approx(3.0 / 2**0.5)
    assert scaling["model.layers.0.self_attn.v_proj"] == pytest.approx(6.0 / 2**0.5)
    assert scaling["model.layers.0.self_attn.k_proj"] == pytest.approx(6.0 / 5**0.5)


@pytest.mark.parametrize("targets", ["all-linear", r".*layers\.1\..*(up_proj|o_proj)"])
def test_targets_by_kind_and_by_pattern(language_model: str, targets: str) -> None:
    model = adapted(language_model, target_modules=targets)
    names = list(model.base_model.layers("default"))
    assert len(names) == (2 * 7 if targets == "all-linear" else 2)
    assert not any("lm_head" in name for name in names)
    assert not torch.allclose(logits(model, **ASKED), logits(base_model(language_model)))


def test_layers_with_biases() -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GPTNeoXConfig(vocab_size=300, intermediate_size=32, **sizes)
    torch.manual_seed(0)
    base = GPTNeoXForCausalLM(config).eval()
    expected = logits(base)
    model = get_peft_model(base, LoraMoeConfig(target_modules=["query_key_value", "dense"]))
    assert torch.equal(logits(model, **ASKED), expected)


@pytest.mark.parametrize("kind", GATES)
def test_a_half_precision_base_with_single_precision_experts(
    language_model: str, kind: str
) -> None:
    call = CALLS.get(kind, ASKED)
    expected = logits(adapted(language_model, **GATES[kind]), **call)
    model = adapted(language_model, torch.bfloat16, **GATES[kind])
    assert {p.dtype for n, p in model.named_parameters() if "lora_moe" in n} == {torch.float32}
    found = logits(model, **call)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).abs().mean()) < 0.03 * float(expected.abs().mean())
    model.train()
    model(input_ids=IDS, labels=IDS, **call).loss.backward()


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_a_saved_adapter_is_loaded_again(
    language_model: str, kind: str, low: bool, tmp_path: Path
) -> None:
    model, call = adapted(language_model, **GATES[kind]), CALLS.get(kind, ASKED)
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(
        base_model(language_model), str(tmp_path), low_cpu_mem_usage=low
    )
    assert torch.equal(logits(again.eval(), **call), logits(model, **call))
    again.load_adapter(str(tmp_path), "other", low_cpu_mem_usage=low)
    again.set_adapter("other")
    assert torch.equal(logits(again, **call), logits(model, **call))


def test_two_calls_before_one_backward_under_checkpointing(language_model: str) -> None:
    """Backward runs the layers again: each call's on its own route."""
    model, plain = adapted(language_model), adapted(language_model)
    plain.load_state_dict(model.state_dict())
    model.train()
    model.activation_checkpointing_enable()
    for each in (model, plain):
        first = each(input_ids=IDS, labels=IDS, **ASKED).loss
        second = each(input_ids=IDS, labels=IDS, routing_weights=torch.eye(4)[:2]).loss
        (first + 2 * second).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)
    with pytest.raises(RuntimeError, match="no route"):
        model.base_model.model(input_ids=IDS)


def test_a_copied_model_has_its_own_routes(language_model: str) -> None:
    model = adapted(language_model)
    other = copy.deepcopy(model)
    other.base_model.fix_route(torch.eye(4)[0])
    with pytest.raises(ValueError, match="needs a route"):
        logits(model)
    assert torch.equal(logits(other, **ASKED), logits(model, **ASKED))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["instance", "layer", "token"])
def test_a_compiled_model_is_not_compiled_again_for_another_route(
    language_model: str, kind: str
) -> None:
    """In a process of its own: the checks of shapes cannot be compiled."""
    run(
        "-c",
        f"""
import torch
from adapted import ASKED, GATES, adapted, logits
model = adapted({language_model!r}, **GATES[{kind!r}])
flipped = {{name: value.flip(0) for name, value in ASKED.items()}}
expected = [logits(model, **call) for call in (ASKED, flipped)]
compiled = torch.compile(model, backend="eager", dynamic=False)
torch.testing.assert_close(logits(compiled, **ASKED), expected[0])
with torch._dynamo.config.patch(error_on_recompile=True):
    torch.testing.assert_close(logits(compiled, **flipped), expected[1])
""",
    )


SHARED = """
import sys, torch
import torch.distributed as dist
from adapted import IDS, MASK, QUESTIONS, adapted
from torch.nn.parallel import DistributedDataParallel
from o2s.train.run_folder import leave_together

way, folder, out = sys.argv[1:]
dist.init_process_group("gloo")
rank = dist.get_rank()
model = adapted(folder).train()
if way == "fsdp":
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    whole = fully_shard(model, mesh=mesh)
else:
    whole = DistributedDataParallel(model)
row = slice(rank, rank + 1)
whole(
    input_ids=IDS[row],
    labels=IDS[row],
    question_ids=QUESTIONS[row],
    question_mask=MASK[row],
).loss.backward()
grads = {}
for name, p in model.named_parameters():
    if p.requires_grad:
        assert p.grad is not None, name
        grads[name] = p.grad.full_tensor() if way == "fsdp" else p.grad
if rank == 0:
    torch.save(grads, out)
del whole, model, grads
leave_together()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_have_the_gradients_of_one(
    language_model: str, way: str, tmp_path: Path
) -> None:
    """Also where the experts that one of them does not use are sharded or shared."""
    (tmp_path / "shared.py").write_text(SHARED)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    run(*torchrun, "shared.py", way, language_model, "grads.pt", folder=tmp_path)
    found = torch.load(tmp_path / "grads.pt")
    model = adapted(language_model).train()
    losses = []
    for row in (slice(0, 1), slice(1, 2)):
        call: dict[str, Any] = {"question_ids": QUESTIONS[row], "question_mask": MASK[row]}
        losses.append(model(input_ids=IDS[row], labels=IDS[row], **call).loss)
    (sum(losses) / 2).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
            if "gate" in name:
                assert parameter.grad is not None
                assert parameter.grad.abs().max() > 1e-4


def test_a_four_bit_base(language_model: str) -> None:
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    base = AutoModelForCausalLM.from_pretrained(language_model, quantization_config=config)
    model = get_peft_model(base, LoraMoeConfig(r=2))
    layers = model.base_model.layers("default").values()
    assert all(isinstance(layer.base_layer, bnb.nn.Linear4bit) for layer in layers)
    model.train()
    model(input_ids=IDS, labels=IDS, **ASKED).loss.backward()
    for layer in layers:
        assert layer.lora_moe_B["default"].grad is not None
    model.base_model.fix_route(torch.eye(4)[0])
    with pytest.raises(ValueError, match="which nothing can be merged into"):
        model.base_model.merge_adapter()
