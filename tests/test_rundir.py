"""Run directories: whole files or none, and clear words about damaged ones."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nlnet.engine.config import Config
from nlnet.engine.rundir import (
    Checkpoint,
    RunDir,
    RunError,
    atomically,
    load_checkpoint,
    load_state_dict,
    write_json,
)


def checkpoint(**weights):
    return Checkpoint(
        weights=weights, config=Config(), classes=("a b", "ü"), iteration=7, metrics={"clip_top1": 12.5}
    )


def test_checkpoint_round_trip(tmp_path):
    run = RunDir(tmp_path / "run")
    run.save("last", checkpoint(w=torch.randn(2, 3), n=torch.tensor(4)))
    loaded = load_checkpoint(run.path)
    assert torch.equal(loaded.weights["n"], torch.tensor(4))
    assert (loaded.config, loaded.classes, loaded.iteration) == (Config(), ("a b", "ü"), 7)
    assert loaded.metrics == {"clip_top1": 12.5}
    assert load_checkpoint(run.checkpoints / "last.safetensors").iteration == 7


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RunError, match="file: cannot write it .No space left on device.; what was there before is unchanged"
    ):
        atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_torch_writes(tmp_path):
    path = tmp_path / "state.pt"
    with pytest.raises(RunError, match=r"state\.pt: cannot write it"):
        atomically(path, lambda temporary: torch.save({"a": torch.zeros(10)}, "/dev/full"))
    assert not path.exists()


def test_an_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write there"):
        write_json(tmp_path / "file" / "config.json", {})


def test_metrics_survive_a_cut_last_line_and_rewind(tmp_path):
    run = RunDir(tmp_path)
    for i in (1, 2, 3):
        run.log({"iteration": i})
    with run.metrics_path.open("a") as file:
        file.write('{"iterat')
    assert [r["iteration"] for r in run.metrics()] == [1, 2, 3]
    run.rewind(2)
    assert run.metrics_path.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_a_directory_in_use(tmp_path):
    run = RunDir(tmp_path)
    run.create(Config(), ("a",))
    assert run.read_config() == (Config(), ("a",))
    with pytest.raises(RunError, match="a run is already here; continue it with --resume"):
        run.create(Config(), ("a",))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not a run directory"), ("{", "cannot read it"), ("{}", "cannot read it")],
)
def test_damaged_config(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=message):
        RunDir(tmp_path).read_config()


def test_state_that_is_missing_or_damaged(tmp_path):
    run = RunDir(tmp_path)
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        run.load_state()
    run.checkpoints.mkdir()
    run.resume_path.write_bytes(b"not torch")
    with pytest.raises(RunError, match=r"resume\.pt: cannot read it"):
        run.load_state()


def test_checkpoints_that_cannot_be_used(tmp_path):
    with pytest.raises(RunError, match="no checkpoint 'best' here"):
        load_checkpoint(tmp_path, "best")
    with pytest.raises(RunError, match=r"x\.safetensors: no such file"):
        load_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(RunError, match="not a readable .safetensors file"):
        load_checkpoint(tmp_path / "bad.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(RunError, match="has no nlnet metadata"):
        load_checkpoint(tmp_path / "plain.safetensors")


class Foreign:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_plain_weights(tmp_path):
    weights = {"w": torch.randn(2)}
    torch.save(weights, tmp_path / "a.pth")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "b.pth")
    save_file(weights, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        assert torch.equal(load_state_dict(tmp_path / name)["w"], weights["w"])


def test_weights_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Foreign()}, "foreign.pth")
    with pytest.raises(RunError, match=r"foreign\.pth: not weights that can be loaded safely"):
        load_state_dict(Path("foreign.pth"))
    assert not Path("owned").exists()
    torch.save([1, 2], "list.pth")
    with pytest.raises(RunError, match=r"list\.pth: expected a state dict .*, got list"):
        load_state_dict(Path("list.pth"))
    with pytest.raises(RunError, match=r"none\.pth: no such file"):
        load_state_dict(Path("none.pth"))


def test_json_is_readable(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1]})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1]}
