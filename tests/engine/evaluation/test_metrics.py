"""Average precision and ranks: the definition by brute force, scikit-learn without ties, small cases by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from nlnet.engine.evaluation.metrics import average_precision, charades_precision, rank_of


def defined(scores: list[float], shown: list[bool]) -> float:
    """(1/P) Σ over the videos that show the class of the share of such videos among those no lower in the order.

    Counted pair by pair: n stands before m if its score is higher, or equal and n < m.
    """
    total = 0.0
    for m in range(len(scores)):
        if shown[m]:
            before = [
                n for n in range(len(scores)) if scores[n] > scores[m] or (scores[n] == scores[m] and n <= m)
            ]
            total += sum(shown[n] for n in before) / len(before)
    positives = sum(shown)
    return total / positives if positives else math.nan


def column(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None]


def test_by_hand():
    # order: yes, no, yes, no: (1/1 + 2/3)/2
    scores, shown = [0.9, 0.8, 0.3, 0.1], [True, False, True, False]
    assert average_precision(column(scores), column(shown).bool()).item() == pytest.approx(5 / 6)
    # the only positive comes last of four
    assert average_precision(column(scores), column([False] * 3 + [True]).bool()).item() == 0.25
    assert average_precision(column(scores), column([True] * 4).bool()).item() == 1.0
    assert average_precision(column(scores), column([False] * 4).bool()).isnan()


def test_equal_scores_keep_the_lists_order():
    scores = column([0.5, 0.5, 0.5])
    assert average_precision(scores, column([True, False, False]).bool()).item() == 1.0
    assert average_precision(scores, column([False, False, True]).bool()).item() == pytest.approx(1 / 3)


@given(
    st.integers(1, 12).flatmap(lambda n: st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=n))
)
def test_it_is_the_definition_ties_included(pairs: list[tuple[int, bool]]):
    scores, shown = [float(s) for s, _ in pairs], [p for _, p in pairs]
    got = average_precision(column(scores), torch.tensor(shown)[:, None]).item()
    assert got == pytest.approx(defined(scores, shown), nan_ok=True, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), videos=st.integers(2, 60), classes=st.integers(1, 6))
def test_scikit_learn_agrees_where_nothing_ties(seed: int, videos: int, classes: int):
    rng = np.random.default_rng(seed)
    scores = np.stack([rng.permutation(videos) for _ in range(classes)], axis=1) / videos
    shown = rng.random((videos, classes)) < 0.3
    shown[0] = True  # scikit-learn warns of a class without positives
    expected = [average_precision_score(shown[:, k], scores[:, k]) for k in range(classes)]
    got = average_precision(torch.from_numpy(scores), torch.from_numpy(shown))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_a_video_without_actions_comes_last_in_the_official_evaluation():
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.1, 0.6]])
    shown = torch.tensor([[False, False], [True, False], [True, True]])
    # class 0: with the silent video first of three (1/2 + 2/3)/2, without its weight (1/1 + 2/2)/2
    assert average_precision(scores, shown).tolist() == pytest.approx([7 / 12, 1 / 2])
    assert charades_precision(scores, shown).tolist() == pytest.approx([1.0, 1 / 2])
    assert charades_precision(scores[1:], shown[1:]).tolist() == pytest.approx([1.0, 1 / 2])
    assert scores[0].tolist() == pytest.approx([0.9, 0.2])  # left as they were


def test_ranks_count_higher_scores_and_equal_ones_of_lower_classes():
    scores = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert rank_of(scores, 0).tolist() == [2, 0]
    # a tie has one winner, as with argmax: were both right, equal scores for all would be right about everything
    assert rank_of(scores, 1).tolist() == [0, 1]
    assert rank_of(scores[0], 2) == 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=6))
def test_ranks_are_places_in_a_stable_order_and_rank_0_is_argmax(rows: list[list[int]]):
    scores = torch.tensor(rows, dtype=torch.float32)
    for row, given_scores in zip(scores, rows, strict=True):
        order = sorted(range(5), key=lambda k: -given_scores[k])  # sorted() keeps the order of equals
        assert [int(rank_of(row, k)) for k in range(5)] == [order.index(k) for k in range(5)]
        assert rank_of(row, int(row.argmax())) == 0


def test_equal_scores_for_every_class_are_chance():
    scores = torch.full((10, 10), 0.1)
    assert sum(int(rank_of(scores[k], k) < 1) for k in range(10)) == 1
    assert sum(int(rank_of(scores[k], k) < 5) for k in range(10)) == 5
