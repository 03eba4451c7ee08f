"""What a question speaks of, read again beside it, and seen from where it says to stand.

    words of a question [S, D] -> three roles attend over them: what is spoken of, where one stands,
                                  what one faces
                               -> each points at the regions: [3, R + 1], the last is the room
    what is spoken of          -> its object tokens, and what is on it
    all three                  -> on which side of someone standing there it is, as a soft word
    each region against the room -> how many are spoken of, as a soft word

Object tokens say where things are, but not from where they are seen: "left" takes three places at
once. That a scene has to be read again from the situation of a question is the finding of SQA3D
(Ma et al., ICLR 2023, arXiv 2210.07474) and SIG3D (Man et al., CVPR 2024, arXiv 2406.07544), which
regress place and heading; here both are objects that the question names.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from o2s.llm.scene_tokens import TOKENS_A_REGION
from o2s.words import NUMBERS, SIDES

FOCUS_TOKENS = TOKENS_A_REGION + 3  # a question
NAME = 2  # of the tokens of a region, what it is by its looks
ROLES = ("spoken of", "standing at", "facing")
COUNTS = ("no", *NUMBERS)
LIKELY = 6  # regions in each role that sides are computed of


class Pointed(NamedTuple):
    """What the questions of some scenes point at.

    `regions` is the probability of each region in each of ROLES, that of the room last; `sides`
    that of each of SIDES for what is spoken of, 0 in all where one stands where that is; `counts`
    that of each of COUNTS for how many regions are. Where a region is marked, it is what is spoken
    of, and sides and counts are 0.
    """

    regions: Float[Tensor, "B Q 3 R1"]
    sides: Float[Tensor, "B Q 4"]
    counts: Float[Tensor, "B Q 13"]


class QuestionFocus(nn.Module):
    """Tokens that stand behind a question: those of the object that it speaks of, what is on that,
    on which side of the asker it is, and how many there are.

    Every pointer is a distribution, so that the answer's loss teaches them; the side is its
    expectation over the likely triples of regions. How many are spoken of is the distribution of
    the number of successes where each region is an independent trial, the odds of which are those
    of the region against the room (Poisson binomial). Before any training words and regions are
    compared by one random projection of their embeddings, which keeps their similarity.
    """

    def __init__(self, language_width: int, embedding_std: float, width: int = 80) -> None:
        super().__init__()
        self.scale = embedding_std
        self.read = nn.Linear(language_width, width)
        self.context = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size=3, padding=1) for _ in range(3)
        )
        self.roles = nn.Linear(width, len(ROLES))
        self.words = nn.Linear(language_width, width, bias=False)
        self.regions = nn.Linear(TOKENS_A_REGION * language_width, width, bias=False)
        self.room = nn.Linear(width, 1)
        self.sharpness = nn.Parameter(torch.tensor([4.0]))  # FSDP takes no scalars
        self.sides = nn.Parameter(embedding_std * torch.randn(len(SIDES), language_width))
        self.counts = nn.Parameter(embedding_std * torch.randn(len(COUNTS), language_width))
        self.kind = nn.Parameter(torch.zeros(FOCUS_TOKENS, language_width))
        nn.init.normal_(self.words.weight, std=language_width**-0.5)
        alike = self.words.weight.detach().repeat(1, TOKENS_A_REGION) / TOKENS_A_REGION
        self.regions.weight.data.copy_(alike)

    def forward(
        self,
        words: Float[Tensor, "B Q S D"],
        real: Bool[Tensor, "B Q S"],
        tokens: Float[Tensor, "B R 6 D"],
        centres: Float[Tensor, "B R 3"],
        on: Int[Tensor, "B R"],
        marks: Bool[Tensor, "B R"],
        mask: Bool[Tensor, "B R"],
    ) -> Float[Tensor, "B Q 9 D"]:
        """The tokens of each question.

        Args:
            words: the language model's embeddings of Q questions a scene.
            real: false where a question is at its end.
            tokens: the object tokens.
            centres: of the regions, in metres.
            on: the place of the region that each one is on, -1 where there is none.
            marks: true for a region that is pointed out: all questions speak of it.
            mask: false where a scene has no more regions.
        """
        pointed = self.point(words, real, tokens, centres, marks, mask)
        spoken = pointed.regions[:, :, 0, :-1]
        again = torch.einsum("bqr,brkd->bqkd", spoken, tokens)
        lower = torch.arange(on.shape[1], device=on.device)
        under = ((on[:, :, None] == lower) & mask[:, :, None]).to(tokens.dtype)  # [B, upper, lower]
        under = under / under.sum(dim=1, keepdim=True).clamp_min(1)
        carried = torch.einsum("bqr,bur,bud->bqd", spoken, under, tokens[:, :, NAME])
        side, count = pointed.sides @ self.sides, pointed.counts @ self.counts
        more = torch.stack([carried, side, count], dim=2)
        return torch.cat([again, more], dim=2) + self.kind

    def point(
        self,
        words: Float[Tensor, "B Q S D"],
        real: Bool[Tensor, "B Q S"],
        tokens: Float[Tensor, "B R 6 D"],
        centres: Float[Tensor, "B R 3"],
        marks: Bool[Tensor, "B R"],
        mask: Bool[Tensor, "B R"],
    ) -> Pointed:
        """What the questions point at; arguments as of `forward`."""
        words, tokens = words / self.scale, tokens / self.scale
        batch, count, length = real.shape
        read = self.read(words) * real[..., None]
        for layer in self.context:
            mixed = layer(read.flatten(0, 1).mT).mT.view(batch, count, length, -1)
            read = read + F.gelu(mixed) * real[..., None]
        attention = self.roles(read).masked_fill(~real[..., None], -1e9).softmax(dim=2)
        said = torch.einsum("bqsp,bqsw->bqpw", attention, self.words(words))
        told = torch.einsum("bqsp,bqsw->bqpw", attention, read)
        keys = self.regions(tokens.flatten(2))
        scores = torch.einsum("bqpw,brw->bqpr", said, keys) * keys.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask[:, None, None], -1e9)
        room = self.room(told)
        counts = number_of(torch.sigmoid(scores[:, :, 0] - room[:, :, 0]))
        regions = torch.cat([scores, room], dim=3).softmax(dim=3)
        marked = marks.any(dim=1)[:, None, None]
        only = F.pad(marks, (0, 1))[:, None].to(regions.dtype)
        spoken = torch.where(marked, only, regions[:, :, 0])
        regions = torch.cat([spoken[:, :, None], regions[:, :, 1:]], dim=2)
        sides = self._sides(regions, _with_room(centres, mask))
        return Pointed(regions, *(x.masked_fill(marked, 0.0) for x in (sides, counts)))

    def _sides(
        self, regions: Float[Tensor, "B Q 3 R1"], places: Float[Tensor, "B R1 2"]
    ) -> Float[Tensor, "B Q 4"]:
        likely = regions.topk(min(LIKELY, regions.shape[3]), dim=3)
        weights = likely.values / likely.values.sum(dim=3, keepdim=True)
        rows = torch.arange(len(places), device=places.device)[:, None, None, None]
        spoken, stand, face = places[rows, likely.indices].unbind(dim=2)  # [B, Q, L, 2] each
        ahead = F.normalize(face[:, :, None] - stand[:, :, :, None], dim=-1)  # [B, Q, stand, face]
        away = F.normalize(spoken[:, :, None] - stand[:, :, :, None], dim=-1)  # [.., stand, spoken]
        forward = torch.einsum("bqsfx,bqstx->bqsft", ahead, away)
        turned = torch.stack([-ahead[..., 1], ahead[..., 0]], dim=-1)
        left = torch.einsum("bqsfx,bqstx->bqsft", turned, away)
        sides = (self.sharpness * torch.stack([forward, left, -forward, -left], dim=-1)).softmax(-1)
        clear = forward.square() + left.square() > 0.5  # neither is where one stands
        weight = torch.einsum("bqt,bqs,bqf->bqsft", *weights.unbind(dim=2)) * clear
        found = torch.einsum("bqsft,bqsftk->bqk", weight, sides)
        return found / weight.sum(dim=(2, 3, 4))[..., None].clamp_min(1e-6)


def number_of(trials: Float[Tensor, "B Q R"]) -> Float[Tensor, "B Q 13"]:
    """The probability of each of COUNTS as the number of successes, from that of each trial.

    What is above the last is left out, so that the sum may be below one.
    """
    counts = F.pad(trials.new_ones(*trials.shape[:-1], 1), (0, len(COUNTS) - 1))
    for success in trials[..., None].unbind(dim=-2):
        counts = torch.lerp(counts, F.pad(counts, (1, -1)), success)
    return counts


def _with_room(
    centres: Float[Tensor, "B R 3"], mask: Bool[Tensor, "B R"]
) -> Float[Tensor, "B R1 2"]:
    """The places of the regions from above, and last the middle of all of them."""
    places = centres[..., :2]
    away = ~mask[..., None]
    low = places.masked_fill(away, torch.inf).amin(dim=1) if places.shape[1] else None
    if low is None:
        return places.new_zeros(len(places), 1, 2)
    high = places.masked_fill(away, -torch.inf).amax(dim=1)
    middle = torch.where(mask.any(dim=1)[:, None], (low + high) / 2, 0.0)
    return torch.cat([places, middle[:, None]], dim=1)
