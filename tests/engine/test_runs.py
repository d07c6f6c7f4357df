"""Run directories: atomic writes, locks, provenance, and messages about damaged files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nlnet.engine.config import Config
from nlnet.engine.network import load_network
from nlnet.engine.runs.atomic_write import write_atomically, write_json
from nlnet.engine.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nlnet.engine.runs.directory import RunDir, block_stats_records
from nlnet.engine.runs.provenance import commit
from nlnet.errors import RunError


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
        RunError,
        match="file: cannot write it .No space left on device.; the earlier file, if any, is unchanged",
    ):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_torch_writes(tmp_path):
    path = tmp_path / "state.pt"
    with pytest.raises(RunError, match=r"state\.pt: cannot write it"):
        write_atomically(path, lambda temporary: torch.save({"a": torch.zeros(10)}, "/dev/full"))
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


def test_rewinding_drops_a_validation_that_was_not_finished(tmp_path):
    run = RunDir(tmp_path)
    for kind in ("train", "validation"):
        run.log({"kind": kind, "iteration": 7})
    run.save("last", checkpoint(w=torch.zeros(1)))  # of iteration 7
    assert run.finished(7)
    run.rewind(7)
    assert [r["kind"] for r in run.metrics()] == ["train", "validation"]
    run.checkpoints.joinpath("last.safetensors").unlink()
    assert not run.finished(7)
    run.rewind(7)
    assert [r["kind"] for r in run.metrics()] == ["train"]


def test_the_best_so_far(tmp_path):
    run = RunDir(tmp_path)
    assert run.best("clip_top1") == float("-inf")
    run.save("best", checkpoint(w=torch.zeros(1)))
    assert (run.best("clip_top1"), run.best("video_map")) == (12.5, float("-inf"))


def test_half_written_files_of_a_kill_are_deleted_and_nothing_else(tmp_path):
    run = RunDir(tmp_path)
    run.create(Config(), ("a",))
    run.checkpoints.mkdir()
    left = [tmp_path / ".config.json.ab_12345", tmp_path / ".metrics.jsonl.k3_xq81z"]
    left += [run.checkpoints / ".resume.pt.aaaaaaaa", run.checkpoints / ".last.safetensors.0123abcd"]
    others = [tmp_path / ".hidden.json", tmp_path / "lock", run.checkpoints / ".resume.pt.mine"]
    for path in (*left, *others):
        path.write_text("half")
    run.rewind(0)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_one_process_at_a_time(tmp_path):
    run = RunDir(tmp_path / "run")
    assert not run.busy
    with run.lock():
        assert run.busy
        with (
            pytest.raises(
                RunError, match=rf"run: another process trains in this run .process {os.getpid()} on "
            ),
            run.lock(),
        ):
            pass
        assert run.busy
    assert not run.busy
    with run.lock():
        pass
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    assert not run.busy


HOLDER = """
import os, sys, time
from pathlib import Path
from nlnet.engine.runs.directory import RunDir
with RunDir(Path(sys.argv[1])).lock():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_ends_with_its_process_and_not_with_its_children(tmp_path):
    run = RunDir(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert run.busy
        with pytest.raises(RunError, match="another process trains in this run"), run.lock():
            pass
        holder.kill()
        holder.wait(timeout=20)
        deadline = time.monotonic() + 2  # the child sleeps on
        while run.busy and time.monotonic() < deadline:
            time.sleep(0.05)
        with run.lock():
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()


def test_a_lock_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run: cannot write there"), RunDir(tmp_path / "file" / "run").lock():
        pass


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    def refuse(handle: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("nlnet.engine.runs.lock.fcntl.flock", refuse)
    run = RunDir(tmp_path)
    with pytest.warns(UserWarning, match="lock: this file system has no locks"), run.lock():
        assert not run.busy


def test_every_session_is_recorded_in_provenance_json(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    assert run.sessions() == []
    run.record_session(0)
    run.record_session(40)
    first, second = json.loads((tmp_path / "provenance.json").read_text())
    assert (first["iteration"], second["iteration"]) == (0, 40)
    assert set(first) == {"iteration", "commit", "machine", "python", "torch", "nlnet", "started"}
    assert first["torch"] == torch.__version__
    assert first["started"].endswith("+00:00")
    # without git, the commit is unknown and the run goes on
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    run.record_session(50)
    assert run.sessions()[2]["commit"] == "unknown"
    run.provenance_path.write_text("[")
    with pytest.raises(RunError, match=r"provenance\.json: cannot read it"):
        run.record_session(60)
    run.provenance_path.write_text("{}")
    with pytest.raises(RunError, match=r"provenance\.json: cannot read it .expected a list of sessions"):
        run.record_session(60)


def test_older_runs_have_a_passport_json(tmp_path):
    """It is read, and a resumed run writes its sessions and the new one to provenance.json."""
    run = RunDir(tmp_path)
    old = [{"iteration": 0, "commit": "abc"}, {"iteration": 10, "commit": "abd"}]
    write_json(tmp_path / "passport.json", old)
    assert run.sessions() == old
    run.record_session(20)
    assert run.sessions()[:2] == old
    assert [entry["iteration"] for entry in run.sessions()] == [0, 10, 20]
    assert json.loads((tmp_path / "provenance.json").read_text()) == run.sessions()
    assert json.loads((tmp_path / "passport.json").read_text()) == old
    (tmp_path / "provenance.json").unlink()
    (tmp_path / "passport.json").write_text("[")
    with pytest.raises(RunError, match=r"passport\.json: cannot read it"):
        run.sessions()


def test_block_statistics_of_new_and_older_runs(tmp_path):
    run = RunDir(tmp_path)
    for iteration, kind in enumerate(("vitals", "train", "block_stats")):
        run.log({"kind": kind, "iteration": iteration})
    run.log({"iteration": 3})
    assert [record["iteration"] for record in block_stats_records(run.metrics())] == [0, 2]


def test_the_commit_is_of_the_package_not_of_the_folder_around_it(tmp_path):
    def git(*arguments: str) -> str:
        named = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
        return subprocess.run(named, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    inside = tmp_path / "package"
    inside.mkdir()
    (inside / "__init__.py").write_text("")
    (tmp_path / "other.txt").write_text("")
    git("init")
    git("add", "other.txt")
    git("commit", "-m", "x")
    assert commit(inside) == "unknown"
    git("add", ".")
    git("commit", "-m", "y")
    head = git("rev-parse", "HEAD")
    assert commit(inside) == head
    (tmp_path / "other.txt").write_text("changed")
    assert commit(inside) == head
    (inside / "__init__.py").write_text("changed")
    assert commit(inside) == f"{head} and changes"


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
    with pytest.raises(RunError, match=r"resume\.pt: cannot read it .*\Z"):
        run.load_state()
    run.save_state({"model": {}})
    with pytest.raises(
        RunError, match=r"resume\.pt: not a training state .expected a dict with .'config', 'iter"
    ):
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, r"its nlnet metadata are damaged \(KeyError: 'classes'\)"),
        ({"iteration": "x"}, r"its nlnet metadata are damaged \(ValueError: invalid literal"),
        ({"metrics": "{"}, r"its nlnet metadata are damaged \(JSONDecodeError"),
        ({"config": "{"}, "its configuration is not valid JSON"),
        ({"config": "[]"}, "expected sections such as `model:` and `data:`, got list"),
        (
            {"config": '{"training": {"batsh": 1}}'},
            "unknown key 'training.batsh'; did you mean 'training.batch'",
        ),
    ],
)
def test_checkpoints_with_damaged_metadata(tmp_path, change, message):
    """One line that names the file, never a traceback."""
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint(w=torch.zeros(1)))
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in (file.metadata() | change).items() if v is not None}
    save_file({"w": torch.zeros(1)}, path, metadata)
    with pytest.raises(RunError, match=rf"^{path}: {message}.*\Z"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_their_own_configuration(tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint(w=torch.zeros(1)))
    message = rf"^{path}: its weights do not fit the network i3d_r50_nl5 of its own configuration \(.*\)\Z"
    with pytest.raises(RunError, match=message):
        load_network(path, "last", torch.device("cpu"))


def test_checkpoints_with_an_old_name_of_a_key(tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint(w=torch.zeros(1)))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    config["training"]["vitals_every"] = config["training"].pop("block_stats_every") + 1
    save_file({"w": torch.zeros(1)}, path, metadata | {"config": json.dumps(config)})
    assert load_checkpoint(path).config.training.block_stats_every == 21


def test_json_is_readable(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1]})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1]}
