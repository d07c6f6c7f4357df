"""The training runs of the study, one for each row and seed; a hash of what a run depends on is part of its name."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nlnet.apps.ablation.study import Row, Study, Table
from nlnet.apps.jobs import Job
from nlnet.apps.recipes.costs import network_cost
from nlnet.engine.config import Config
from nlnet.engine.config.read import RENAMED
from nlnet.engine.runs.atomic_write import write_json

CODE_VERSION = 1
"""Raise it when code changes what a configuration computes: runs of the old code then have another name."""
CLASSES = 10
"""Digits, the classes of the videos."""
Key = tuple[str, int]
"""(identity of a row, seed)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The training runs behind some tables, and the directory that holds them."""

    out: Path
    study: Study
    tables: Mapping[str, Table]
    seeds: int
    stills: Mapping[str, Job] = field(default_factory=dict)
    """Jobs of the 2-D networks, by depth."""
    runs: Mapping[Key, Job] = field(default_factory=dict)
    """Jobs of the rows; all rows of the first seed come first, so that its tables are complete early."""
    configs: Mapping[str, Config] = field(default_factory=dict)
    """Configurations, by the name of their job."""

    def data(self, name: str) -> Path:
        """Return the directory of a data set."""
        return data_directory(self.out, name)

    def runs_of(self, table: Table) -> dict[Key, Job]:
        """Return the runs of a table; some may belong to other tables as well."""
        keys = {identity(row, self.study) for row in table.rows}
        return {key: job for key, job in self.runs.items() if key[0] in keys}

    def weighted(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs with the multiply-adds of an iteration as `weight`, for the estimate of the time left."""
        configs = ((job, self.configs[job.name]) for job in jobs)
        return [
            replace(job, weight=float(network_cost(config, CLASSES).macs * config.training.batch))
            for job, config in configs
        ]

    def write_configs(self) -> None:
        """Write the configuration files that the jobs pass to `nlnet train`."""
        for job in (*self.stills.values(), *self.runs.values()):
            write_json(Path(job.recipe), self.configs[job.name].model_dump(mode="json"))


def make_plan(tables: Mapping[str, Table], study: Study, out: Path, *, seeds: int, device: str) -> Plan:
    """Return the runs that the tables need, without writing anything; a row in several tables is run once."""
    # keyed by identity, so that a row of several tables is there once
    rows = {identity(row, study): row for table in tables.values() for row in table.rows}
    stills: dict[str, Job] = {}
    runs: dict[Key, Job] = {}
    configs: dict[str, Config] = {}
    for depth in dict.fromkeys(row.depth for row in rows.values()):
        config = study.stills_config(depth, data_directory(out, "stills"))
        name = f"{depth}-{_hash(_stills_facts(depth, study))}"
        stills[depth], configs[name] = _job(name, config, out / "stills", device, tests=False), config
    # the seed is the outer loop: all tables have a first result before any row has its second
    for seed in range(seeds):
        for key, row in rows.items():
            config = study.config(
                row, data=data_directory(out, row.data), weights=stills[row.depth].run, seed=seed
            )
            name = f"{label(row)}-{key}-s{seed}"
            runs[key, seed], configs[name] = _job(name, config, out / "runs", device, tests=True), config
    return Plan(out=out, study=study, tables=tables, seeds=seeds, stills=stills, runs=runs, configs=configs)


def data_directory(out: Path, name: str) -> Path:
    """Return the directory of a data set."""
    return out / "data" / name


def _job(name: str, config: Config, folder: Path, device: str, *, tests: bool) -> Job:
    recipe = folder / f"{name}.config.json"
    return Job(name, str(recipe), folder / name, (), tests=tests, device=device)


def identity(row: Row, study: Study) -> str:
    """Return a hash (8 hex digits) of everything that the runs of a row depend on, except their seed."""
    # fixed paths and seed: where the study lies does not matter
    config = study.config(row, data=Path("data"), weights=Path("stills"), seed=0)
    videos = [asdict(study.data[row.data].spec), dict(study.videos)]
    return _hash([_values(config), videos, _stills_facts(row.depth, study)])


def _stills_facts(depth: str, study: Study) -> list[Any]:
    """Everything that the 2-D network of this depth depends on."""
    config = study.stills_config(depth, Path("data"))
    return [_values(config), asdict(study.stills_spec), study.stills]


def _values(config: Config) -> dict[str, Any]:
    """The configuration as JSON values, under the old names of renamed keys: a rename must not change a hash."""
    values = config.model_dump(mode="json")
    for old, new in RENAMED.items():
        (section, old_key), new_key = old.split("."), new.split(".")[1]
        values[section][old_key] = values[section].pop(new_key)
    return values


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps([CODE_VERSION, value], sort_keys=True).encode()).hexdigest()[:8]


def label(row: Row) -> str:
    """Return a readable name of a row, such as `spacetime-c2d_mini38_nl1-res3-gaussian`; it need not be unique."""
    model = row.model
    special = {model.stage: None, model.pairwise: "embedded_gaussian", model.axis: "spacetime"}
    return "-".join([row.data, model.name, *(str(v) for v, usual in special.items() if v != usual)])
