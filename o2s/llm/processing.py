"""From questions and encoded regions to what SceneLM takes, and from its tokens back to text."""

from collections.abc import Sequence
from typing import Any, cast, no_type_check

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from o2s.encoder import pad_regions
from o2s.llm.prompts import PLAIN_TEMPLATE, SCENE_PLACEHOLDER, Task, conversation
from o2s.scene import RegionFeatures

IGNORED = -100  # labels that the loss passes over
_SLOT = "[[question]]"  # where the question goes once the chat template has framed it


class SceneLMProcessor(ProcessorMixin):
    """Makes prompts and labels, for training and inference alike.

    One placeholder in the prompt becomes `num_queries` copies, one a scene token. The question is
    tokenised once more by itself for the gate: without system text, scene tokens, answer and
    padding, so that training and inference route alike.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (transformers reads it off the class)
    tokenizer_class = "AutoTokenizer"

    @no_type_check  # transformers reads the names of its arguments off the code object
    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, num_queries: int = 16, **kwargs: Any
    ) -> None:
        tokenizer.add_special_tokens({"additional_special_tokens": [SCENE_PLACEHOLDER]})
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.num_queries = num_queries
        self.scene_token_id = cast(int, tokenizer.convert_tokens_to_ids(SCENE_PLACEHOLDER))
        super().__init__(tokenizer, **kwargs)

    def __call__(
        self,
        questions: Sequence[str],
        looks: Sequence[RegionFeatures] | None,
        answers: Sequence[str] | None = None,
        *,
        task: Task = "answer",
    ) -> BatchFeature:
        """A batch for `SceneLM.forward` (with answers) or `SceneLM.generate` (without).

        Args:
            questions: B questions.
            looks: the encoded regions of the B scenes; None asks without any scene.
            answers: what SceneLM should learn to say; adds `labels`, in which only the answers
                and the end of turn count.
            task: chooses the system text.

        Returns:
            input_ids, attention_mask [B, T] (padded on the left for generation, on the right for
            training), question_ids, question_mask [B, S]; with scenes region_features [B, R, F],
            region_boxes [B, R, 6], region_mask [B, R]; and, with answers, labels [B, T].

        Raises:
            ValueError: the numbers differ, or a question is empty.
        """
        counts = {len(given) for given in (questions, looks, answers) if given is not None}
        if len(counts) > 1:
            raise ValueError("questions, scenes and answers differ in number")
        prompts = [self._prompt(question, task, scene=looks is not None) for question in questions]
        gate_ids = [self._words(question) for question in questions]
        data: dict[str, Tensor] = {
            "question_ids": self._pad(gate_ids, self._pad_id, left=False),
            "question_mask": self._pad([[1] * len(ids) for ids in gate_ids], 0, left=False),
        }
        if looks is not None:
            regions = pad_regions(looks)
            data |= zip(("region_features", "region_boxes", "region_mask"), regions, strict=True)
        replies = [[] for _ in prompts]
        if answers is not None:
            replies = [[*self._words(answer), self._eos_id] for answer in answers]
            labels = [[IGNORED] * len(p) + reply for p, reply in zip(prompts, replies, strict=True)]
            data["labels"] = self._pad(labels, IGNORED, left=False)
        rows = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
        left = answers is None
        data["input_ids"] = self._pad(rows, self._pad_id, left=left)
        data["attention_mask"] = self._pad([[1] * len(row) for row in rows], 0, left=left)
        return BatchFeature(data)

    def decode_answers(self, generated: Tensor, prompt_length: int) -> list[str]:
        """The text that follows the prompt in each row of `generate`'s output."""
        tokenizer = cast(Any, self.tokenizer)
        texts: list[str] = tokenizer.batch_decode(
            generated[:, prompt_length:], skip_special_tokens=True
        )
        return [text.strip() for text in texts]

    def _prompt(self, question: str, task: Task, *, scene: bool) -> list[int]:
        if not question.strip():
            raise ValueError("the question is empty, expected a text")
        try:
            frame = self._frame(conversation(_SLOT, task, scene=scene))
        except TemplateError:  # some templates know no system role
            frame = self._frame(conversation(_SLOT, task, system_role=False, scene=scene))
        if frame.count(_SLOT) != 1 or frame.count(SCENE_PLACEHOLDER) != int(scene):
            raise ValueError("the chat template loses or repeats the question or the scene")
        before, _, after = frame.partition(_SLOT)
        ids: list[int] = []
        for token in self._encode(before):
            ids += [token] * (self.num_queries if token == self.scene_token_id else 1)
        return [*ids, *self._words(question), *self._encode(after)]

    def _frame(self, messages: list[dict[str, str]]) -> str:
        tokenizer = cast(Any, self.tokenizer)
        return tokenizer.apply_chat_template(
            messages,
            chat_template=tokenizer.chat_template or PLAIN_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )

    def _encode(self, text: str) -> list[int]:
        return cast(Any, self.tokenizer)(text, add_special_tokens=False)["input_ids"]

    def _words(self, text: str) -> list[int]:
        """The tokens of a text of the user's, in which control tokens are words like any other."""
        tokenizer = cast(Any, self.tokenizer)
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    @property
    def _pad_id(self) -> int:
        return cast(int, cast(Any, self.tokenizer).pad_token_id)

    @property
    def _eos_id(self) -> int:
        return cast(int, cast(Any, self.tokenizer).eos_token_id)

    @staticmethod
    def _pad(rows: Sequence[Sequence[int]], value: int, *, left: bool) -> Tensor:
        width = max(map(len, rows))
        filled = [[value] * (width - len(row)) for row in rows]
        return torch.tensor(
            [
                [*fill, *row] if left else [*row, *fill]
                for row, fill in zip(rows, filled, strict=True)
            ]
        )
