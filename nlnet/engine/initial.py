"""Where training starts: `init.weights` into the configured network."""

from fnmatch import fnmatchcase

from nlnet.engine.config import ConfigError, InitConfig
from nlnet.engine.rundir import load_weights_file
from nlnet.models import SOURCES, LoadReport, VideoResNet, differences, load_weights
from nlnet.models.zoo import FRESH
from nlnet.norms import fold_batch_norms


def load_initial(model: VideoResNet, init: InitConfig) -> tuple[str | None, LoadReport | None]:
    """Load `init.weights`; a line that says where the weights came from, and what became of them.

    Names that `init.drop` matches are left out. Where the network has frozen affine norms and the weights batch
    norms, these are folded (`nlnet.norms.fold_batch_norms`).

    Raises:
        ConfigError: `init.drop` leaves nothing. RunError, WeightsError: unreadable weights, or of another network.
    """
    if init.weights is None:
        return None, None
    file = load_weights_file(init.weights)
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
    notes += [f"not {SOURCES[file.source].title}'s own function: {', '.join(other[:4])}"] if other else []
    return "; ".join([f"{init.weights}: {report}", *notes]), report
