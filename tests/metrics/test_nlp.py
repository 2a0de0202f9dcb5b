"""Metrics of texts against nltk, rouge-score, ignite, and a table of edits filled by hand."""

import math
import random

import ignite.metrics as ignite
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from torch.nn.functional import cross_entropy

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import Bleu, CharacterErrorRate, Perplexity, Rouge, RougeL, RougeN
from cookfire.metrics.nlp._sequences import edit_distance, longest_common_subsequence

NLTK = SmoothingFunction()
SMOOTHINGS = ["no_smooth", "smooth1", "nltk_smooth2", "smooth2"]
# Without too short candidates, smooth2 is nltk's too.
IN_NLTK = dict(zip(SMOOTHINGS, [NLTK.method0, NLTK.method1, *[NLTK.method2] * 2], strict=True))

text = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)
long_text = st.lists(st.sampled_from("abcd"), min_size=4, max_size=12)
pairs = st.lists(st.tuples(text, st.lists(text, min_size=1, max_size=3)), min_size=1, max_size=4)
few = settings(max_examples=40)


def fed(metric, *batches):
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def split(examples):
    """Two batches of examples."""
    half = len(examples) // 2
    return [
        tuple(map(list, zip(*part, strict=True)))
        for part in (examples[:half], examples[half:])
        if part
    ]


@given(pairs, st.integers(1, 4), st.sampled_from(SMOOTHINGS))
@few
def test_bleu_is_ignites(examples, ngram, smooth):
    batches = split(examples)
    for average in ("macro", "micro"):
        value = fed(Bleu(ngram, smooth, average=average), *batches)
        expected = float(fed(ignite.Bleu(ngram, smooth, average=average), *batches))
        assert type(value) is float
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.filterwarnings("ignore:\\nThe hypothesis contains 0 counts:UserWarning")
@given(
    st.lists(st.tuples(long_text, st.lists(text, min_size=1, max_size=3)), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from(SMOOTHINGS),
)
@few
def test_bleu_is_nltks(examples, ngram, smooth):
    weights, method = [1 / ngram] * ngram, IN_NLTK[smooth]
    candidates, references = zip(*examples, strict=True)
    macro = sum(sentence_bleu(r, c, weights, method) for c, r in examples) / len(examples)
    micro = corpus_bleu(references, candidates, weights, method)
    for average, expected in (("macro", macro), ("micro", micro)):
        value = fed(Bleu(ngram, smooth, average=average), *split(examples))
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-30)


def test_a_candidate_that_is_too_short_for_n_grams_or_empty():
    for smooth, expected in zip(
        SMOOTHINGS, (0.0, math.sqrt(0.1), math.sqrt(0.5), 1.0), strict=True
    ):
        for average in ("macro", "micro"):
            metric = Bleu(2, smooth, average=average)
            assert fed(metric, ([["a"]], [[["a"]]])) == pytest.approx(expected)
            assert fed(Bleu(2, smooth, average=average), ([[]], [[["a"]]])) == 0.0
            assert fed(Bleu(2, smooth, average=average), ([["a"]], [[[]]])) == 0.0


@given(pairs, st.integers(1, 3), st.sampled_from([0, 0.3, 0.5, 1]))
@few
def test_rouge_is_ignites(examples, ngram, alpha):
    batches = split(examples)
    for multiref in ("average", "best"):
        value = fed(Rouge([ngram, "L"], multiref, alpha), *batches)
        expected = fed(ignite.Rouge([ngram, "L"], multiref, alpha), *batches)
        assert value == pytest.approx(expected)
        assert list(value) == list(expected)
        assert {type(number) for number in value.values()} == {float}


@given(st.lists(st.tuples(text, text), min_size=1, max_size=4))
@few
def test_rouge_is_googles(examples):
    names = {"rouge1": 1, "rouge2": 2, "rougeL": "L"}
    scorer = RougeScorer(list(names))
    scores = [scorer.score(" ".join(reference), " ".join(c)) for c, reference in examples]
    value = fed(Rouge([1, 2, "L"], alpha=0.5), *split([(c, [r]) for c, r in examples]))
    for name, variant in names.items():
        for letter, part in (("P", "precision"), ("R", "recall"), ("F", "fmeasure")):
            mean = sum(getattr(score[name], part) for score in scores) / len(scores)
            assert value[f"Rouge-{variant}-{letter}"] == pytest.approx(mean)


def test_tokens_are_anything_hashable_or_numbers_in_a_tensor():
    words = ([["the", "cat", "sat"]], [[["the", "cat"], ["a", "cat", "sat"]]])
    numbers = ([torch.tensor([5, 7, 9])], [[torch.tensor([5, 7]), torch.tensor([2, 7, 9])]])
    for make in (lambda: Bleu(2), RougeL, lambda: RougeN(2)):
        assert fed(make(), words) == fed(make(), numbers)


def test_texts_that_do_not_pair_up_are_refused():
    for metric in (Bleu(), RougeN(), RougeL(), Rouge()):
        with pytest.raises(ValueError, match="got 1 candidates and references for 0"):
            metric.update(([["a"]], []))
        with pytest.raises(ValueError, match="candidate 0 of the batch has no reference"):
            metric.update(([["a"]], [[]]))
        with pytest.raises(
            TypeError, match="takes lists of tokens, got the string 'the cat': split"
        ):
            metric.update((["the cat"], [["the cat"]]))
        with pytest.raises(NotComputableError):
            metric.compute()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bleu(0), "ngram must be at least 1, got 0"),
        (lambda: Bleu(smooth="x"), "smooth must be one of no_smooth, .* got 'x'"),
        (lambda: Bleu(average="x"), "average must be one of macro, micro, got 'x'"),
        (lambda: RougeN(0), "ngram must be at least 1, got 0"),
        (lambda: RougeL("x"), "multiref must be one of average, best, got 'x'"),
        (lambda: RougeL(alpha=2), "alpha must be from 0 to 1, got 2"),
        (lambda: Rouge(["l"]), "a variant is 'L' or an integer above 0, got 'l'"),
        (lambda: Rouge([0]), "a variant is 'L' or an integer above 0, got 0"),
    ],
)
def test_what_no_text_metric_has_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def edits_by_table(left, right):
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def common_by_table(left, right):
    row = [0] * (len(right) + 1)
    for a in left:
        above = 0
        for j, b in enumerate(right, 1):
            above, row[j] = row[j], above + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_bits_of_integers_are_the_tables_of_the_text_books(left, right):
    assert edit_distance(left, right) == edits_by_table(left, right)
    assert longest_common_subsequence(left, right) == common_by_table(left, right)


def test_long_texts():
    generator = random.Random(0)
    left, right = (generator.choices("abcdefgh", k=number) for number in (300, 260))
    assert edit_distance(left, right) == edits_by_table(left, right)
    assert longest_common_subsequence(left, right) == common_by_table(left, right)


@given(
    st.lists(
        st.tuples(st.text("ab ", max_size=6), st.text("ab ", min_size=1, max_size=6)),
        min_size=1,
        max_size=4,
    )
)
@few
def test_the_character_error_rate_is_ignites(examples):
    batches = split(examples)
    expected = fed(ignite.CharacterErrorRate(), *batches)
    assert fed(CharacterErrorRate(), *batches) == pytest.approx(expected, rel=1e-6)


def test_characters_of_single_strings_and_of_none():
    assert fed(CharacterErrorRate(), ("kitten", "sitting")) == 3 / 7
    assert fed(CharacterErrorRate(), (["a"], [""]), (["b"], ["cd"])) == 1.5
    with pytest.raises(NotComputableError):
        fed(CharacterErrorRate(), (["a"], [""]))
    with pytest.raises(ValueError, match="got 1 texts in y_pred and 2 in y"):
        CharacterErrorRate().update((["a"], ["b", "c"]))
    with pytest.raises(TypeError, match="y must be a string or a list of strings, got int"):
        CharacterErrorRate().update(("a", 3))
    with pytest.raises(TypeError, match="y_pred must hold strings, got one list"):
        CharacterErrorRate().update(([["a"]], ["a"]))


@given(
    st.integers(0, 3),
    st.integers(2, 7),
    st.sampled_from([(), (1,), (4,), (2, 3)]),
    st.integers(0, 99),
)
@few
def test_perplexity_is_the_exponential_of_the_cross_entropy(batch, vocabulary, rest, seed):
    generator = torch.Generator().manual_seed(seed)
    metric, scores, targets = Perplexity(ignore_index=1), [], []
    for _ in range(2):
        shape = (batch + 1, vocabulary, *rest)
        scores.append(5 * torch.randn(shape, generator=generator))
        targets.append(torch.randint(0, vocabulary, (batch + 1, *rest), generator=generator))
        targets[-1].flatten()[0] = 0
        metric.update((scores[-1], targets[-1]))
    loss = cross_entropy(torch.cat(scores).double(), torch.cat(targets), ignore_index=1)
    assert metric.compute() == pytest.approx(loss.exp().item(), rel=1e-5)


def test_perplexity_of_half_precision_is_summed_in_float64():
    scores = torch.randn(2, 50, 300, generator=torch.Generator().manual_seed(0))
    y = torch.arange(600).reshape(2, 300) % 50
    for dtype in (torch.bfloat16, torch.float16):
        low = scores.to(dtype)
        expected = fed(Perplexity(), (low.double(), y))
        assert fed(Perplexity(), (low, y)) == pytest.approx(expected, rel=1e-6)
    transposed = scores.transpose(1, 2).contiguous().transpose(1, 2)
    assert fed(Perplexity(), (transposed, y)) == pytest.approx(fed(Perplexity(), (scores, y)))
    with pytest.raises(
        ValueError, match=r"Perplexity: got scores \(2, 50, 300\) and tokens \(2, 50\)"
    ):
        Perplexity().update((scores, y[:, :50]))
    with pytest.raises(ValueError, match="expected scores .* and tokens"):
        Perplexity().update((scores[:, 0], y))
    with pytest.raises(NotComputableError):
        fed(Perplexity(ignore_index=3), (scores, torch.full_like(y, 3)))
