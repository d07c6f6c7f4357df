"""Errors that a user can mend, and how their messages name things.

The command line prints a `NlnetError` as one line; every other exception of ours is a bug and keeps its traceback.
So an option, a file or a configuration that is wrong raises a NlnetError, and a tensor of the wrong shape in a call
of a layer raises a plain ValueError. Each is a ValueError, so that `except ValueError` catches both.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class NlnetError(ValueError):
    """Something that the user can mend: the message names the thing, what was expected and the fix."""


class InsertionError(NlnetError):
    """The model cannot take these blocks; it is unchanged."""


class WeightsError(NlnetError):
    """Weights that cannot be read, or that do not fit the model."""


class ConfigError(NlnetError):
    """A wrong configuration: names the key, what was given and what was expected."""


class AnnotationError(NlnetError):
    """An annotation file or file of class names cannot be read, or videos that it lists are missing."""


class RunError(NlnetError):
    """A run directory or checkpoint is missing or unreadable, exists already, or belongs to another run."""


class TrainingError(NlnetError):
    """Training cannot go on: the loss is NaN or infinite, or batch after batch could not be read."""


class EvaluationError(NlnetError):
    """Nothing could be scored, or a score is NaN or infinite."""


class ScoresError(NlnetError):
    """A file of scores that cannot be read, or scores that do not go together."""


class ProcessError(NlnetError):
    """Another process of the run failed."""


class MissingPackageError(NlnetError):
    """An optional package is not installed; the message has the command that installs it."""


def did_you_mean(word: object, known: Iterable[str], *, most: int = 3) -> str:
    """The end of a message, `; did you mean 'lr' or 'lrs'?`; empty if no known name is similar."""
    near = get_close_matches(str(word), list(known), n=most, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def listed(names: Iterable[str], most: int = 8) -> str:
    """The names joined by commas; of a long list the first ones and the number of all."""
    every = list(names)
    return ", ".join(every[:most]) + (f", … ({len(every)} in all)" if len(every) > most else "")
