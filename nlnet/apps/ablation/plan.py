"""What the study has to run: rows × seeds, each once, under names that stand for all that they depend on."""

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
from nlnet.engine.runs.atomic_write import write_json

MEANING = 1
"""Raise it when code changes what a row's configuration computes: old runs are then not taken for new ones."""
CLASSES = 10
Key = tuple[str, int]
"""A row's identity and a seed."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs of some tables in one directory."""

    out: Path
    study: Study
    tables: Mapping[str, Table]
    seeds: int
    stills: Mapping[str, Job] = field(default_factory=dict)
    """The 2-D networks by depth."""
    runs: Mapping[Key, Job] = field(default_factory=dict)
    """Seed by seed, so that the first seed's tables are whole early."""
    configs: Mapping[str, Config] = field(default_factory=dict)
    """By the job's name."""

    def data(self, name: str) -> Path:
        return data_directory(self.out, name)

    def runs_of(self, table: Table) -> dict[Key, Job]:
        """Its runs; some may belong to other tables, too."""
        keys = {identity(row, self.study) for row in table.rows}
        return {key: job for key, job in self.runs.items() if key[0] in keys}

    def weighted(self, jobs: Iterable[Job]) -> list[Job]:
        """With the multiply-adds of an iteration, for the estimate of the time left."""
        configs = ((job, self.configs[job.name]) for job in jobs)
        return [
            replace(job, weight=float(network_cost(config, CLASSES).macs * config.training.batch))
            for job, config in configs
        ]

    def write_configs(self) -> None:
        """The files that `nlnet train` takes."""
        for job in (*self.stills.values(), *self.runs.values()):
            write_json(Path(job.recipe), self.configs[job.name].model_dump(mode="json"))


def make_plan(tables: Mapping[str, Table], study: Study, out: Path, *, seeds: int, device: str) -> Plan:
    """Nothing is trained twice; nothing is written yet."""
    rows = {identity(row, study): row for table in tables.values() for row in table.rows}
    stills: dict[str, Job] = {}
    runs: dict[Key, Job] = {}
    configs: dict[str, Config] = {}
    for depth in dict.fromkeys(row.depth for row in rows.values()):
        config = study.stills_config(depth, data_directory(out, "stills"))
        name = f"{depth}-{_hash(_stills_facts(depth, study))}"
        stills[depth], configs[name] = _job(name, config, out / "stills", device, tests=False), config
    for seed in range(seeds):
        for key, row in rows.items():
            config = study.config(
                row, data=data_directory(out, row.data), weights=stills[row.depth].run, seed=seed
            )
            name = f"{label(row)}-{key}-s{seed}"
            runs[key, seed], configs[name] = _job(name, config, out / "runs", device, tests=True), config
    return Plan(out=out, study=study, tables=tables, seeds=seeds, stills=stills, runs=runs, configs=configs)


def data_directory(out: Path, name: str) -> Path:
    return out / "data" / name


def _job(name: str, config: Config, folder: Path, device: str, *, tests: bool) -> Job:
    recipe = folder / f"{name}.config.json"
    return Job(name, str(recipe), folder / name, (), tests=tests, device=device)


def identity(row: Row, study: Study) -> str:
    """Eight letters that stand for all that the row's runs depend on, except their seed."""
    config = study.config(row, data=Path("data"), weights=Path("stills"), seed=0)
    videos = [asdict(study.data[row.data].spec), dict(study.videos)]
    return _hash([config.model_dump(mode="json"), videos, _stills_facts(row.depth, study)])


def _stills_facts(depth: str, study: Study) -> list[Any]:
    config = study.stills_config(depth, Path("data"))
    return [config.model_dump(mode="json"), asdict(study.stills_spec), study.stills]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps([MEANING, value], sort_keys=True).encode()).hexdigest()[:8]


def label(row: Row) -> str:
    """`spacetime-c2d_mini38_nl1-res3-gaussian`: a name for people; `identity` tells rows apart."""
    model = row.model
    special = {model.stage: None, model.pairwise: "embedded_gaussian", model.axis: "spacetime"}
    return "-".join([row.data, model.name, *(str(v) for v, usual in special.items() if v != usual)])
