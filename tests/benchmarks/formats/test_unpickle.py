"""The restricted unpicklers on good, damaged and hostile pickles."""

import io
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import warnings
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.unpickle import (
    PLAIN,
    BulkUnpickler,
    FastUnpickler,
    StreamingUnpickler,
    Window,
    describe,
    guarded,
    restricted_loads,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def fast(data, allowed=PLAIN):
    return restricted_loads(data, allowed, where="sample.pkl", fast=True)


def streaming(data, allowed=PLAIN):
    return restricted_loads(data, allowed, where="sample.pkl")


def bulk(data, allowed=PLAIN, limit=None):
    unpickler = BulkUnpickler(Window(io.BytesIO(data).read, limit=limit, where="sample.pkl"), encoding="latin1")
    unpickler.allowed, unpickler.where = allowed, "sample.pkl"
    return guarded(unpickler.load, "sample.pkl")


every = pytest.mark.parametrize("load", [fast, streaming, bulk])
bounded = pytest.mark.parametrize("load", [streaming, bulk])


def same(a, b) -> bool:
    """Equality of plain data, where NaN equals NaN and 1 differs from 1.0 and True."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
keys = st.integers(-(10**6), 10**6) | st.text(max_size=40) | st.tuples(st.text(max_size=3), st.integers(0, 9))
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


class TestGoodPickles:
    @every
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @given(value=plain)
    @settings(max_examples=40, deadline=None)
    def test_plain_data_survives(self, load, protocol, value):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            allowed = {**PLAIN, "__builtin__.bytes": bytes}  # how protocol 2 spells b""
            assert same(load(pickle.dumps(value, protocol), allowed), value)

    @bounded
    @given(
        lengths=st.lists(st.integers(0, 300), max_size=4),
        name=st.text(max_size=30),
        protocol=st.sampled_from([2, 3, 4, 5]),
        share=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    @settings(max_examples=60, deadline=None)
    def test_runs_of_keys_and_floats(self, load, lengths, name, protocol, share, seed):
        """What the bulk step is for: curves by epoch and by "set@epoch", with keys shared between dicts or not."""
        rng = random.Random(seed)
        names = [f"{name}@{i}" for i in range(300)]
        value = []
        for n in lengths:
            value.append({i: rng.choice((rng.random(), math.nan, -0.0)) for i in range(n)})
            value.append({(names[i] if share else f"{name}@{i}"): rng.random() for i in range(n)})
            value.append({f"{i}": rng.random() if i % 50 else "not a float" for i in range(n)})
        assert same(load(pickle.dumps(value, protocol)), value)

    def test_bulk_takes_the_runs(self):
        """The step is taken: the single instructions of the runs are not seen."""
        seen = []

        class Counting(BulkUnpickler):
            dispatch = dict(BulkUnpickler.dispatch)

        def load_binfloat(self):
            seen.append(1)
            BulkUnpickler.dispatch[pickle.BINFLOAT[0]](self)

        Counting.dispatch[pickle.BINFLOAT[0]] = load_binfloat
        value = [{i: float(i) for i in range(200)}, {f"x-valid@{i}": float(i) for i in range(200)}]
        for protocol in (2, 4):
            seen.clear()
            unpickler = Counting(Window(io.BytesIO(pickle.dumps(value, protocol) + bytes(100)).read))
            unpickler.allowed, unpickler.where = PLAIN, "sample"
            assert unpickler.load() == value
            assert len(seen) < 10

    @every
    def test_numpy_scalars_become_numbers(self, load):
        for protocol in (2, 4):
            for scalar in (np.float64(0.1), np.float32(0.1), np.int64(-3), np.int32(7)):
                assert same(load(pickle.dumps([scalar], protocol)), [scalar.item()])

    @every
    @pytest.mark.parametrize("scalar", [np.complex128(1j), np.array([1.0]), np.bool_(True), np.float16(1)])
    def test_other_numpy_objects_are_refused(self, load, scalar):
        with pytest.raises(FormatError, match="scalar|numpy"):
            load(pickle.dumps(scalar, 2))

    def test_source_is_left_behind_the_pickle(self):
        source = io.BytesIO(pickle.dumps([1.0] * 1000) + pickle.dumps("next") + b"rest")
        for is_fast in (False, True):
            source.seek(0)
            assert restricted_loads(source, where="w", fast=False) == [1.0] * 1000
            assert restricted_loads(source, where="w", fast=is_fast) == "next"
        source.seek(0)
        window = Window(source.read)
        for expected in ([1.0] * 1000, "next"):
            unpickler = StreamingUnpickler(window)
            unpickler.allowed, unpickler.where = PLAIN, "w"
            assert unpickler.load() == expected
        assert window.read(4) == b"rest" and window.ahead(1) == 0
        assert window.taken == len(source.getvalue())


def hostile_global(module: bytes, name: bytes, arg: bytes = b"") -> list[bytes]:
    """The ways in which a pickle can ask for a global and call it with one string."""
    argument = text(arg.decode())
    qualified = text(module.decode()), text(name.decode())
    by_name = b"c" + module + b"\n" + name + b"\n"
    by_stack = qualified[0] + qualified[1] + b"\x93"
    return [
        by_name + argument + b"\x85R.",
        b"\x80\x02" + by_name + argument + b"\x85R.",
        b"\x80\x04" + by_stack + argument + b"\x85R.",
        b"(" + argument + b"i" + module + b"\n" + name + b"\n.",  # INST
        b"(" + by_name + argument + b"o.",  # OBJ
        by_name + argument + b"\x85\x81.",  # NEWOBJ
        b"\x80\x04" + by_stack + argument + b"\x85}\x92.",  # NEWOBJ_EX
    ]


class TestHostilePickles:
    @every
    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("os", "system"),
            ("posix", "system"),
            ("nt", "system"),
            ("builtins", "eval"),
            ("__builtin__", "eval"),
            ("builtins", "getattr"),
            ("subprocess", "Popen"),
            ("copy_reg", "_reconstructor"),
            ("copyreg", "_reconstructor"),
            ("numpy", "core.multiarray.scalar.__globals__"),
            ("collections", "OrderedDict.fromkeys"),
            ("collections", "OrderedDict.__init__.__globals__"),
            ("numpy.core.multiarray", "scalar.__class__"),
            ("numpy", "core.multiarray.scalar"),
            ("torch.storage", "_load_from_bytes"),
            ("nasharness.benchmarks.formats.unpickle", "restricted_loads"),
        ],
    )
    def test_globals_are_refused_by_their_name(self, load, module, name, tmp_path):
        trace = tmp_path / "executed"
        for data in hostile_global(module.encode(), name.encode(), f"touch {trace}".encode()):
            with pytest.raises(FormatError, match=rf"asks for {module}\.{name.replace('.', '[.]')}\b"):
                load(data)
        assert not trace.exists()

    @every
    def test_objects_with_reduce_are_refused(self, load, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/executed",)

        for protocol in PROTOCOLS:
            with pytest.raises(FormatError, match="asks for (posix|nt).system"):
                load(pickle.dumps(Evil(), protocol))
        assert not list(tmp_path.iterdir())

    ordered = b"ccollections\nOrderedDict\n"
    scalar = b"cnumpy.core.multiarray\nscalar\n"
    dtype = b"cnumpy\ndtype\n"

    @every
    @pytest.mark.parametrize(
        "data",
        [
            text("abc") + b")R.",  # REDUCE on a str
            b"})R.",
            b"K\x05)R.",
            text("abc") + b"K\x05R.",  # arguments that are no tuple
            ordered + b"K\x05R.",
            ordered + b"]\x85R.",  # OrderedDict(list)
            scalar + b")R.",
            scalar + b"K\x01K\x02\x86R.",
            scalar + b"N" + b"B\x08\0\0\0" + bytes(8) + b"\x86R.",
            dtype + b")R.",
            dtype + text("O8") + b"\x85R.",
            dtype + b"]\x85R.",
            dtype + text("f8") + b"\x85R(K\x03" + text(">") + b"NNNK\xffK\xffK\0tb.",  # big-endian
            dtype + text("f8") + b"\x85RNb.",
            scalar + dtype + b")\x81" + b"B\x08\0\0\0" + bytes(8) + b"\x86R.",  # a dtype that was never made
            b"c_codecs\nencode\n" + text("abc") + text("rot13") + b"\x86R.",
            b"c_codecs\nencode\n" + text("ሴ") + b"\x85R.",
            b"c_codecs\nencode\nB\1\0\0\0a\x85R.",
            # BUILD: attributes of functions, classes and instances
            scalar + b"}" + text("__defaults__") + text("x") + b"sb.",
            scalar + b"N}" + text("__defaults__") + b")s\x86b.",
            scalar + b"N}" + text("_function") + ordered + b"s\x86b.",
            dtype + b"}" + text("__setstate__") + text("x") + b"sb.",
            dtype + b"N}" + text("__setstate__") + text("x") + b"s\x86b.",
            dtype + text("f8") + b"\x85R}" + text("__class__") + ordered + b"sb.",
            dtype + text("f8") + b"\x85RN}" + text("__class__") + dtype + b"s\x86b.",
            ordered + b"N}" + text("update") + text("x") + b"s\x86b.",
            ordered + b"}" + text("fromkeys") + text("x") + b"sb.",
            b"]}" + text("x") + text("y") + b"sb.",
            # persistent ids and extensions
            b"P0\n.",
            text("x") + b"Q.",
            b"\x82\x01.",
            b"\x83\x01\x01.",
            b"\x84\x01\x01\x01\x01.",
            b"\x97.",
            b"\x98.",
            # lengths that are not there
            b"\x8b\xff\xff\xff\x7f.",
            b"\x8b\xff\xff\xff\xff.",
            b"\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
            b"\x8e" + struct.pack("<Q", 1 << 62) + b"abc.",
            b"\x8e" + struct.pack("<Q", (1 << 64) - 1) + b"abc.",
            b"B\xff\xff\xff\xffabc.",
            b"X\xff\xff\xff\xffabc.",
            b"T\xff\xff\xff\x7fabc.",
            # stack and memo
            b".",
            b"0.",
            b"1.",
            b"a.",
            b"u.",
            b"h\x05.",
            b"j\x05\0\0\0.",
            b"g99\n.",
            b"g-1\n.",
            b"p-1\n.",
            b"2.",
            b"K\1K\2s.",
            b"]K\1K\2s.",
            b"}(K\1u.",
            b"}]K\1s.",
            b"(]tK\1s.",
            b"\x8f(]\x90.",
            b"(]\x91.",
            b"I1e9\n.",
            b"Fx\n.",
            b"Sabc\n.",
            b"V\\u12\n.",
            b"L" + b"9" * 5000 + b"L\n.",
            b"X\2\0\0\0\xff\xfe.",
            b"c\xff\xfe\nx\n.",
            b"\xff.",
            b"\x80\x09.",
            b"",
        ],
    )
    def test_tricks_are_refused(self, load, data):
        with pytest.raises(FormatError, match=r"sample\.pkl"):
            load(data)
        assert fast(pickle.dumps([np.float64(0.5), OrderedDict(a=1)], 2)) == [
            0.5,
            {"a": 1},
        ]  # the stand-ins are as before

    @bounded
    def test_attributes_only_where_they_are_plain(self, load):
        with_metadata = self.ordered + b")R}" + text("_metadata") + text("x") + b"sb."
        assert load(with_metadata)._metadata == "x"
        for name in ("items", "__class__", "__dict__", "no identifier"):
            with pytest.raises(FormatError, match="sets attributes"):
                load(self.ordered + b")R}" + text(name) + text("x") + b"sb.")
        with pytest.raises(FormatError, match="sets attributes"):
            load(self.ordered + b")RN}" + text("a") + text("x") + b"s\x86b.")  # the form that uses setattr

    @bounded
    def test_keys_that_hash_for_ever_are_refused(self, load):
        tower = b"K\0" + b"2\x86" * 200  # t = (t, t), 200 times
        for data in (b"}" + tower + b"Ns.", b"}(" + tower + b"Nu.", b"(" + tower + b"Nd.", b"\x8f(" + tower + b"\x90."):
            with pytest.raises(FormatError, match="as a key"):
                load(data)
        chain = b"}" + b")" + b"\x85" * 100_000 + b"Ns."
        with pytest.raises(FormatError, match="as a key"):
            load(chain)
        colliding = b"}" + b"\x8a\x09" + ((1 << 61) - 1 << 3).to_bytes(9, "little") + b"Ns."
        with pytest.raises(FormatError, match="as a key"):
            load(colliding)

    @bounded
    def test_copies_are_counted(self, load):
        copies = b"c_codecs\nencode\np0\n0" + text("x" * 100_000) + b"\x85p1\n0](" + b"g0\ng1\nR" * 10_000 + b"e."
        with pytest.raises(FormatError, match="copies"):
            load(copies)
        through_obj = b"c_codecs\nencode\np0\n0" + text("x" * 100_000) + b"p1\n0](" + b"(g0\ng1\no" * 10_000 + b"e."
        with pytest.raises(FormatError, match="copies"):
            load(through_obj)

    @every
    def test_deep_nesting_is_no_problem(self, load):
        value = load(b"]" * 50_000 + b"a" * 49_999 + b".")
        for _ in range(10):
            (value,) = value

    @pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
    def test_memory_is_bounded_by_the_file(self):
        """Lengths and memo places of many gigabytes, read in a process of its own."""
        script = """
            import struct, sys
            from nasharness.benchmarks.formats.errors import FormatError
            from nasharness.benchmarks.formats.unpickle import restricted_loads
            def peak():
                with open("/proc/self/status") as status:
                    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
            before = peak()
            size = struct.pack("<Q", 3 << 30)
            for opcode in (b"\\x8d", b"\\x8e", b"\\x96", b"\\x95"):
                try:
                    restricted_loads(opcode + size + b"abc.", where="w")
                except FormatError:
                    continue
                sys.exit(f"{opcode} was read")
            for puts in (b"Nr\\xff\\xff\\xff\\xff.", b"Np" + b"9" * 15 + b"\\n."):
                assert restricted_loads(puts, where="w") is None
            print((peak() - before) // 1024)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) < 20  # MiB


def sample():
    rng = random.Random(5)
    return {
        "curve": {i: rng.random() for i in range(40)},
        "evaluations": {f"x-valid@{i}": rng.random() for i in range(40)},
        "shared": OrderedDict(a=np.float64(0.5), b=[1, 2, ("x", 7)], c=None, d=b"bytes", e=True),
    }


class TestDamage:
    @every
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_cut_off_anywhere(self, load, protocol):
        data = pickle.dumps(sample(), protocol)
        for end in range(0, len(data) - 1, 3):
            with pytest.raises(FormatError, match=r"sample\.pkl"):
                load(data[:end])

    @pytest.mark.parametrize(
        ("load", "protocol"),
        # Not the C unpickler with protocol 0, where one bit makes a memo place of many gigabytes.
        [(fast, 2), (fast, 4), *((load, protocol) for load in (streaming, bulk) for protocol in (0, 2, 4))],
    )
    def test_flipped_bits(self, load, protocol):
        """Never anything but a FormatError or a value."""
        data = bytearray(pickle.dumps(sample(), protocol))
        rng = random.Random(protocol)
        for _ in range(400):
            at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            data[at] ^= bit
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    load(bytes(data))
                except FormatError as error:
                    assert "sample.pkl" in str(error)
            data[at] ^= bit

    @bounded
    @given(st.lists(st.sampled_from([bytes([op]) for op in StreamingUnpickler.dispatch]) | st.binary(max_size=4)))
    @settings(max_examples=300, deadline=None)
    def test_random_instructions(self, load, instructions):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load(b"".join(instructions))
            except FormatError as error:
                assert len(str(error)) < 2000

    def test_limit_between_items(self):
        data = pickle.dumps(["x" * 100_000] * 3 + ["y" * 2_000_000], 4)
        assert len(bulk(data, limit=4_000_000)) == 4
        with pytest.raises(FormatError, match="larger than 1000000 bytes"):
            bulk(data, limit=1_000_000)

    def test_errors_of_the_system_stay_what_they_are(self):
        class Broken(io.RawIOBase):
            def read(self, n=-1):
                raise OSError(5, "Input/output error")

        with pytest.raises(OSError, match="Input/output error"):
            restricted_loads(Broken(), where="w")
        with pytest.raises(FormatError, match="w is damaged"):
            guarded(lambda: (_ for _ in ()).throw(OSError("Invalid data stream")), "w")

    def test_programming_error_is_told_from_damage(self):
        class Open:
            pass

        with pytest.raises(FormatError, match="__setstate__"):
            restricted_loads(b"cfoo\nBar\n)\x81.", {"foo.Bar": Open}, where="w", fast=True)
        assert isinstance(restricted_loads(b"cfoo\nBar\n)\x81.", {"foo.Bar": Open}, where="w"), Open)
        assert issubclass(FastUnpickler, pickle.Unpickler)

    @given(plain)
    @settings(max_examples=100, deadline=None)
    def test_descriptions_are_short(self, value):
        assert len(describe(value)) < 4 * 700

    def test_descriptions_do_not_expand(self):
        tower = ()
        for _ in range(100):
            tower = (tower, tower)
        assert describe(tower) == "a tuple"
        assert describe(10**10_000).startswith("an int of")
        assert describe(("a", 1)) == "('a', 1)"
