"""Questions and captions about encoded scans: SceneLM and its processor at work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import BatchFeature
from transformers.generation.streamers import BaseStreamer

from o2s.encoder import evaluating
from o2s.errors import InputError
from o2s.llm.configuration import SceneLMRecipe
from o2s.llm.modeling import SceneLM
from o2s.llm.processing import SceneLMProcessor, arrange
from o2s.llm.prompts import DESCRIBE_OBJECT, Task
from o2s.scene import RegionFeatures, SceneTokens


@dataclass(frozen=True)
class Answer:
    """What was asked and said; `route` is one weight an expert, empty without experts."""

    question: str
    text: str
    route: tuple[float, ...]


@dataclass(frozen=True)
class Spoken:
    """What a question speaks of: a region by its place in the scan and its label, or the
    room, which has none; and how sure that is, 0 to 1."""

    region: int | None
    label: str
    probability: float

    def __str__(self) -> str:
        number = "" if self.region is None else f"#{self.region + 1} "  # as in tables and pictures
        return f"{number}{self.label} ({self.probability:.0%})"


class TokenClock(BaseStreamer):
    """Tells how fast an answer came: when its first token was there, and the others."""

    def __init__(self) -> None:
        self._times = [time.perf_counter()]

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt and with each token."""
        self._times.append(time.perf_counter())

    def end(self) -> None:
        """Called when there are no more."""

    def __str__(self) -> str:
        start, *_, last = self._times
        _prompt, *tokens = self._times[1:] or [start]
        if not tokens:
            return "no token"
        more = len(tokens) - 1
        pace = f", then {more / (last - tokens[0]):.1f} a second" if more else ""
        return f"first of {len(tokens)} tokens after {tokens[0] - start:.2f} s{pace}"


class SceneAnswerer:
    """Answers questions about scans, deterministically (greedy decoding)."""

    def __init__(self, model: SceneLM, processor: SceneLMProcessor) -> None:
        self.model = model
        self.processor = processor

    @classmethod
    def build(cls, recipe: SceneLMRecipe, *, trust_pickle: bool = False) -> "SceneAnswerer":
        """A new model; the parts named in `untrained` hold random numbers."""
        return cls(*SceneLM.build(recipe, trust_pickle=trust_pickle))

    @classmethod
    def load(cls, folder: Path, language_model: str | None = None) -> "SceneAnswerer":
        """A saved model; `language_model` says where its base lies, if not where it was."""
        try:
            model = SceneLM.from_pretrained(folder, language_model=language_model)
            return cls(model, SceneLMProcessor.from_pretrained(folder))
        except InputError:
            raise
        except Exception as error:  # damaged files make the libraries below raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"{folder}: not a readable saved model ({reason})") from error

    def save(self, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
        """Store model and processor; `state` are the whole weights, where they are sharded."""
        self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)

    def to(self, device: torch.device | str) -> "SceneAnswerer":
        """The same, with the model on `device`; records stay on the CPU."""
        cast(nn.Module, self.model).to(device)
        return self

    @property
    def untrained(self) -> list[str]:
        """The parts that hold random numbers: with any, answers do not tell of the scan."""
        return list(self.model.config.untrained or [])

    def tokens(self, look: RegionFeatures) -> SceneTokens:
        """The scene tokens of one scan."""
        return self.model.encoder.gather([look])[0]

    def ask(
        self,
        look: RegionFeatures,
        question: str,
        *,
        max_new_tokens: int = 64,
        clock: TokenClock | None = None,
    ) -> Answer:
        """One answer about one scan."""
        answers = self.ask_batch([look], [question], max_new_tokens=max_new_tokens, clock=clock)
        return answers[0]

    def converse(
        self,
        look: RegionFeatures,
        questions: Sequence[str],
        *,
        max_new_tokens: int = 64,
    ) -> list[Answer]:
        """The answers to the questions of a conversation about one scan; each is asked after what
        was said before."""
        answers: list[Answer] = []
        for number in range(1, len(questions) + 1):
            said = [answer.text for answer in answers]
            batch = self.batch([list(questions[:number])], [look], history=[said])
            (text,), routes = self._generate(batch, max_new_tokens)
            answers.append(Answer(questions[number - 1], text, tuple(routes[0])))
        return answers

    def ask_batch(
        self,
        looks: Sequence[RegionFeatures] | None,
        questions: Sequence[str],
        *,
        task: Task = "answer",
        marked: Sequence[int | None] | None = None,
        max_new_tokens: int = 64,
        clock: TokenClock | None = None,
    ) -> list[Answer]:
        """One answer a scan and question; the same as one by one. `marked` is the region of each
        scan that is spoken of, if one is.

        Without `looks` the model answers blind: no scene tokens, and no place for any.

        Raises:
            InputError: a question is empty, or longer than the language model reads.
        """
        if not questions:
            return []
        batch = self.batch(questions, looks, task=task, marked=marked)
        texts, routes = self._generate(batch, max_new_tokens, clock)
        return [
            Answer(question, text, tuple(route))
            for question, text, route in zip(questions, texts, routes, strict=True)
        ]

    def spoken_of(self, look: RegionFeatures, questions: Sequence[str]) -> list[Spoken] | None:
        """What the model takes each of the questions about one scan to speak of; None without
        focus, or where the scan has no regions."""
        if self.model.focus is None or not len(look.boxes):
            return None
        (shown,), _ = arrange([look], None, sort=True, least_score=self.processor.least_score)
        inputs = self.processor.pointing([questions], [shown])
        with torch.inference_mode(), evaluating(self.model):
            pointed = self.model.point({n: x.to(self.model.device) for n, x in inputs.items()})
        shares, regions = pointed.regions[0, :, 0].max(dim=1)
        found: list[Spoken] = []
        for share, region in zip(shares.tolist(), regions.tolist(), strict=True):
            if region == len(shown.boxes):
                found.append(Spoken(None, "the room", share))
            else:
                same = (look.boxes.centres == shown.boxes.centres[region]).all(dim=1)
                found.append(Spoken(int(same.int().argmax()), shown.boxes.labels[region], share))
        return found

    def caption(
        self,
        look: RegionFeatures,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Dense captioning: one sentence for each region.

        Args:
            look: the R encoded regions of one scan.
            batch_size: regions described at once.
            max_new_tokens: where a sentence is cut off.
            progress: called with the number of regions done and the number of all.
        """
        captions: list[str] = []
        for start in range(0, len(look.boxes), batch_size):
            batch = range(start, min(start + batch_size, len(look.boxes)))
            answers = self.ask_batch(
                [look] * len(batch),
                [DESCRIBE_OBJECT] * len(batch),
                task="describe",
                marked=list(batch),
                max_new_tokens=max_new_tokens,
            )
            captions += [answer.text for answer in answers]
            if progress is not None:
                progress(len(captions), len(look.boxes))
        return captions

    def batch(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """What the processor makes of its arguments, where the model is.

        Raises:
            InputError: the language model cannot be asked that.
        """
        try:
            return self.processor(*args, **kwargs).to(self.model.device)
        except ValueError as error:
            raise InputError(str(error)) from error

    @torch.inference_mode()
    def _generate(
        self, batch: BatchFeature, max_new_tokens: int, clock: TokenClock | None = None
    ) -> tuple[list[str], list[list[float]]]:
        """What is said to each prompt of a batch, and its route."""
        length = batch["input_ids"].shape[1] + max_new_tokens
        longest = getattr(self.model.config.text_config, "max_position_embeddings", length)
        if length > longest:
            raise InputError(
                f"question, scene and answer would take {length} tokens; the language model reads "
                f"{longest}: ask something shorter"
            )
        with evaluating(self.model):
            routes = self.model.route(batch["question_ids"], batch["question_mask"])
            generated = self.model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                streamer=clock,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
        texts = self.processor.decode_answers(generated, batch["input_ids"].shape[1])
        return texts, [[]] * len(texts) if routes is None else routes.tolist()
