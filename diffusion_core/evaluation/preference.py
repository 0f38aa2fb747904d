"""What blind votes say: shares with Wilson intervals, Bradley–Terry strengths, agreement.

The intervals take the votes for independent. Several votes of a person, or on the same image, are
less than that: with few people or few images the true intervals are wider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_core.evaluation.intervals import WIDTH, wilson
from diffusion_core.runs.votes import Vote

# Chosen, all that was shown -> how often.
Choices = Mapping[tuple[str, frozenset[str]], float]

ITERATIONS = 100_000
TOLERANCE = 1e-12  # of the logarithm of a strength, from one iteration to the next


@dataclass(frozen=True)
class Share:
    """How often something was chosen where it was shown."""

    value: float
    low: float
    high: float
    n: int  # votes in which it was shown


@dataclass(frozen=True)
class Strength:
    """A Bradley–Terry strength and its 95 % interval; the geometric mean of all strengths is 1.

    Of two, one is chosen with the probability strength / (strength + strength of the other).
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Strengths:
    """The strengths by name, the greatest first."""

    by_name: dict[str, Strength]
    penalised: bool  # no finite strengths make the choices most likely; see `bradley_terry`


@dataclass(frozen=True)
class Agreement:
    """How often two people chose the same on the same question."""

    share: float | None  # of the pairs of votes on a question; None where there is no pair
    # Krippendorff's α: 1 for complete agreement, 0 for that of chance. None where nothing could
    # have differed: everybody chose the same everywhere.
    alpha: float | None
    pairs: int


def count_choices(votes: Iterable[Vote]) -> Choices:
    return Counter((vote.chosen, frozenset(vote.shown)) for vote in votes)


def shares(choices: Choices) -> dict[str, Share]:
    """The share of the votes with it that chose each, by name, the greatest first."""
    found = {}
    for name in sorted({name for _, shown in choices for name in shown}):
        n = round(sum(count for (_, shown), count in choices.items() if name in shown))
        share = sum(count for (chosen, _), count in choices.items() if chosen == name) / n
        found[name] = Share(share, *wilson(share, n), n)
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def bradley_terry(choices: Choices) -> Strengths:
    """The strengths that make the choices most likely, by the MM algorithm (Hunter 2004).

    Of more than two, one is chosen with the probability strength / sum of the strengths shown
    (Luce 1959); two are the model of Bradley and Terry (1952).

    Such strengths exist where everything was chosen, directly or by way of others, against
    everything else (Ford 1957); not where one was chosen every time. There a further opponent that
    stands for no name has won and lost half a time against each: strengths are finite, with a wide
    interval, and `penalised` is true.
    """
    names = sorted({name for _, shown in choices for name in shown})
    if not names:
        return Strengths({}, penalised=False)
    place = {name: k for k, name in enumerate(names)}
    sets = sorted({shown for _, shown in choices}, key=sorted)
    shown = np.zeros((len(sets), len(names)))
    wins = np.zeros((len(sets), len(names)))
    for row, each in enumerate(sets):
        shown[row, [place[name] for name in each]] = 1
        for name in each:
            wins[row, place[name]] = choices.get((name, each), 0)
    if penalised := not _has_maximum(shown, wins):
        opponent = np.eye(len(names)), np.ones((len(names), 1))
        shown = np.block([[shown, np.zeros((len(sets), 1))], list(opponent)])
        wins = np.block([[wins, np.zeros((len(sets), 1))], [half / 2 for half in opponent]])
    logs = _maximise(shown, wins)
    k = len(names)
    errors = _standard_errors(shown, wins, logs, k)
    logs = logs[:k] - logs[:k].mean()
    values, factors = np.exp(logs), np.exp(WIDTH * errors)
    found = {
        name: Strength(float(value), float(value / factor), float(value * factor))
        for name, value, factor in zip(names, values, factors, strict=True)
    }
    return Strengths(dict(sorted(found.items(), key=lambda item: -item[1].value)), penalised)


def agreement(votes: Iterable[Vote]) -> Agreement:
    """How much people agree, over the questions on which at least two have voted."""
    groups: dict[frozenset[str], dict[tuple[str, str], list[str]]] = {}
    for vote in votes:
        questions = groups.setdefault(frozenset(vote.shown), {})
        questions.setdefault((vote.review, vote.question), []).append(vote.chosen)
    return agreement_of([list(questions.values()) for questions in groups.values()])


def agreement_of(groups: Iterable[Iterable[Sequence[Hashable]]]) -> Agreement:
    """Agreement of values, given as groups of units of values, one value an observer.

    Krippendorff's α (2011) for nominal data: it takes any number of observers, also a different
    one for each unit. Values are compared with chance inside each group, since one that does not
    occur in a group could not have been given there; one group is Krippendorff's own α.
    """
    observed = expected = 0.0
    same = pairs = 0
    for group in groups:
        units = [Counter(unit) for unit in group if len(unit) > 1]
        total = sum(units, Counter[Hashable]())
        n = total.total()
        for unit in units:
            m = unit.total()
            alike = sum(count * (count - 1) for count in unit.values())
            observed += (m * (m - 1) - alike) / (m - 1)
            same += alike // 2
            pairs += m * (m - 1) // 2
        if n:
            expected += (n**2 - sum(count**2 for count in total.values())) / (n - 1)
    alpha = 1 - observed / expected if expected else None
    return Agreement(same / pairs if pairs else None, alpha, pairs)


def _has_maximum(shown: np.ndarray, wins: np.ndarray) -> bool:
    """Whether each was chosen, by way of others, against each: the graph is strongly connected."""
    n = shown.shape[1]
    reached = (wins.T @ shown > 0) | np.eye(n, dtype=bool)
    for _ in range(n.bit_length()):
        reached = reached @ reached
    return bool(reached.all())


def _maximise(shown: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """The logarithms of the strengths, up to a common summand."""
    won, votes = wins.sum(axis=0), wins.sum(axis=1)
    strengths = np.ones(shown.shape[1])
    for _ in range(ITERATIONS):
        new = won / (shown.T @ (votes / (shown @ strengths)))
        new /= np.exp(np.log(new).mean())
        change = np.abs(np.log(new / strengths)).max()
        strengths = new
        if change < TOLERANCE:
            break
    return np.log(strengths)


def _standard_errors(shown: np.ndarray, wins: np.ndarray, logs: np.ndarray, k: int) -> np.ndarray:
    """Of the first k logarithms less their mean, from the information in the choices."""
    chances = shown * np.exp(logs)
    chances /= chances.sum(axis=1, keepdims=True)
    votes = wins.sum(axis=1)
    information = np.diag(votes @ chances) - (chances.T * votes) @ chances
    contrasts = np.zeros((k, len(logs)))
    contrasts[:, :k] = np.eye(k) - 1 / k
    covariance = contrasts @ np.linalg.pinv(information) @ contrasts.T
    return np.sqrt(np.clip(np.diag(covariance), 0, None))
