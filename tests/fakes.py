"""Small stand-ins: a language model of two random layers, a byte tokenizer, random regions."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from o2s.aggregator import AggregatorConfig
from o2s.encoder import EncoderConfig
from o2s.llm.configuration import SceneLMRecipe
from o2s.llm.lora_moe import LoraMoeConfig
from o2s.point_bert import PointBertConfig
from o2s.regions import RegionConfig
from o2s.scene import Boxes, RegionFeatures, Scene

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def save_language_model(folder: Path) -> str:
    """A random Llama and its byte tokenizer in a folder, as `from_pretrained` wants them."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and three special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<end>", "<unknown>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unknown>",
        chat_template=CHAT_TEMPLATE,
    )


def small_encoder_config(**changes: object) -> EncoderConfig:
    """An encoder that a test can afford."""
    size = PointBertConfig(
        channels=6, width=16, depth=2, heads=2, groups=8, neighbours=8, group_width=16, embedding=8
    )
    aggregator = AggregatorConfig(queries=4, heads=2, position_width=8)
    values = {"point_bert": size, "aggregator": aggregator, "regions": RegionConfig(points=64)}
    values["detector"] = "clusters"
    return EncoderConfig(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def small_recipe(language_model: str, **changes: object) -> SceneLMRecipe:
    """A SceneLM around the fake language model."""
    values = {
        "encoder": small_encoder_config(),
        "language_model": language_model,
        "lora_moe": LoraMoeConfig(r=2, lora_alpha=4.0, num_experts=4, top_k=2),
    }
    return SceneLMRecipe(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def random_look(seed: int, regions: int, width: int = 32) -> RegionFeatures:
    """Encoded regions that never were a scan."""
    generator = torch.Generator().manual_seed(seed)
    boxes = Boxes(
        centres=torch.randn(regions, 3, generator=generator),
        sizes=torch.rand(regions, 3, generator=generator) + 0.1,
        headings=torch.zeros(regions),
        scores=torch.linspace(1, 0.5, regions),
        labels=("object",) * regions,
    )
    return RegionFeatures(boxes, torch.randn(regions, width, generator=generator))


def scene_of(points: torch.Tensor, colors: torch.Tensor | None = None) -> Scene:
    """A scene out of points as they are."""
    eye = torch.eye(4, dtype=torch.float64)
    return Scene("fake", points.float(), colors, None, eye)
