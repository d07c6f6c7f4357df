"""Caffe2 pickles: real files are read exactly, and malicious ones refused before they take memory or time."""

import json
import pickle
import re
import resource
import struct
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.untrusted import NESTED_PAIRS, measured

from nlnet.weights.formats import pickle as pickles
from nlnet.weights.formats.caffe2 import read_blobs, write_blobs
from nlnet.weights.formats.pickle import encode
from nlnet.weights.formats.untrusted import UnsafeFileError

# Python 2's cPickle (protocol 2) of {"blobs": {"w": numpy.array([[1, 2]], "f4"), "model_iter": 7}}, by hand:
# str is SHORT_BINSTRING (U), the array's bytes are a str, too.
PYTHON_2 = (
    b"\x80\x02}q\x01U\x05blobsq\x02}q\x03(U\x01wcnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05"
    b"K\x00\x85U\x01b\x87Rq\x06(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x07U\x02f4K\x00K\x01\x87Rq\x08"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tb"
    b"U\nmodel_iterK\x07us."
)
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


STATE = b"K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"


def elements(code: bytes = b"f4", state: bytes = STATE) -> bytes:
    return b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R(" + state + b"tb"


def array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    """The pickle of {"w": array} whose array claims this shape, dtype and data."""
    return b"\x80\x02}U\x01w" + RECONSTRUCT + b"(K\x01" + shape + dtype + b"\x89" + data + b"tbs."


def hundredfold() -> bytes:
    """The pickle of a hundred arrays that all have the same million bytes as data."""
    many = b"\x80\x02}("
    for place in range(100):
        data = b"T" + struct.pack("<i", 10**6) + bytes(10**6) + b"q\x07" if place == 0 else b"h\x07"
        state = b"(K\x01J" + struct.pack("<i", 250_000) + b"\x85" + elements() + b"\x89" + data + b"tb"
        many += b"U\x02%02d" % place + RECONSTRUCT + state
    return many + b"u."


HUNDRED = hundredfold()


def blobs(tmp_path, content: bytes):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    return read_blobs(path)


def test_python_2_files(tmp_path):
    read = blobs(tmp_path, PYTHON_2)
    assert read["model_iter"] == 7
    assert torch.equal(read["w"], torch.tensor([[1.0, 2.0]]))


ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "fortran": np.asfortranarray(np.arange(24, dtype=np.float64).reshape(2, 3, 4)),
    "big": np.arange(5, dtype=">f4"),
    "half": np.linspace(-1, 1, 4).astype(np.float16),
    "counts": np.array([-3, 2**40], dtype=np.int64),
    "flags": np.array([True, False]),
    "lr": np.array(0.00125, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("nested", [True, False])
def test_every_protocol_and_layout(tmp_path, protocol, nested):
    values = {**ARRAYS, "scalar": np.float32(2.5), "epoch": 3}
    read = blobs(tmp_path, pickle.dumps({"blobs": values} if nested else OrderedDict(values), protocol))
    assert read.keys() == values.keys()
    for name, expected in ARRAYS.items():
        assert read[name].shape == expected.shape
        assert np.array_equal(read[name].numpy(), expected), name
    assert (read["scalar"].item(), read["epoch"]) == (2.5, 3)


def test_written_files_are_what_numpy_reads(tmp_path):
    values = {"a_w": torch.randn(2, 3, 1, 3, 3), "b_b": torch.randn(5), "lr": torch.tensor(0.5)}
    for nested in (True, False):
        path = tmp_path / f"{nested}.pkl"
        write_blobs(path, values | {"model_iter": 400_000}, nested=nested)
        with path.open("rb") as file:
            theirs = pickle.load(file, encoding="latin1")
        theirs = theirs["blobs"] if nested else theirs
        assert theirs.pop("model_iter") == 400_000
        assert theirs.keys() == values.keys()
        for name, value in values.items():
            assert theirs[name].dtype == np.float32
            assert np.array_equal(theirs[name], value.numpy())
        read = read_blobs(path)
        assert all(torch.equal(read[name], value) for name, value in values.items())


class Evil:
    def __reduce__(self):
        return eval, ("1/0",)


FOREIGN = {
    "global __builtin__.eval": pickle.dumps({"w": Evil()}, 2),
    "global builtins.eval": pickle.dumps({"w": Evil()}, 4),
    "global os.system": b"(S'echo'\nios\nsystem\n.",  # INST
    "global posix.system": b"(cposix\nsystem\nS'echo'\no.",  # OBJ
    "global numpy.load": b"cnumpy\nload\nU\x01x\x85R.",
    "global numpy.core.multiarray.fromstring": b"cnumpy.core.multiarray\nfromstring\n.",
    "unregistered extension code 1": b"\x80\x02\x82\x01.",  # EXT1
    r"calls bytes\(\) with an argument": b"c__builtin__\nbytes\nI9\n\x85R.",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_globals_are_refused_by_name(tmp_path, name):
    with pytest.raises(
        UnsafeFileError, match=rf"x\.pkl: not a Caffe2 weight file that can be read safely: .*{name}"
    ):
        blobs(tmp_path, FOREIGN[name])


BOMBS = {
    "shape": (
        array(b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", elements(), b"U\x04abcd"),
        "claims an array of shape",
    ),
    "negative": (array(b"(J\xff\xff\xff\xfft", elements(), b"U\x04abcd"), "expected up to 8 sizes below"),
    "many axes": (
        array(b"(" + b"K\x01" * 9 + b"t", elements(), b"U\x04abcd"),
        "expected up to 8 sizes below",
    ),
    "shape that is text": (array(b"U\x01x", elements(), b"U\x04abcd"), "expected up to 8 sizes below"),
    "objects": (array(b"(K\x01t", elements(b"O8"), b"(Nl"), "of type 'O8', expected one of f2"),
    "void": (array(b"(K\x01t", elements(b"V4"), b"U\x04abcd"), "of type 'V4'"),
    "shape of shapes": (
        array(
            b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(40)),
            elements(),
            b"U\x04abcd",
        ),
        "expected up to 8 sizes below",
    ),
    "no latin-1": (array(b"K\x01\x85", elements(b"u1"), b"X\x02\0\0\0\xc4\x80"), "can't encode"),
    "no dtype": (array(b"(K\x01t", b"U\x02f4", b"U\x04abcd"), "of type 'f4'"),
    "records": (
        array(
            b"(K\x01t",
            elements(b"f4", b"K\x03U\x01<N(tU\x01aJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"),
            b"U\x04abcd",
        ),
        "array of records",
    ),
    "data that is no data": (array(b"(K\x01t", elements(), b"]"), "whose data is list"),
    "no state": (b"\x80\x02}U\x01w" + RECONSTRUCT + b"s.", "the blob 'w' is a NoneType"),
    "memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "claims memo index 2,147,483,647"),
    "text memo": (b"}p99999999999\n.", "claims memo index"),
    "frame": (
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
        "claims a frame of 1,099,511,627,776 bytes",
    ),
    "long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"}.", "cut short or damaged"),
    "long bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"}.", "cut short or damaged"),
    "long text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"}.", "cut short or damaged"),
    "long string": (b"T\xff\xff\xff\x7fx.", "cut short or damaged"),
    "open string": (b"S'abc", "cut short"),
    "open global": (b"cnumpy\nndarr", "cut short"),
    "memo that is no number": (b"}pone\n.", "cut short or damaged"),
    "unknown opcode": (b"\x80\x02\xff.", "byte 2 is not a pickle opcode"),
    "attributes of a global": (b"cnumpy\ndtype\n}U\x04codeU\x01xsb.", "sets the attributes of a global"),
    "an array of a type": (b"cnumpy\nndarray\n)R.", r"calls numpy\.ndarray, which weight files never do"),
    "outside objects": (b"U\x01xQ.", "refers to an object outside the pickle"),
    "another encoding": (b"c_codecs\nencode\nU\x01xU\x04zlib\x86R.", "encodes bytes as 'zlib'"),
    "empty": (b"", "is empty"),
    "end": (b"\x80\x02}", "cut short"),
    "stack": (b"\x80\x02R.", "is damaged"),
    "a list": (b"].", "holds a list, expected a dictionary of blobs by name"),
    "numbers as names": (b"}K\x01K\x02s.", "expected a dictionary of blobs by name"),
    "itself": (b"]q\x01h\x01a.", "holds a list"),
    # pairs nested sixty deep, each holding the pair below twice: to hash them takes 2^60 steps
    "tuple as key": (b"}" + NESTED_PAIRS + b"K\x01s.", "a tuple as a dictionary key or set member"),
    "tuple as key from the memo": (
        b"}" + NESTED_PAIRS + b"q\x7f0h\x7fK\x01s.",
        "a tuple as a dictionary key or set member",
    ),
    "tuple as key, copied": (b"}" + NESTED_PAIRS + b"2K\x01s.", "a tuple as a dictionary key or set member"),
    "tuples as keys": (
        b"}(U\x01aK\x01" + NESTED_PAIRS + b"K\x01u.",
        "a tuple as a dictionary key or set member",
    ),
    "tuples as a dictionary's keys": (
        b"(U\x01aK\x01" + NESTED_PAIRS + b"K\x01d.",
        "a tuple as a dictionary key or set member",
    ),
    "tuples in a set": (b"\x8f(" + NESTED_PAIRS + b"\x90.", "a tuple as a dictionary key or set member"),
    "tuples in a frozen set": (b"(" + NESTED_PAIRS + b"\x91.", "a tuple as a dictionary key or set member"),
    "tuple as key of an ordered dictionary": (
        b"ccollections\nOrderedDict\n(](]" + NESTED_PAIRS + b"aK\x01aetR.",
        "builds a dictionary from .*, expected a list of pairs",
    ),
    "tuple as code": (
        array(
            b"(K\x01t", b"cnumpy\ndtype\n" + NESTED_PAIRS + b"K\x00K\x01\x87R(" + STATE + b"tb", b"U\x04abcd"
        ),
        r"of type \(\(.*, expected one of f2",
    ),
    "long number": (
        array(
            b"(" + (b"\x8b" + struct.pack("<i", 10**5) + b"\x7f" * 10**5) * 8 + b"t", elements(), b"U\x04abcd"
        ),
        "an integer of 100,000 bytes, expected at most 16",
    ),
    "nothing, enormous": (
        array(b"(K\x00\x8a\x09" + (2**63).to_bytes(9, "little") + b"t", elements(), b"U\x00"),
        "expected up to 8 sizes below",
    ),
    "nothing of much": (
        array(b"(K\x00" + b"J\xff\xff\xff\x7f" * 3 + b"t", elements(), b"U\x00"),
        "expected up to 8 sizes below",
    ),
    "same data a hundred times": (
        HUNDRED,
        r"claim 100,000,000 bytes in a file of 1,0..,...: several have the same",
    ),
}


def measure():
    """Read each bomb in this process, and print the outcome and by how many bytes the process grew.

    The process may take no more than 256 MiB of further addresses.
    """
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    path = Path(sys.argv[1]) / "x.pkl"
    path.write_bytes(PYTHON_2)
    read_blobs(path)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, resource.RLIM_INFINITY))
    for name, (content, _) in BOMBS.items():
        path.write_bytes(content)
        del content
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_blobs(path)
            outcome = "it was read"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([name, outcome, grown * 1024]), flush=True)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The output of `measure` in its own process: tracemalloc misses torch's memory, and a reader may hang."""
    command = [sys.executable, "-c", "import test_pickle; test_pickle.measure()"]
    return measured(command, tmp_path_factory.mktemp("bombs"))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_memory_is_taken(outcomes, name):
    assert name in outcomes, "reading it did not end"
    outcome, grown = outcomes[name]
    assert re.search("^UnsafeFileError: .*" + BOMBS[name][1], outcome), outcome
    assert grown < 16e6, f"{grown:,} bytes for a file of {len(BOMBS[name][0]):,}"


def test_files_that_are_not_weights(tmp_path):
    """A pointer of Git LFS or an HTML error page is often saved under the name of a weight file."""
    with pytest.raises(UnsafeFileError, match=r"it begins with b'version https://', so it is not a pickle"):
        blobs(tmp_path, b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UnsafeFileError, match="/dev/null: .* it is not a regular file"):
        read_blobs(Path("/dev/null"))


def test_too_many_opcodes(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPCODES", 100)
    assert blobs(tmp_path, b"}" * 99 + b".") == {}
    with pytest.raises(UnsafeFileError, match="more than 100 opcodes"):
        blobs(tmp_path, b"}" * 100 + b".")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    write_blobs(tmp_path / "whole.pkl", {"a_w": torch.randn(3, 2), "b": 1}, nested=True)
    whole = (tmp_path / "whole.pkl").read_bytes()
    for length in range(0, len(whole), 3):
        with pytest.raises(UnsafeFileError):
            blobs(tmp_path, whole[:length])


@given(st.integers(0, len(PYTHON_2) - 1), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_read_or_refused_but_nothing_else(tmp_path_factory, place, value, other):
    damaged = bytearray(PYTHON_2)
    damaged[place] = value
    damaged[(place * 7 + 3) % len(damaged)] ^= other
    try:
        read = blobs(tmp_path_factory.mktemp("d"), bytes(damaged))
    except UnsafeFileError:
        return
    assert isinstance(read, dict)


def test_only_latin1_encodes():
    assert encode("\xff\x00", "latin1") == "\xff\x00"  # the arrays' data are read from it as latin-1
    with pytest.raises(UnsafeFileError, match="utf-16"):
        encode("x", "utf-16")
    with pytest.raises(UnsafeFileError, match="expected latin1"):
        encode(3, "latin1")


def test_one_array_under_two_names(tmp_path):
    array = np.arange(1000, dtype=np.float32)
    read = blobs(tmp_path, pickle.dumps({"a": array, "b": array}, 2))
    assert torch.equal(read["a"], torch.arange(1000.0))
    assert torch.equal(read["b"], torch.arange(1000.0))


def test_python_2s_ordered_dictionaries(tmp_path):
    once = b"ccollections\nOrderedDict\n(](](U\x01aK\x01e](U\x01bK\x02eetR"
    assert blobs(tmp_path, once + b".") == {"a": 1, "b": 2}
    call = b"ccollections\nOrderedDict\nh\x01\x85R"
    with pytest.raises(
        UnsafeFileError, match="expected a list of pairs"
    ):  # the list comes again, from the memo
        blobs(tmp_path, b"](](U\x01aK\x01eeq\x01" + call + call + b".")
    with pytest.raises(UnsafeFileError, match="builds a dictionary from .*, expected a list of pairs"):
        blobs(tmp_path, b"ccollections\nOrderedDict\n}\x85R.")


def test_a_files_attributes_on_dictionaries_are_dropped(tmp_path):
    values = OrderedDict(a=1)
    values.items_of_ours = "x"
    assert blobs(tmp_path, pickle.dumps(values, 2)) == {"a": 1}
