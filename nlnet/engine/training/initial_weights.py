"""Where training starts: `init.weights` into the configured network."""

from fnmatch import fnmatchcase

from nlnet.compatibility import differences
from nlnet.engine.config import InitConfig
from nlnet.errors import ConfigError, RunError, WeightsError
from nlnet.layers.norms import fold_batch_norms
from nlnet.models.resnet import VideoResNet
from nlnet.weights.load import LoadReport, load_weights
from nlnet.weights.projects.table import SOURCES
from nlnet.weights.read import Weights, read_weights
from nlnet.zoo import FRESH


def load_initial(model: VideoResNet, init: InitConfig) -> tuple[str | None, LoadReport | None]:
    """Load `init.weights`; a line that says where the weights came from, and what became of them.

    Names that `init.drop` matches are left out. Where the network has frozen affine norms and the weights batch
    norms, these are folded (`nlnet.layers.norms.fold_batch_norms`).

    Raises:
        ConfigError: `init.drop` leaves nothing. RunError, WeightsError: unreadable weights, or of another network.
    """
    file = read_initial(init)
    return (None, None) if file is None else start_from(file, model, init)


def read_initial(init: InitConfig) -> Weights | None:
    """The weights of `init`, if there are any.

    Raises:
        RunError: they cannot be read.
    """
    if init.weights is None:
        return None
    try:
        return read_weights(init.weights, source=init.source)
    except (WeightsError, OSError) as error:
        raise RunError(str(error)) from None


def start_from(file: Weights, model: VideoResNet, init: InitConfig) -> tuple[str, LoadReport]:
    """`load_initial` of weights that have been read."""
    weights = file.state
    kept = {key: value for key, value in weights.items() if not any(fnmatchcase(key, g) for g in init.drop)}
    if not kept:
        raise ConfigError(
            f"init.drop: {', '.join(init.drop)} drops all {len(weights)} tensors of {init.weights}"
        )
    folded = fold_batch_norms(model, kept)
    report = load_weights(model, folded, may_miss=FRESH, may_drop=("fc.*",))
    notes = [f"{len(weights) - len(kept)} left out (init.drop)"] if len(kept) < len(weights) else []
    norms = sum(key.endswith(".running_mean") for key in kept.keys() - folded.keys())
    notes += [f"{norms} batch norms folded into affine layers"] if norms else []
    other = differences(model, file)
    if other:
        notes.append(f"not the weights' own function ({SOURCES[file.source].title}): {', '.join(other[:4])}")
    if file.statistics is not None:
        notes.append("they saw RGB of mean {}, deviation {}".format(*file.statistics))
    return "; ".join([f"{init.weights}: {report}", *notes]), report
