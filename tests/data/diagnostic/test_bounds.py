"""Bounds on networks that do not relate positions: closed forms, and fitted classifiers that stay below them."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nlnet.data.diagnostic.bounds import additive_bound, best_accuracy, population, single_item_bound


def test_the_population():
    cases = list(population())
    assert len(cases) == 180
    assert [sum(c.label == k for c in cases) for k in range(10)] == [18] * 10


def test_best_accuracies():
    assert best_accuracy(lambda c: None) == pytest.approx(0.1)
    assert best_accuracy(lambda c: c.cue) == pytest.approx(0.1)
    assert best_accuracy(lambda c: c.red) == pytest.approx(0.5)
    assert best_accuracy(lambda c: (c.red, c.cue)) == pytest.approx(0.5 + 0.5 / 9)
    assert best_accuracy(lambda c: c) == 1.0
    assert single_item_bound() == pytest.approx(0.5)
    assert additive_bound() == pytest.approx(0.75)


def one_hot(cases):
    return np.array(
        [
            np.concatenate([np.eye(10)[c.red], np.eye(10)[c.green], [c.cue == "red", c.cue == "green"]])
            for c in cases
        ]
    )


def test_logistic_regression_on_the_items_stays_below_the_additive_bound():
    cases = list(population())
    labels = [c.label for c in cases]
    rates = [
        LogisticRegression(C=c, max_iter=5000).fit(one_hot(cases), labels).score(one_hot(cases), labels)
        for c in (1.0, 100.0)
    ]
    assert max(rates) <= additive_bound()
    assert max(rates) >= 0.45


def test_with_products_of_the_items_the_same_classifier_is_always_right():
    """Only the relation is missing: with products digit × cue the label is a linear function."""
    cases = list(population())
    related = np.array([np.kron(row[:20], row[20:]) for row in one_hot(cases)])
    labels = [c.label for c in cases]
    assert LogisticRegression(C=100.0, max_iter=5000).fit(related, labels).score(related, labels) == 1.0
