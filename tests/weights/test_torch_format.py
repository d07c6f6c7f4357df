"""Torch files: the sizes that a file claims are checked against its bytes before torch loads it."""

import codecs
import json
import os
import pickle
import re
import resource
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from support.untrusted import NESTED_PAIRS, measured

from nlnet.weights.formats.torch import is_torch, read_torch
from nlnet.weights.formats.untrusted import UnsafeFileError


def save(path, value, *, legacy=False):
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


class Stored:
    """Pickles as a storage of `elements` floats under the key "0"."""

    def __init__(self, elements, kind=torch.FloatStorage):
        self.identity = ("storage", kind, "0", "cpu", elements)


class Claim:
    """Pickles as torch pickles a tensor, with these claims."""

    def __init__(self, elements, size, stride, offset=0):
        self.arguments = (Stored(elements), offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def archive(path, value, *, data=b"\0" * 16, compression=zipfile.ZIP_STORED, twice=False, name="x/data.pkl"):
    """Write a file like torch.save's whose pickle makes any claims about the 16 bytes of storage 0."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return item.identity if isinstance(item, Stored) else None

    with zipfile.ZipFile(path, "w", compression) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that a name is there twice
        with file.open(name, "w") as record:
            record.write(value) if isinstance(value, bytes) else Pickler(record, 2).dump(value)
        for _ in range(2 if twice else 1):
            file.writestr("x/data/0", data)
        file.writestr("x/byteorder", "little")
        file.writestr("x/version", "3\n")
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves_is_read(tmp_path, legacy):
    shared = torch.arange(12.0).view(3, 4)
    value = {
        "state_dict": {
            "view": shared[1:, ::2],
            "transposed": shared.t(),
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "half": torch.ones(3).bfloat16(),
            "count": torch.tensor(7),
            "empty": torch.empty(0, 5),
        },
        "epoch": 3,
        "cfg": "A: 1\n",
        "size": torch.Size([2, 3]),
    }
    path = save(tmp_path / "a.pth", value, legacy=legacy)
    assert is_torch(path)
    read = read_torch(path)
    assert (read["epoch"], read["cfg"], read["size"]) == (3, "A: 1\n", (2, 3))
    for name, expected in value["state_dict"].items():
        assert torch.equal(read["state_dict"][name], expected), name


def test_a_true_claim_passes(tmp_path):
    read = read_torch(archive(tmp_path / "x.pth", {"w": Claim(4, (2, 2), (2, 1))}))
    assert torch.equal(read["w"], torch.zeros(2, 2))


BOMBS = {
    "storage": (Claim(2**40, (2,), (1,)), "claims 4,398,046,511,104 bytes for storage '0' but holds 16"),
    "one more": (Claim(5, (2,), (1,)), "claims 20 bytes for storage '0' but holds 16"),
    "expanded": (Claim(4, (2**20, 2**20), (0, 0)), "claims a tensor of size .* in a storage of 4 elements"),
    "strided": (Claim(4, (2, 2), (3, 1)), "reaches beyond its storage of 4 elements"),
    "offset": (Claim(4, (2,), (1,), 3), "reaches beyond its storage of 4 elements"),
    "negative": (Claim(4, (-1,), (1,)), "expected up to 64 sizes"),
    "ragged": (Claim(4, (2, 2), (1,)), "claims a tensor of size"),
    "text": (Claim(4, "x", (1,)), "expected up to 64 sizes"),
    "elements": (Claim("4", (2,), (1,)), "a storage of '4' elements, expected an integer"),
    "kind": (Claim(4, (2,), (1,)), "expected an integer and one of torch's storage classes"),
    "called": (Claim(4, (2,), (1,)), "calls a storage class"),
}
BOMBS["kind"][0].arguments[0].identity = ("storage", OrderedDict, "0", "cpu", 4)


class Called:
    def __reduce__(self):
        return torch.FloatStorage, (2**40,)


class Copied:
    """Pickles as a call whose result `torch.load` copies."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


BOMBS["axes"] = (Claim(4, (1,) * 65, (1,) * 65), "a tensor of size .*, expected up to 64 sizes")
BOMBS["size"] = (Copied(torch.Size, (1,) * 65), "a torch.Size of .*, expected up to 64 sizes")
BOMBS["size of text"] = (Copied(torch.Size, "long"), "a torch.Size of 'long', expected up to 64 sizes")
BOMBS["text"] = (
    Copied(codecs.encode, "x" * 4097, "latin1"),
    "4,097 bytes encoded as text, expected at most 4,096",
)
BOMBS["called"] = (Called(), BOMBS["called"][1])
BOMBS["reference"] = (Claim(4, (2,), (1,)), "expected a storage")
BOMBS["reference"][0].arguments[0].identity = ("module", 1)


def nested_pairs():
    """Pairs nested sixty deep, each holding the pair below twice: 2^60 steps to hash or to print."""
    pair = ()
    for _ in range(60):
        pair = (pair, pair)
    return pair


BOMBS["tuples as storage key"] = (Claim(4, (2,), (1,)), "refers to .*, expected a storage")
BOMBS["tuples as storage key"][0].arguments[0].identity = (
    "storage",
    torch.FloatStorage,
    nested_pairs(),
    "cpu",
    4,
)
BOMBS["tuples as size"] = (Claim(4, (nested_pairs(),), (1,)), "a tensor of size .*, expected up to 64 sizes")
BOMBS["tuples as keys"] = (b"}" + NESTED_PAIRS + b"K\x01s.", "a tuple as a dictionary key or set member")
BOMBS["tuples as key by a size"] = (
    b"}ctorch\nSize\n" + NESTED_PAIRS + b"\x85RK\x01s.",
    "a torch.Size of .*, expected up to 64 sizes",
)
BOMBS["tuples as key by a parameter"] = (
    b"}ctorch._utils\n_rebuild_parameter\n(" + NESTED_PAIRS + b"I01\nNtRK\x01s.",
    "a parameter from .*, expected a tensor",
)
BOMBS["long number"] = (Claim(4, (1 << 10**6,), (1,)), "an integer of 125,001 bytes")
BOMBS["large offset"] = (Claim(4, (2,), (1,), 2**63), "expected a storage and integers below")
BOMBS["large stride"] = (Claim(4, (1,), (2**63,)), "expected a storage and integers below")
BOMBS["nothing, enormous"] = (
    Claim(4, (0, 2**62, 2**62), (1, 1, 1)),
    "a tensor of size .*, expected up to 64 sizes",
)
BOMBS["nothing of much"] = (
    Claim(4, (0, *(2**31 - 1,) * 3), (1, 1, 1, 1)),
    "a tensor of size .*, expected up to 64 sizes",
)


def measure():
    """Read each bomb in this process, and print the outcome and by how many bytes the process grew."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    directory = Path(sys.argv[1])
    read_torch(archive(directory / "x.pth", {"w": Claim(4, (2, 2), (2, 1))}))
    for index, (value, _) in enumerate(BOMBS.values()):
        archive(directory / f"{index}.pth", value if isinstance(value, bytes) else {"w": value})
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, resource.RLIM_INFINITY))
    for index, name in enumerate(BOMBS):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_torch(directory / f"{index}.pth")
            outcome = "it was read"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([name, outcome, grown * 1024]), flush=True)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    command = [sys.executable, "-c", "import test_torch_format; test_torch_format.measure()"]
    return measured(command, tmp_path_factory.mktemp("bombs"))


@pytest.mark.parametrize("name", BOMBS)
def test_false_claims(outcomes, name):
    assert name in outcomes, "reading it did not end"
    outcome, grown = outcomes[name]
    message = rf"^UnsafeFileError: .*\.pth: not weights that can be loaded safely: .*{BOMBS[name][1]}"
    assert re.search(message, outcome), outcome
    assert grown < 16e6, f"{grown:,} bytes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"compression": zipfile.ZIP_DEFLATED, "data": bytes(10**7)},
            "are compressed, which torch never does",
        ),
        ({"twice": True}, "two of its records have the same name"),
        ({"name": "x/other.pkl"}, "it has 0 records data.pkl, expected 1"),
    ],
)
def test_false_archives(tmp_path, options, message):
    with pytest.raises(UnsafeFileError, match=message):
        read_torch(archive(tmp_path / "x.pth", {"w": Claim(4, (2, 2), (2, 1))}, **options))


def test_an_archive_whose_records_overlap(tmp_path):
    path = archive(tmp_path / "x.pth", {"w": Claim(2**20, (1,), (1,))})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"x/data/0"))
    content[at + 20 : at + 28] = (2**22).to_bytes(4, "little") * 2  # both sizes in the central directory
    path.write_bytes(content)
    with pytest.raises(UnsafeFileError, match="its records claim more bytes than the file has"):
        read_torch(path)


def test_false_claims_in_the_old_format(tmp_path):
    path = save(tmp_path / "x.pth", {"w": torch.zeros(6)}, legacy=True)
    content = path.read_bytes()
    at = content.index(b"K\x06Ntq")  # numel, view metadata, end of the persistent id
    path.write_bytes(content[:at] + b"J\xff\xff\xff\x7f" + content[at + 2 :])
    with pytest.raises(UnsafeFileError, match="claims 8,589,934,588 bytes of storages in a file of"):
        read_torch(path)
    path.write_bytes(content[:-12])
    with pytest.raises(UnsafeFileError, match="cut short"):
        read_torch(path)
    path.write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(UnsafeFileError, match=r"not a file of torch\.save"):
        read_torch(path)


class Foreign:
    def __reduce__(self):
        return os.system, ("touch owned",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_by_name(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "x.pth", {"w": torch.zeros(2), "hook": Foreign()}, legacy=legacy)
    with pytest.raises(UnsafeFileError, match=r"asks for the global posix\.system, which is not plain data"):
        read_torch(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, legacy):
    whole = save(tmp_path / "x.pth", {"w": torch.zeros(3)}, legacy=legacy).read_bytes()
    for length in range(0, len(whole), 29):
        (tmp_path / "x.pth").write_bytes(whole[:length])
        with pytest.raises(UnsafeFileError):
            read_torch(tmp_path / "x.pth")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "x.pth")
