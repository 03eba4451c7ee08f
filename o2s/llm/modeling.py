"""SceneLM: a decoder-only language model that reads scene tokens.

    regions [B, R, F] -> QueryAggregator -> scene tokens [B, Q, F] -> projector [B, Q, D]
    input_ids [B, T]  -> embeddings [B, T, D], the projected tokens put at the placeholders
                      -> language model, its LoRA experts routed by the question -> logits

The language model is any decoder-only model of transformers, frozen; LoRA-MoE (a PEFT tuner)
adapts it. Follows Octavius (Chen et al., ICLR 2024, arXiv 2311.02684).
"""

import copy
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    PreTrainedModel,
)

from o2s import config as o2s_config
from o2s.encoder import SceneEncoder, untrained_parts
from o2s.errors import InputError
from o2s.files import replacing
from o2s.llm.configuration import SceneLMConfig, SceneLMRecipe
from o2s.llm.focus import Pointed, QuestionFocus
from o2s.llm.language_model import load_language_model
from o2s.llm.lora_moe import LoraMoeConfig, LoraMoeModel
from o2s.llm.processing import SceneLMProcessor
from o2s.llm.saved import WEIGHTS_FILE, build_encoder, load_state, read_saved
from o2s.llm.scene_tokens import (
    OBJECT_INPUTS,
    REGION_INPUTS,
    SCENE_INPUTS,
    ObjectTokens,
    Projector,
)
from o2s.llm.trained_parts import load_trained_parts, still_untrained

_OF_QUERIES = ("aggregator", "projector")


class SceneLM(PreTrainedModel, GenerationMixin):
    """A language model with a scene encoder in front of it."""

    config: SceneLMConfig
    config_class = SceneLMConfig
    base_model_prefix = "language_model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(
        self, config: SceneLMConfig, *, encoder: SceneEncoder, language_model: nn.Module
    ) -> None:
        super().__init__(config)
        self.encoder = encoder
        self.language_model = language_model
        embedding = cast(Any, language_model).get_input_embeddings().weight
        width, std = embedding.shape[1], float(embedding.float().std())
        self.projector, self.object_tokens, self.focus = None, None, None
        if config.scene_tokens != "objects":
            self.projector = Projector(encoder.width, width, std)
        if config.scene_tokens != "octavius":
            self.object_tokens = ObjectTokens(encoder.width, width, std)
            if config.focus:
                self.focus = QuestionFocus(width, std)
        base = cast(Any, language_model)
        base = base.get_base_model() if isinstance(language_model, PeftModel) else base
        self._taken = inspect.signature(base.forward).parameters
        self.generation_config = base.generation_config
        self._no_split_modules = base._no_split_modules  # what FSDP shards one by one

    @classmethod
    def build(
        cls, recipe: SceneLMRecipe, *, trust_pickle: bool = False
    ) -> tuple["SceneLM", SceneLMProcessor]:
        """A new SceneLM around a pretrained language model, and its processor.

        The language model, the detector and Point-BERT are frozen; aggregator, projector, gate
        and experts are trainable and hold seeded random numbers.
        """
        language_model, tokenizer = load_language_model(recipe.language_model, recipe.dtype)
        encoder = SceneEncoder.build(recipe.encoder, trust_pickle=trust_pickle)
        kind = recipe.scene_tokens
        queries = 0 if kind == "objects" else recipe.encoder.aggregator.queries
        processor = SceneLMProcessor(
            tokenizer,
            queries,
            objects=kind != "octavius",
            least_score=recipe.least_score,
            focus=recipe.focus,
        )
        language_model.requires_grad_(False)
        untrained = untrained_parts(recipe.encoder, encoder.detector)
        if kind != "octavius":
            untrained.append("object tokens")
        untrained = [p for p in [*untrained, "projector"] if queries or p not in _OF_QUERIES]
        if recipe.lora_moe is not None:
            untrained.append("gate and LoRA experts")
        config = SceneLMConfig(
            text_config=copy.deepcopy(cast(Any, language_model).config),
            language_model=recipe.language_model,
            language_model_dtype=recipe.dtype,
            encoder=o2s_config.to_dict(encoder.config),
            lora_moe=None if recipe.lora_moe is None else o2s_config.to_dict(recipe.lora_moe),
            scene_tokens=kind,
            focus=recipe.focus,
            scene_token_id=processor.scene_token_id,
            untrained=untrained,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            if recipe.lora_moe is not None:
                language_model = get_peft_model(cast(Any, language_model), recipe.lora_moe)
            model = cls(config, encoder=encoder, language_model=language_model)
        model._freeze()
        if recipe.weights is not None:
            load_trained_parts(model, recipe.weights)
            config.untrained = still_untrained(untrained)
        return model.eval(), processor

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        region_features: Float[Tensor, "B R F"] | None = None,
        region_boxes: Float[Tensor, "B R 7"] | None = None,
        region_mask: Bool[Tensor, "B R"] | None = None,
        region_colors: Float[Tensor, "B R 9"] | None = None,
        region_labels: Int[Tensor, "B R L"] | None = None,
        region_numbers: Int[Tensor, "B R"] | None = None,
        region_near: Int[Tensor, "B R"] | None = None,
        region_on: Int[Tensor, "B R"] | None = None,
        region_marks: Bool[Tensor, "B R"] | None = None,
        focus_ids: Int[Tensor, "B Q W"] | None = None,
        question_ids: Int[Tensor, "B S"] | None = None,
        question_mask: Tensor | None = None,
        routing_weights: Float[Tensor, "B E"] | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        logits_to_keep: int | Int[Tensor, "P"] = 0,
        **kwargs: Any,
    ) -> Any:
        """The language model's output; with labels, the loss over the positions that count.

        Args:
            input_ids: prompts in which every scene token has its placeholder.
            attention_mask: 1 for real tokens; padding may stand on either side.
            position_ids: counted from the first real token if not given.
            region_features, region_boxes, region_mask: as `encoder.pad_regions` makes them, the
                boxes with their scores.
            region_colors, region_labels, region_numbers, region_near, region_on, region_marks: for
                object tokens, as the processor makes them; labels are token ids, -1 behind the
                last.
            focus_ids: the questions of each scene one by one, -1 behind the last token of each.
            question_ids, question_mask: the question alone, for the gate.
            routing_weights: a route computed before, instead of the question.
            labels: -100 where nothing is to be learnt.
            inputs_embeds: embeddings made elsewhere, instead of input_ids and regions.
            logits_to_keep: the places whose logits are wanted, or how many of the last; 0 for all.
            kwargs: goes to the language model.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            given = locals()
            regions = {name: given[name] for name in SCENE_INPUTS if given[name] is not None}
            inputs_embeds = self._embed(input_ids, regions)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            positions = (attention_mask.cumsum(dim=-1) - 1).clamp_min(0)
            position_ids = positions[:, -inputs_embeds.shape[1] :]
        if "position_ids" in self._taken:
            kwargs["position_ids"] = position_ids
        if "logits_to_keep" in self._taken:
            kwargs["logits_to_keep"] = logits_to_keep
        if isinstance(self.language_model, PeftModel):
            kwargs |= {
                "question_ids": None if routing_weights is not None else question_ids,
                "question_mask": question_mask,
                "routing_weights": routing_weights,
            }
        found = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, **kwargs
        )
        if "logits_to_keep" not in self._taken:  # some models make them all
            kept = logits_to_keep
            found.logits = found.logits[:, slice(-kept, None) if isinstance(kept, int) else kept]
        return found

    def read_scene(
        self, regions: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "B S D"], Bool[Tensor, "B S"]]:
        """The scene tokens as the language model sees them, and which of them are real; behind
        them those of the focus of each question.

        Args:
            regions: the tensors named in SCENE_INPUTS.
        """
        features, boxes, mask = (regions[name] for name in REGION_INPUTS[:3])
        tokens: list[Tensor] = []
        masks: list[Tensor] = []
        if self.projector is not None:
            gathered = self.encoder.aggregator(features, boxes[..., :6], mask)
            tokens.append(self.projector(gathered))
            masks.append(mask.new_ones(tokens[0].shape[:2]))
        if self.object_tokens is not None:
            found = self._read_objects(self.object_tokens, regions)
            tokens.append(found.flatten(1, 2))
            masks.append(mask.repeat_interleave(found.shape[2], dim=1))
            if self.focus is not None:
                words, real = self._words(regions["focus_ids"])
                places, on = boxes[..., :3], regions["region_on"]
                marks = regions["region_marks"]
                focused = self.focus(words, real, found, places, on, marks, mask)
                tokens.append(focused.flatten(1, 2))
                masks.append(real.any(dim=2).repeat_interleave(focused.shape[2], dim=1))
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)

    def point(self, regions: Mapping[str, Tensor]) -> Pointed:
        """What the questions speak of.

        Args:
            regions: the tensors named in SCENE_INPUTS.

        Raises:
            ValueError: this model has no focus.
        """
        if self.focus is None or self.object_tokens is None:
            raise ValueError("the model was built without focus")
        words, real = self._words(regions["focus_ids"])
        found = self._read_objects(self.object_tokens, regions)
        places, marks = regions["region_boxes"][..., :3], regions["region_marks"]
        return self.focus.point(words, real, found, places, marks, regions["region_mask"])

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers' `generate`; the question is gated once, before the first token."""
        question = {n: kwargs.pop(n, None) for n in ("question_ids", "question_mask")}
        if question["question_ids"] is not None and kwargs.get("routing_weights") is None:
            route = self.route(**question)
            kwargs |= question if route is None else {"routing_weights": route}
        return cast(Any, super()).generate(*args, **kwargs)

    def route(
        self, question_ids: Int[Tensor, "B S"], question_mask: Tensor | None = None
    ) -> Float[Tensor, "B E"] | None:
        """One weight an expert for each question; None without experts, or where not the question
        alone chooses them for the whole model."""
        if not isinstance(self.language_model, PeftModel):
            return None
        tuner = cast(LoraMoeModel, self.language_model.base_model)
        config = cast(LoraMoeConfig, self.language_model.active_peft_config)
        if tuner.active_adapters[0] not in tuner.lora_moe_gate:
            return None
        return tuner.route(question_ids, question_mask).dense(config.num_experts)

    def balance_loss(self) -> Tensor | None:
        """What keeps experts in even use, of the latest call in training, if it is wanted."""
        if not isinstance(self.language_model, PeftModel):
            return None
        return cast(LoraMoeModel, self.language_model.base_model).balance_loss()

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """The scene is read with the prompt; later steps find it in the cache."""
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in SCENE_INPUTS:
                kwargs.pop(name, None)
        return cast(Any, super()).prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )

    def get_input_embeddings(self) -> nn.Module:
        return cast(Any, self.language_model).get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return cast(Any, self.language_model).get_output_embeddings()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        state_dict: dict[str, Tensor] | None = None,
        is_main_process: bool = True,
        **_: Any,
    ) -> None:
        """Store config, encoder, projector and experts; of the language model only its name.

        `model.language_model.save_pretrained` stores the experts alone, as a PEFT adapter.
        """
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        own = {key: value.contiguous() for key, value in self._own_state(state_dict).items()}
        with replacing(folder / WEIGHTS_FILE) as temporary:
            save_file(own, temporary)
        self.config.save_pretrained(folder)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, folder: str | os.PathLike[str], *, language_model: str | None = None, **_: Any
    ) -> "SceneLM":
        """Restore what `save_pretrained` stored.

        Args:
            folder: where it was stored.
            language_model: where the base model lies now, if not where it was.

        Raises:
            InputError: the folder or a file in it is missing or does not fit.
        """
        path = Path(folder)
        config, stored = read_saved(path)
        config.language_model = language_model or config.language_model
        base, _tokenizer = load_language_model(config.language_model, config.language_model_dtype)
        base.requires_grad_(False)
        if config.lora_moe is not None:
            experts = o2s_config.from_dict(config.lora_moe, LoraMoeConfig)
            base = get_peft_model(cast(Any, base), experts)
        encoder = build_encoder(config)
        model = cls(config, encoder=encoder, language_model=base)
        expected = model._own_state()
        if expected.keys() != stored.keys():
            differ = ", ".join(sorted(expected.keys() ^ stored.keys())[:5])
            raise InputError(f"{path / WEIGHTS_FILE}: keys do not fit the config ({differ})")
        load_state(model, stored, path, strict=False)
        model._freeze()
        return model.eval()

    def _embed(
        self, input_ids: Int[Tensor, "B T"], regions: Mapping[str, Tensor]
    ) -> Float[Tensor, "B T D"]:
        """Token embeddings with the scene tokens in their places.

        The placeholder lies outside the embedding table, which is never resized: resizing would
        make it trainable again.
        """
        places = input_ids == self.config.scene_token_id
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        if not regions:
            if places.any():
                raise ValueError("the prompt has places for scene tokens, but no regions are given")
            return embeddings
        tokens, real = self.read_scene(regions)
        if not torch.equal(places.sum(dim=1), real.sum(dim=1)):
            raise ValueError(
                f"the prompts have {int(places.sum())} places for scene tokens, "
                f"expected {int(real.sum())}"
            )
        return embeddings.masked_scatter(places[..., None], tokens[real].to(embeddings.dtype))

    def _read_objects(
        self, tokens: ObjectTokens, regions: Mapping[str, Tensor]
    ) -> Float[Tensor, "B R 6 D"]:
        features, boxes, _ = (regions[name] for name in REGION_INPUTS[:3])
        colors, ids, *others = (regions[name] for name in OBJECT_INPUTS)
        labels, real = self._words(ids)
        labels = labels.sum(dim=2) / real.sum(dim=2, keepdim=True).clamp_min(1)
        return tokens(features, boxes, colors, labels, *others)

    def _words(
        self, ids: Int[Tensor, "*B S"]
    ) -> tuple[Float[Tensor, "*B S D"], Bool[Tensor, "*B S"]]:
        """The embeddings of tokens, 0 where an id is -1; and where it is not."""
        real = ids >= 0
        return self.get_input_embeddings()(ids.clamp_min(0)).float() * real[..., None], real

    def _own_state(self, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What is stored, out of a whole state dict (a gathered one, where weights are sharded)."""
        return {
            key: value
            for key, value in (self.state_dict() if state is None else state).items()
            if not key.startswith("language_model.") or LoraMoeModel.prefix in key
        }

    def train(self, mode: bool = True) -> "SceneLM":
        """Training mode, but for what is frozen: its statistics and outputs stay as they are."""
        super().train(mode)
        self.encoder.detector.eval()
        self.encoder.point_bert.eval()
        return self

    def _freeze(self) -> None:
        """Only what makes scene tokens of regions, and the adapter, learn."""
        self.encoder.requires_grad_(False)
        self.encoder.aggregator.requires_grad_(self.projector is not None)
