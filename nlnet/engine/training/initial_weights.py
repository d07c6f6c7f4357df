"""Load `init.weights` into the configured network."""

from fnmatch import fnmatchcase

from nlnet.compatibility import differences
from nlnet.engine.config import InitConfig
from nlnet.errors import ConfigError, RunError, WeightsError
from nlnet.layers.folding import fold_batch_norms
from nlnet.models.resnet import VideoResNet
from nlnet.weights.load import LoadReport, load_weights
from nlnet.weights.projects import PROJECTS
from nlnet.weights.read import Weights, read_weights
from nlnet.zoo import FRESH


def load_initial(model: VideoResNet, init: InitConfig) -> tuple[str | None, LoadReport | None]:
    """Load `init.weights` into the model; return a line about their origin, and a report by key.

    Weights whose names match `init.drop` are left out. If the network has frozen affine norms and the weights have
    batch norms, the batch norms are folded (`nlnet.layers.folding.fold_batch_norms`). Without `init.weights` the model
    is unchanged and the result is (None, None).

    Raises:
        ConfigError: `init.drop` matches every weight.
        RunError, WeightsError: the weights cannot be read, or are those of another network.
    """
    file = read_initial(init)
    return (None, None) if file is None else start_from(file, model, init)


def read_initial(init: InitConfig) -> Weights | None:
    """Read the file `init.weights`; None if it is not set.

    Raises:
        RunError: it cannot be read.
    """
    if init.weights is None:
        return None
    try:
        return read_weights(init.weights, source=init.source)
    except WeightsError as error:
        raise RunError(str(error)) from None
    except OSError as error:
        raise RunError(f"{init.weights}: {error.strerror}") from None


def start_from(file: Weights, model: VideoResNet, init: InitConfig) -> tuple[str, LoadReport]:
    """Load the weights that `read_initial` returned into the model; same results as `load_initial`."""
    weights = file.state
    kept = {key: value for key, value in weights.items() if not any(fnmatchcase(key, g) for g in init.drop)}
    if not kept:
        raise ConfigError(
            f"init.drop: {', '.join(init.drop)} drops all {len(weights)} tensors of {init.weights}; "
            "use narrower patterns"
        )
    folded = fold_batch_norms(model, kept)
    # the classifier may have other classes than the file: then it stays fresh
    report = load_weights(model, folded, may_miss=FRESH, may_drop=("fc.*",))
    notes = [f"{len(weights) - len(kept)} left out (init.drop)"] if len(kept) < len(weights) else []
    norms = sum(key.endswith(".running_mean") for key in kept.keys() - folded.keys())
    notes += [f"{norms} batch norms folded into affine layers"] if norms else []
    # fine-tuning may change the network, but not unnoticed
    different = differences(model, file)
    if different:
        notes.append(
            f"the network differs from that of the weights ({PROJECTS[file.source].title}): "
            f"{', '.join(different[:4])}"
        )
    if file.statistics is not None:
        notes.append("trained on RGB with mean {}, deviation {}".format(*file.statistics))
    return "; ".join([f"{init.weights}: {report}", *notes]), report
