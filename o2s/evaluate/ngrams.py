"""BLEU, ROUGE-L, METEOR and CIDEr of sentences, by pycocoevalcap.

Each metric leaves statistics an item; a score is a function of their sum or mean over any set of
items, so that kinds of questions and bootstrap draws need no second pass over the texts. The
scores equal those of pycocoevalcap's own `compute_score`.

The Penn Treebank tokenizer and METEOR are Java programs that come with pycocoevalcap. Without Java
they are not available, and nothing takes their place.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64

from o2s.errors import InputError
from o2s.evaluate.bootstrap import Sampled, sampled_mean

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


class NotAvailable(Exception):  # noqa: N818 (no error: the machine lacks something optional)
    """A metric needs what this machine does not have; the message says what."""


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie, 2014) in a Java process, which `with` starts and ends.

    A pair that comes again is remembered.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], list[float]] = {}
        self._process: Any = None

    def __enter__(self) -> "Meteor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            java = self._process.meteor_p
            for pipe in (java.stdin, java.stdout, java.stderr):
                pipe.close()
            java.kill()
            java.wait()
            self._process = None

    def statistics(
        self, references: Sequence[Sequence[str]], candidates: Sequence[str]
    ) -> Float64[np.ndarray, "N 23"]:
        """What `meteor` needs: lengths, function words, matches by stage, chunks.

        Raises:
            NotAvailable: there is no Java, or it does not answer.
        """
        rows = [
            self._pair((candidate, *texts))
            for candidate, texts in zip(candidates, references, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 23)

    def _pair(self, texts: tuple[str, ...]) -> list[float]:
        """Statistics of a candidate and its references; a line break would end the request."""
        texts = tuple(text.replace("\r", " ").replace("\n", " ") for text in texts)
        if texts not in self._known:
            if self._process is None:
                require_java()
                from pycocoevalcap.meteor.meteor import Meteor as Process

                self._process = Process()
            try:
                answer = self._process._stat(texts[0], list(texts[1:]))
            except OSError as error:
                raise NotAvailable(f"METEOR's Java process ended ({error.strerror})") from error
            numbers = [float(word) for word in answer.split()]
            if len(numbers) != 23:
                raise NotAvailable(f"METEOR's Java process answered {answer[:80]!r}")
            self._known[texts] = numbers
        return self._known[texts]


class Ngrams:
    """The statistics of N items, each with a candidate and its references.

    Args:
        references: one or more texts an item, tokens separated by white space.
        candidates: one text an item.
        meteor: a METEOR process. Without one METEOR is not available.
        meteor_text: what METEOR reads of a text.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        candidates: Sequence[str],
        meteor: Meteor | None,
        *,
        meteor_text: Callable[[str], str] = str,
    ) -> None:
        self._references = [list(texts) for texts in references]
        self._candidates = list(candidates)
        self.bleu = _bleu_statistics(self._references, self._candidates)
        self.rouge = _rouge(self._references, self._candidates)
        self.cider = cider_values(self._references, self._candidates)
        self.meteor, self._no_meteor = None, "no METEOR process"
        if meteor is not None:
            try:
                self.meteor = meteor.statistics(
                    [[meteor_text(t) for t in texts] for texts in self._references],
                    [meteor_text(text) for text in self._candidates],
                )
            except NotAvailable as reason:
                self._no_meteor = str(reason)

    def scores(
        self,
        counts: Int32[np.ndarray, "S N"] | None,
        items: Int64[np.ndarray, "M"] | None = None,
        *,
        own_corpus: bool = True,
    ) -> dict[str, Sampled]:
        """The metrics over all items or some, and in each draw if there are draws.

        CIDEr weighs words by how rare they are in a corpus of references: those of the chosen
        items, or with `own_corpus` false those of all items.
        """
        chosen = np.arange(len(self._candidates)) if items is None else items
        if len(chosen) == 0:
            return {name: Sampled(None, reason="no items") for name in METRICS}
        drawn = None if counts is None else counts[:, chosen]
        cider = self.cider[chosen]
        if own_corpus and items is not None:
            cider = cider_values(
                [self._references[i] for i in chosen], [self._candidates[i] for i in chosen]
            )
        sums = self.bleu[chosen].sum(axis=0)
        drawn_bleu = None if drawn is None else bleu(drawn @ self.bleu[chosen])
        found: dict[str, Sampled] = {}
        for order, value in enumerate(bleu(sums)):
            draws = None if drawn_bleu is None else drawn_bleu[:, order]
            found[f"BLEU-{order + 1}"] = Sampled(float(value), draws)
        found["METEOR"] = self._meteor_score(chosen, drawn)
        found["ROUGE-L"] = sampled_mean(self.rouge[chosen], drawn)
        found["CIDEr"] = sampled_mean(cider, drawn)
        return found

    def item_scores(self) -> dict[str, Float64[np.ndarray, "N"] | None]:
        """Every metric of every item by itself (CIDEr: among all items); None if not available."""
        each = bleu(self.bleu)
        return {
            **{f"BLEU-{order + 1}": each[:, order] for order in range(4)},
            "METEOR": None if self.meteor is None else meteor(self.meteor),
            "ROUGE-L": self.rouge,
            "CIDEr": self.cider,
        }

    def _meteor_score(
        self, chosen: Int64[np.ndarray, "M"], drawn: Int32[np.ndarray, "S M"] | None
    ) -> Sampled:
        if self.meteor is None:
            return Sampled(None, reason=self._no_meteor)
        summable = _without_perfect_chunks(self.meteor[chosen])
        value = float(meteor(summable.sum(axis=0)[None])[0])
        return Sampled(value, None if drawn is None else meteor(drawn @ summable))


def tokenize_ptb(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Penn Treebank tokens in lower case without punctuation, joined by blanks.

    Stanford's tokenizer with the options of pycocoevalcap's PTBTokenizer, which writes into the
    folder of installed packages and hands over one text a line: as the tokenizer knows more line
    ends than it does, a text with one of those shifts all that follow. Here they become blanks.

    Raises:
        NotAvailable: there is no Java, or the tokenizer fails.
    """
    require_java()
    from pycocoevalcap.tokenizer import ptbtokenizer

    lines = [text.translate(_LINE_ENDS) for values in texts.values() for text in values]
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    name = "edu.stanford.nlp.process.PTBTokenizer"
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    done = subprocess.run(
        ["java", "-cp", str(jar), name, *options],
        input="".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        check=False,
    )
    tokenized = done.stdout.decode("utf-8", "replace").removesuffix("\n").split("\n")
    if done.returncode or len(tokenized) != max(1, len(lines)):
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
        raise NotAvailable(f"Stanford's tokenizer failed: {reason[0][:200]}")
    punctuation = set(ptbtokenizer.PUNCTUATIONS)
    left = (
        " ".join(w for w in line.rstrip().split(" ") if w not in punctuation) for line in tokenized
    )
    return {key: [next(left) for _ in values] for key, values in texts.items()}


def require_pycocoevalcap() -> None:
    """Raises InputError where the package of the metrics is not installed."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise InputError("these scores need pycocoevalcap: pip install 'o2s[metrics]'")


def require_java() -> None:
    """Raises NotAvailable where there is no Java."""
    if shutil.which("java") is None:
        raise NotAvailable("needs Java, and there is no `java` on the PATH")


def java_version() -> str:
    """The version of Java that METEOR and the tokenizer run on, for reports."""
    if shutil.which("java") is None:
        return "none"
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "([^"]+)"', done.stderr)
    return found.group(1) if found else "unknown"


def cider(
    references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]
) -> Float64[np.ndarray, "N"]:
    """CIDEr-D of each item by name, in the order of the references; their mean is the score."""
    return cider_values(list(references.values()), [candidates[key] for key in references])


def cider_values(
    references: Sequence[Sequence[str]], candidates: Sequence[str]
) -> Float64[np.ndarray, "N"]:
    """CIDEr-D (Vedantam et al., CVPR 2015) of each item; their mean is the score.

    A single item scores 0: what all references share weighs nothing.
    """
    from pycocoevalcap.cider.cider import Cider

    return np.asarray(Cider().compute_score(*_by_number(references, candidates))[1], np.float64)


def bleu(statistics: Float[np.ndarray, "*S 10"] | Int64[np.ndarray, "*S 10"]) -> np.ndarray:
    """BLEU-1 to BLEU-4 [*S, 4] (Papineni et al., ACL 2002) of summed statistics.

    With pycocoevalcap's small numbers, which keep a score without matches above 0.
    """
    candidate, reference = statistics[..., 0], statistics[..., 1]
    precisions = (statistics[..., 2:6] + 1e-15) / (statistics[..., 6:10] + 1e-9)
    scores = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (candidate + 1e-15) / (reference + 1e-9)
    with np.errstate(over="ignore"):
        brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return scores * brevity[..., None]


def meteor(statistics: Float64[np.ndarray, "S 23"]) -> Float64[np.ndarray, "S"]:
    """METEOR 1.5 for English from its statistics (Denkowski and Lavie, WMT 2014, section 2).

    Lengths and matches weigh content words with 0.75 and function words with 0.25; matches of the
    stages exact, stem, synonym and paraphrase count 1, 0.6, 0.8 and 0.6.
    """
    stages = statistics[:, 4:20].reshape(-1, 4, 4)  # content and function words of either side
    stage_weights, content = np.array([1.0, 0.6, 0.8, 0.6]), 0.75
    lengths, functions = statistics[:, 0:2], statistics[:, 2:4]
    weighed = content * (lengths - functions) + (1 - content) * functions
    by_stage = content * stages[:, :, 0:2] + (1 - content) * stages[:, :, 2:4]
    matches = np.einsum("sgk,g->sk", by_stage, stage_weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = (matches / weighed).T
        mean = 1 / (0.15 / precision + 0.85 / recall)
        chunks = statistics[:, 20] / statistics[:, 21:23].mean(axis=1)
        chunks = np.where(_is_perfect(statistics), 0.0, chunks)
        scores = mean * (1 - 0.6 * chunks**0.2)
    return np.nan_to_num(scores)


def _without_perfect_chunks(
    statistics: Float64[np.ndarray, "N 23"],
) -> Float64[np.ndarray, "N 23"]:
    """Statistics as METEOR sums them up: a sentence matched whole has no chunk to be punished."""
    summable = statistics.copy()
    summable[_is_perfect(statistics), 20] = 0
    return summable


def _is_perfect(statistics: Float64[np.ndarray, "N 23"]) -> np.ndarray:
    stages = statistics[:, 4:20].reshape(-1, 4, 4)
    matched = stages[:, :, 0:2].sum(axis=1) + stages[:, :, 2:4].sum(axis=1)
    return (matched == statistics[:, 0:2]).all(axis=1) & (statistics[:, 20] == 1)


def _bleu_statistics(
    references: Sequence[Sequence[str]], candidates: Sequence[str]
) -> Int64[np.ndarray, "N 10"]:
    """Length of the candidate, of the closest reference, matches and guesses of 1- to 4-grams."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for texts, candidate in zip(references, candidates, strict=True):
        scorer += (candidate, texts)
    rows = []
    for item in scorer.ctest:
        length = item["testlen"]
        closest = min((abs(r - length), r) for r in item["reflen"])[1]
        rows.append([length, closest, *item["correct"], *item["guess"]])
    return np.array(rows, dtype=np.int64).reshape(len(rows), 10)


def _rouge(
    references: Sequence[Sequence[str]], candidates: Sequence[str]
) -> Float64[np.ndarray, "N"]:
    """ROUGE-L (Lin, ACL 2004) of each item."""
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Rouge()
    pairs = zip(references, candidates, strict=True)
    return np.array([scorer.calc_score([c], list(texts)) for texts, c in pairs], np.float64)


def _by_number(
    references: Sequence[Sequence[str]], candidates: Sequence[str]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    pairs = list(zip(references, candidates, strict=True))
    return (
        {i: list(texts) for i, (texts, _) in enumerate(pairs)},
        {i: [candidate] for i, (_, candidate) in enumerate(pairs)},
    )


_LINE_ENDS = {ord(character): " " for character in "\r\n\v\f\u2028\u2029"}
