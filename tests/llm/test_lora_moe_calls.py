"""LoRA-MoE: which route a call takes, and what it leaves behind."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import ASKED, IDS, MASK, QUESTIONS, adapted, logits
from peft import PeftModel

from o2s.llm.lora_moe import LoraMoeConfig

FIRST = torch.eye(4)[0]


def trainable(model: PeftModel, part: str) -> list[bool]:
    return [p.requires_grad for n, p in model.named_parameters() if part in n]


@pytest.mark.parametrize("gate", ["instance", "layer"])
def test_a_question_comes_before_a_fixed_route(
    language_model: str, gate: str, tmp_path: Path
) -> None:
    model = adapted(language_model, gate=gate)
    expected = logits(model, **ASKED)
    model.base_model.fix_route(FIRST)
    assert torch.equal(logits(model, **ASKED), expected)
    fixed = logits(model)
    assert not torch.allclose(fixed, expected)
    torch.testing.assert_close(fixed, logits(model, routing_weights=FIRST.expand(2, 4)))
    one = {name: value[:1] for name, value in ASKED.items()}
    model.base_model.export_route(tmp_path, **one)
    model.base_model.fix_route(None)
    plain = PeftModel.from_pretrained(model.unload(), str(tmp_path)).eval()
    torch.testing.assert_close(logits(plain, IDS[:1]), expected[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"gate": "learned"}, {"gate": "fixed", "expert_weights": [0.5, 2.0]}]
)
def test_a_fixed_route_holds_where_the_gate_asks_nothing(
    language_model: str, options: dict[str, Any]
) -> None:
    model = adapted(language_model, num_experts=2, **options)
    model.base_model.fix_route(torch.tensor([0.0, 1.0]))
    expected = logits(model, routing_weights=torch.tensor([[0.0, 1.0]]))
    fixed = logits(model)
    torch.testing.assert_close(fixed, expected)
    torch.testing.assert_close(logits(model.merge_and_unload()), fixed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gate", ["instance", "layer"])
def test_an_export_knows_no_noise_of_training(
    language_model: str, gate: str, tmp_path: Path
) -> None:
    model = adapted(language_model, gate=gate, gate_noise=50.0)
    one = {name: value[:1] for name, value in ASKED.items()}
    quiet = model.base_model.routes_of_layers(**one)
    expected = logits(model, IDS[:1], **one)
    model.train()
    for name, route in model.base_model.routes_of_layers(**one).items():
        assert torch.equal(route.weights, quiet[name].weights)
    model.base_model.export_route(tmp_path, **one)
    assert all(module.training for module in model.base_model._gates())
    plain = PeftModel.from_pretrained(model.unload(), str(tmp_path)).eval()
    torch.testing.assert_close(logits(plain, IDS[:1]), expected, atol=1e-5, rtol=1e-5)


def test_weights_that_are_written_over_are_another_route(language_model: str) -> None:
    model, weights = adapted(language_model), torch.zeros(2, 4)
    found = []
    for expert in range(4):
        weights.zero_()
        weights[:, expert] = 1
        found.append(logits(model, routing_weights=weights))
        fresh = torch.eye(4)[expert].expand(2, 4)
        torch.testing.assert_close(found[-1], logits(model, routing_weights=fresh))
    assert not torch.allclose(found[0], found[1])


def test_an_adapter_that_is_not_active_is_exported(language_model: str, tmp_path: Path) -> None:
    model = adapted(language_model)
    model.add_adapter("second", LoraMoeConfig(r=2, gate="layer"))
    for layer in model.base_model.layers("second").values():
        torch.nn.init.normal_(layer.lora_moe_B["second"])
    one = {name: value[:1] for name, value in ASKED.items()}
    for given in (one, {"weights": FIRST}):
        model.base_model.export_route(tmp_path, adapter_name="second", **given)
    expected = model.base_model.routes_of_layers(QUESTIONS, MASK, adapter_name="second")
    model.set_adapter("second")
    for name, route in model.base_model.routes_of_layers(QUESTIONS, MASK).items():
        assert torch.equal(route.experts, expected[name].experts)


def test_gates_learn_when_their_experts_do(language_model: str) -> None:
    model = adapted(language_model)
    model.add_adapter("second", LoraMoeConfig(r=2))
    assert trainable(model, "gate.second") == [False]
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        model.delete_adapter("default")
    assert all(trainable(model, "lora_moe_A.second"))
    assert trainable(model, "gate.second") == [True]
    model.set_requires_grad("second", requires_grad=False)
    assert not any(trainable(model, "second"))
    with pytest.raises(ValueError, match="nope"):
        model.add_adapter("third", LoraMoeConfig(r=2, target_modules=["nope"]))
    assert not trainable(model, "third")


def test_a_token_s_gate_reads_what_dropout_leaves_alone(language_model: str) -> None:
    model = adapted(language_model, gate="token", lora_dropout=0.5)
    layer = next(iter(model.base_model.layers("default").values()))
    x, read = torch.randn(2, 5, layer.base_layer.in_features), []
    gate = layer.lora_moe_layer_gate["default"]
    gate.register_forward_hook(lambda module, inputs, route: read.append(inputs[0]))
    layer.train()(x)
    assert torch.equal(read[0], x)


@pytest.mark.parametrize("options", [{}, {"gate": "layer"}, {"importance_loss": 0.1}])
def test_a_model_can_be_copied_after_use(language_model: str, options: dict[str, Any]) -> None:
    model = adapted(language_model, **options)
    one = {name: value[:1] for name, value in ASKED.items()}
    model.generate(input_ids=IDS[:1], max_new_tokens=2, do_sample=False, **one)
    model.train()(input_ids=IDS, labels=IDS, **ASKED).loss.backward()
    again = copy.deepcopy(model.eval())
    assert torch.equal(logits(again, **ASKED), logits(model, **ASKED))
