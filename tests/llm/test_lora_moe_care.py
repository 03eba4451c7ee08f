"""LoRA-MoE leaves nothing stale, nothing changed and nothing unsaid."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import ASKED, IDS, MASK, QUESTIONS, adapted, as_lora, base_model, logits
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from o2s.llm.lora_moe import LoraMoeConfig

FIRST = torch.eye(4)[0]
WEIGHTS = torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.6, 0.0, 0.4]])


@pytest.mark.parametrize(
    "weights, message",
    [
        (torch.eye(9)[:2], r"shape \(2, 9\), expected \[rows, 4\]"),
        (torch.eye(3)[:2], r"shape \(2, 3\), expected \[rows, 4\]"),
        (torch.full((2, 4), float("nan")), "not finite"),
    ],
)
@pytest.mark.parametrize("tokens", [1, 6])
def test_a_route_of_other_experts_is_refused(
    language_model: str, tokens: int, weights: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        logits(adapted(language_model), IDS[:, :tokens], routing_weights=weights)


@pytest.mark.parametrize("tokens", [1, 6])
def test_a_fused_optimizer_leaves_nothing_stale(language_model: str, tokens: int) -> None:
    model, ids = adapted(language_model), IDS[:, :tokens]
    learn = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learn, lr=0.1, fused=True)
    before = logits(model, ids, routing_weights=WEIGHTS)
    model(input_ids=ids, routing_weights=WEIGHTS).logits.square().mean().backward()
    optimizer.step()
    expected = model(input_ids=ids, routing_weights=WEIGHTS).logits.detach()
    assert not torch.allclose(before, expected, atol=0.1)
    found = logits(model, ids, routing_weights=WEIGHTS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_gate_goes_on_learning_beside_a_loaded_adapter(
    language_model: str, tmp_path: Path
) -> None:
    model = adapted(language_model)
    model.save_pretrained(str(tmp_path))
    model.train()
    model.load_adapter(str(tmp_path), "other")
    gate: Any = model.base_model.lora_moe_gate
    assert [p.requires_grad for p in gate["default"].parameters()] == [True]
    assert [p.requires_grad for p in gate["other"].parameters()] == [False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_gives_the_very_weights_back(language_model: str, dtype: torch.dtype) -> None:
    model = adapted(language_model, dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.base_model.fix_route(FIRST)
    model.base_model.merge_adapter()
    changed = [not torch.equal(v, before[n]) for n, v in model.state_dict().items()]
    assert any(changed)
    model.base_model.unmerge_adapter()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_one_expert_on_a_bf16_base_is_lora(language_model: str) -> None:
    ours = adapted(language_model, torch.bfloat16, num_experts=1, top_k=1)
    theirs = as_lora(ours, language_model, torch.bfloat16)
    assert torch.equal(logits(ours), logits(theirs))


@pytest.mark.parametrize(
    "options",
    [{"num_experts": 1, "top_k": 1}, {"num_experts": 2, "gate": "learned"}],
    ids=["one expert", "learned weights"],
)
def test_the_only_route_there_is_can_be_merged(
    language_model: str, options: dict[str, Any]
) -> None:
    model = adapted(language_model, **options)
    expected = logits(model)
    torch.testing.assert_close(logits(model.merge_and_unload()), expected, atol=1e-5, rtol=1e-5)


def test_the_base_model_is_given_back_as_it_was(language_model: str) -> None:
    base = base_model(language_model)
    kinds = {name: type(module) for name, module in base.named_modules()}
    model = get_peft_model(base, LoraMoeConfig(r=2))
    model(input_ids=IDS, labels=IDS, **ASKED).loss.backward()
    logits(model, **ASKED)
    back = model.unload()
    assert {name: type(module) for name, module in back.named_modules()} == kinds


def test_hooks_of_a_base_layer_are_called(language_model: str) -> None:
    model, seen = adapted(language_model), []
    layer = next(iter(model.base_model.layers("default").values()))
    handle = layer.base_layer.register_forward_hook(lambda module, args, out: out + 1)
    changed = logits(model, **ASKED)
    handle.remove()
    assert not torch.allclose(changed, logits(model, **ASKED))
    layer.base_layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    logits(model, **ASKED)
    assert len(seen) == 1


def test_two_adapters_at_once_add_up(language_model: str) -> None:
    model = adapted(language_model)
    model.add_adapter("second", LoraMoeConfig(r=3, lora_alpha=6.0))
    layers = model.base_model.layers("second")
    for layer in layers.values():
        nn.init.normal_(layer.lora_moe_B["second"], std=0.2)
    x = torch.randn(2, 3, next(iter(layers.values())).base_layer.in_features)
    model.base_model.set_adapter(["default", "second"])
    layer = next(iter(layers.values()))
    model.base_model.fix_route(FIRST)
    with torch.no_grad():
        expected = layer.base_layer(x)
        for name in ("default", "second"):
            a, b = layer.lora_moe_A[name][0], layer.lora_moe_B[name][0]
            expected = expected + layer.scaling[name] * (x @ a.T @ b.T)
        torch.testing.assert_close(layer(x), expected)
        model.base_model.merge_adapter()
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_deleted_experts_are_kept_nowhere(language_model: str) -> None:
    model = adapted(language_model)
    logits(model, IDS[:, :1], **ASKED)
    layers = list(model.base_model.layers("default").values())
    assert all(layer._kept for layer in layers)
    assert not any(layer._kept for layer in pickle.loads(pickle.dumps(layers)))
    model.add_adapter("second", LoraMoeConfig(r=2))
    with pytest.warns(UserWarning, match="Setting active adapter"):
        model.delete_adapter("default")
    assert not any(layer._kept for layer in layers)


def test_noise_and_balance_are_of_training_alone(language_model: str) -> None:
    model = adapted(language_model, gate_noise=50.0, importance_loss=1.0).train()
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "input_ids": IDS}
    found = [model.generate(**options, **ASKED) for _ in range(4)]
    assert all(torch.equal(one, found[0]) for one in found)
    torch.manual_seed(0)
    loss = model(input_ids=IDS, labels=IDS, **ASKED).loss
    torch.manual_seed(0)
    as_tuple = model(input_ids=IDS, labels=IDS, return_dict=False, **ASKED)
    torch.testing.assert_close(as_tuple[0], loss)


def test_padding_of_the_input_on_either_side_changes_nothing(language_model: str) -> None:
    model, expected = adapted(language_model), []
    for row in range(2):
        one = slice(row, row + 1)
        question = {"question_ids": QUESTIONS[one], "question_mask": MASK[one]}
        expected.append(logits(model, IDS[one], **question)[0])
    pad = torch.zeros(2, 3, dtype=torch.long)
    real = torch.ones_like(IDS)
    for parts in ([pad, IDS], [IDS, pad]):
        mask = torch.cat([pad if part is pad else real for part in parts], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp_min(0)
        found = logits(
            model, torch.cat(parts, dim=1), attention_mask=mask, position_ids=places, **ASKED
        )
        for row in range(2):
            torch.testing.assert_close(found[row][mask[row].bool()], expected[row])


def test_the_head_of_a_classifier_learns_and_is_saved(language_model: str, tmp_path: Path) -> None:
    def classifier() -> nn.Module:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(language_model, num_labels=3)
        model.config.pad_token_id = 0
        return model

    model = get_peft_model(classifier(), LoraMoeConfig(r=2, task_type="SEQ_CLS"))
    heads = [p for n, p in model.named_parameters() if "score.modules_to_save" in n]
    assert heads
    assert all(p.requires_grad for p in heads)
    nn.init.normal_(heads[0])
    expected = logits(model.eval(), **ASKED)
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(classifier(), str(tmp_path)).eval()
    torch.testing.assert_close(logits(again, **ASKED), expected)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, expected a number above 0"),
        ({"lora_alpha": -1.0}, "lora_alpha is -1.0"),
        ({"alpha_pattern": {"q": 0.0}}, r"alpha_pattern\[q\] is 0.0"),
        ({"gate_noise": float("inf")}, "gate_noise is inf"),
    ],
)
def test_wrong_numbers_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraMoeConfig(**options)
