"""From questions and encoded regions to what SceneLM takes, and from its tokens back to text."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast, no_type_check

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from o2s.encoder import pad_regions
from o2s.llm.focus import FOCUS_TOKENS
from o2s.llm.prompts import PLAIN_TEMPLATE, SCENE_PLACEHOLDER, Task, conversation
from o2s.llm.relations import relations
from o2s.llm.scene_tokens import NUMBERS, TOKENS_A_REGION
from o2s.scene import RegionFeatures

IGNORED = -100  # labels that the loss passes over
_SLOT = "[[question]]"  # where the question goes once the chat template has framed it


def arrange(
    looks: Sequence[RegionFeatures],
    marked: Sequence[int | None] | None,
    *,
    sort: bool,
    least_score: float = 0.0,
) -> tuple[list[RegionFeatures], list[int | None]]:
    """The regions as the language model reads them, and where the marked one is then.

    With `sort` by label, those of a label by score, so that things to be counted stand together,
    and the marked one last. Without, the marked one alone. Others below `least_score` are left out.
    """
    found: list[RegionFeatures] = []
    places: list[int | None] = []
    for look, mark in zip(looks, marked or [None] * len(looks), strict=True):
        scores = look.boxes.scores.tolist()
        order = [r for r, score in enumerate(scores) if score >= least_score or r == mark]
        if sort:
            order.sort(key=lambda r: (r == mark, look.boxes.labels[r], -scores[r]))
        elif mark is not None:
            order = [mark]
        found.append(look.select(torch.tensor(order, dtype=torch.long)))
        places.append(None if mark is None else len(order) - 1)
    return found, places


class SceneLMProcessor(ProcessorMixin):
    """Makes prompts and labels, for training and inference alike.

    One placeholder in the prompt becomes as many copies as the scene has tokens: `num_queries`, and
    with `objects` six for each region of those that reach `least_score`. With `focus` each question
    is followed by places for what it speaks of. The question is tokenised
    once more by itself for the gate: without system text, scene tokens, answer and padding, so that
    training and inference route alike.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (transformers reads it off the class)
    tokenizer_class = "AutoTokenizer"

    @no_type_check  # transformers reads the names of its arguments off the code object
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        num_queries: int = 16,
        objects: bool = False,
        least_score: float = 0.0,
        focus: bool = False,
        **kwargs: Any,
    ) -> None:
        tokenizer.add_special_tokens({"additional_special_tokens": [SCENE_PLACEHOLDER]})
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.num_queries = num_queries
        self.objects = objects
        self.least_score = least_score
        self.focus = focus
        self.scene_token_id = cast(int, tokenizer.convert_tokens_to_ids(SCENE_PLACEHOLDER))
        super().__init__(tokenizer, **kwargs)

    def __call__(
        self,
        questions: Sequence[str | Sequence[str]],
        looks: Sequence[RegionFeatures] | None,
        answers: Sequence[str | Sequence[str]] | None = None,
        *,
        task: Task | Sequence[Task] = "answer",
        history: Sequence[Sequence[str]] | None = None,
        marked: Sequence[int | None] | None = None,
    ) -> BatchFeature:
        """A batch for `SceneLM.forward` (with answers) or `SceneLM.generate` (without).

        Args:
            questions: B questions, or B lists of the questions of a conversation.
            looks: the encoded regions of the B scenes; None asks without any scene.
            answers: what SceneLM should learn to say, one to each question; adds `labels`, in which
                only the answers and the ends of turn count.
            task: chooses the system text; one for all, or one a row.
            history: what was answered to all questions of a conversation but the last, where it
                goes on.
            marked: in each scene the region that is spoken of, if one is. With `objects` its tokens
                are marked and stand last; without, it is the only region that is shown.

        Returns:
            input_ids, attention_mask [B, T] (padded on the left for generation, on the right for
            training), question_ids, question_mask [B, S]; with scenes region_features [B, R, F],
            region_boxes [B, R, 7] (centre, size, score), region_mask [B, R]; with `objects` also
            region_colors [B, R, 9], region_labels [B, R, L], region_numbers, region_near, region_on
            and region_marks [B, R], with `focus` focus_ids [B, Q, S], the tokens of each question
            of a conversation, -1 behind the last; and, with answers, labels [B, T].

        Raises:
            ValueError: the numbers differ, or a question is empty.
        """
        counts = {len(x) for x in (questions, looks, answers, history, marked) if x is not None}
        one = isinstance(task, str)
        tasks = cast(list[Task], [task] * len(questions) if one else list(task))
        if len(counts | {len(tasks)}) > 1:
            raise ValueError("questions, scenes, answers and tasks differ in number")
        turns = [[q] if isinstance(q, str) else list(q) for q in questions]
        said = [list(h) for h in history] if history is not None else [[] for _ in turns]
        if answers is not None:
            said = [[a] if isinstance(a, str) else list(a) for a in answers]
        if looks is not None:
            looks, marked = arrange(looks, marked, sort=self.objects, least_score=self.least_score)
        rows: list[list[int]] = []
        labels: list[list[int]] = []
        for i, asked in enumerate(turns):
            if len(said[i]) != len(asked) - (answers is None):
                raise ValueError("questions and answers of a conversation differ in number")
            tokens = None
            if looks is not None:
                regions = TOKENS_A_REGION * len(looks[i].boxes)
                tokens = self.num_queries + self.objects * regions
            row, learned = self._conversation(asked, said[i], tasks[i], tokens)
            rows.append(row)
            labels.append(learned)
        gate_ids = [[t for question in asked for t in self._words(question)] for asked in turns]
        left = answers is None
        data: dict[str, Tensor] = {
            "question_ids": self._pad(gate_ids, self._pad_id, left=False),
            "question_mask": self._pad([[1] * len(ids) for ids in gate_ids], 0, left=False),
            "input_ids": self._pad(rows, self._pad_id, left=left),
            "attention_mask": self._pad([[1] * len(row) for row in rows], 0, left=left),
        }
        if answers is not None:
            data["labels"] = self._pad(labels, IGNORED, left=False)
        if looks is not None:
            data |= self._regions(looks, marked or [None] * len(looks))
            if self.focus:
                data["focus_ids"] = self._each_question(turns)
        return BatchFeature(data)

    def pointing(
        self, questions: Sequence[Sequence[str]], looks: Sequence[RegionFeatures]
    ) -> dict[str, Tensor]:
        """What `SceneLM.point` takes: of the batch of these questions, one list for each scene, the
        regions as they stand (`arrange`) and `focus_ids` alone, without any prompt."""
        regions = self._regions(looks, [None] * len(looks))
        return regions | {"focus_ids": self._each_question(questions)}

    def decode_answers(self, generated: Tensor, prompt_length: int) -> list[str]:
        """The text that follows the prompt in each row of `generate`'s output."""
        tokenizer = cast(Any, self.tokenizer)
        texts: list[str] = tokenizer.batch_decode(
            generated[:, prompt_length:], skip_special_tokens=True
        )
        return [text.strip() for text in texts]

    def _conversation(
        self, questions: Sequence[str], answers: Sequence[str], task: Task, tokens: int | None
    ) -> tuple[list[int], list[int]]:
        """The tokens of a conversation, up to the next answer, and the labels.

        `tokens` is the number of places for the scene, None without any.
        """
        if not all(question.strip() for question in questions):
            raise ValueError("the question is empty, expected a text")
        slots = [_SLOT] * len(questions)
        scene, complete = tokens is not None, len(questions) == len(answers)
        replies = slots[: len(questions) - 1]
        try:
            frame = self._frame(conversation(slots, replies, task, scene=scene))
        except TemplateError:  # some templates know no system role
            turns = conversation(slots, replies, task, system_role=False, scene=scene)
            frame = self._frame(turns)
        pieces = frame.split(_SLOT)
        if len(pieces) != 2 * len(questions) or frame.count(SCENE_PLACEHOLDER) != int(scene):
            raise ValueError("the chat template loses or repeats the question or the scene")
        ids: list[int] = []
        labels: list[int] = []

        def add(tokens: list[int], *, learned: bool = False) -> None:
            ids.extend(tokens)
            labels.extend(tokens if learned else [IGNORED] * len(tokens))

        for number, piece in enumerate(pieces):
            framing = [
                copy
                for token in self._encode(piece)
                for copy in [token] * (tokens or 0 if token == self.scene_token_id else 1)
            ]
            ends_answer = number and number % 2 == 0 and framing[:1] == [self._eos_id]
            add(framing[:1], learned=complete and bool(ends_answer))
            add(framing[1:])
            if number % 2 == 0:
                add(self._words(questions[number // 2]))
                if scene and self.focus:
                    add([self.scene_token_id] * FOCUS_TOKENS)
            elif number // 2 < len(answers):
                add(self._words(answers[number // 2]), learned=complete)
        if complete:
            add([self._eos_id], learned=True)
        return ids, labels

    def _regions(
        self, looks: Sequence[RegionFeatures], marked: Sequence[int | None]
    ) -> dict[str, Tensor]:
        features, boxes, mask = pad_regions(looks)
        pad = torch.nn.utils.rnn.pad_sequence
        scores = pad([look.boxes.scores for look in looks], batch_first=True)
        data = {
            "region_features": features,
            "region_boxes": torch.cat([boxes, scores[..., None]], dim=2),
            "region_mask": mask,
        }
        if not self.objects:
            return data
        colors = [
            look.features.new_full((len(look.boxes), 9), 0.5)
            if look.colors is None
            else look.colors
            for look in looks
        ]
        labels = [[self._encode(" " + label) for label in look.boxes.labels] for look in looks]
        longest = max([1, *(len(ids) for row in labels for ids in row)])
        filled = torch.full((*mask.shape, longest), -1)
        numbers = torch.zeros(mask.shape, dtype=torch.long)
        near, on = torch.full(mask.shape, -1), torch.full(mask.shape, -1)
        for i, (row, look) in enumerate(zip(labels, looks, strict=True)):
            seen: Counter[str] = Counter()
            for r, ids in enumerate(row):
                filled[i, r, : len(ids)] = torch.tensor(ids)
                label = look.boxes.labels[r]
                numbers[i, r] = min(seen[label], NUMBERS - 1)
                seen[label] += 1
            for places, found in zip((near, on), relations(look.boxes), strict=True):
                places[i, : len(row)] = torch.tensor([-1 if p is None else p for p in found])
        marks = torch.zeros_like(mask)
        for i, place in enumerate(marked):
            if place is not None:
                marks[i, place] = True
        return data | {
            "region_colors": pad(colors, batch_first=True),
            "region_labels": filled,
            "region_numbers": numbers,
            "region_near": near,
            "region_on": on,
            "region_marks": marks,
        }

    def _each_question(self, turns: Sequence[Sequence[str]]) -> Tensor:
        words = [[self._words(question) for question in asked] for asked in turns]
        longest = max(len(ids) for asked in words for ids in asked)
        filled = torch.full((len(turns), max(map(len, turns)), longest), -1)
        for i, asked in enumerate(words):
            for q, ids in enumerate(asked):
                filled[i, q, : len(ids)] = torch.tensor(ids)
        return filled

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
