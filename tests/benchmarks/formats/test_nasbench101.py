"""TFRecord framing and the records of NAS-Bench-101: official bytes, damage of every kind, two readers that must agree."""

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.formats import nasbench101 as format101
from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.nasbench101 import decode_record, decode_records, encode_record
from nasharness.benchmarks.formats.tfrecord import frame, masked_crc32c, read_records

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


def slow_masked_crc32c(data):
    """Bit by bit, from the definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def read(content, chunk=1 << 20, **options):
    chunks = (content[i : i + chunk] for i in range(0, len(content), chunk))
    return [payload for payloads in read_records(chunks, where="file", **options) for payload in payloads]


def outcome(function, *arguments):
    """What a function returns, or that it refused: any other exception is a failure."""
    try:
        return function(*arguments, where="file")
    except FormatError:
        return FormatError


def unpacked(records):
    """The records of `decode_records` one by one, as `decode_record` gives them; NaN made comparable."""
    if records is FormatError:
        return FormatError
    return [
        (records.modules[m], int(p), struct.pack("<8d", *x.ravel()))
        for m, p, x in zip(records.module, records.parameters, records.metrics, strict=True)
    ]


def packed(record):
    if record is FormatError:
        return FormatError
    return (record.module, record.parameters, struct.pack("<8d", *record.metrics))


@pytest.fixture(scope="module")
def real(shared_data):
    folder = shared_data / "official"
    return (folder / "nb101_first_real_record.tfrecord").read_bytes(), json.loads(
        (folder / "nb101_first_real_record.json").read_text()
    )


def sample_payload(parameters=8_555_530, seed=0):
    numbers = np.random.default_rng(seed).random((3, 5), dtype=np.float32).astype(float).tolist()
    operations = "input,conv3x3-bn-relu,maxpool3x3,conv3x3-bn-relu,conv3x3-bn-relu,conv1x1-bn-relu,output"
    adjacency = "0100110001000000010010000010000001000000010000000"
    return encode_record("00005c142e6f48ac74fdcf73e3439874", 4, adjacency, operations, parameters, 413.7, numbers)


# ------------------------------------------------------------------------------------------------------------ framing


def test_crc_check_value():
    assert slow_masked_crc32c(b"123456789") == masked_crc32c(b"123456789")
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


@given(st.binary(max_size=100))
def test_crc_is_the_slow_one(data):
    assert masked_crc32c(data) == slow_masked_crc32c(data)


def test_real_frame(real):
    content, facts = real
    assert content.hex() == facts["file_bytes_hex"]
    assert content[:12] == (401).to_bytes(8, "little") + bytes.fromhex("9825ed9b") and content[-4:].hex() == "68166903"
    assert read(content) == [facts["payload_utf8"].encode()]
    assert frame(facts["payload_utf8"].encode()) == content


@given(st.lists(st.binary(max_size=60), max_size=12), st.integers(1, 200))
def test_records_do_not_depend_on_the_chunks(payloads, chunk):
    assert read(b"".join(map(frame, payloads)), chunk) == payloads


def test_records_come_with_the_chunk_that_completes_them():
    records = [frame(bytes([i]) * 10) for i in range(3)]
    seen = []

    def chunks():
        for record in records:
            yield record
            seen.append(len(yielded))

    yielded = []
    for payloads in read_records(chunks(), where="file"):
        yielded += payloads
    assert seen == [1, 2, 3]


def test_many_lengths():
    payloads = [bytes(n) for n in range(6000)]
    assert [len(p) for p in read(b"".join(map(frame, payloads)))] == list(range(6000))


@pytest.mark.parametrize("chunk", [1 << 20, 100])
def test_cut_at_every_byte(chunk):
    payloads = [sample_payload(seed=i) for i in range(3)]
    content = b"".join(map(frame, payloads))
    size = len(content) // 3
    for end in range(len(content)):
        if end % size == 0:
            assert read(content[:end], chunk) == payloads[: end // size]
        else:
            with pytest.raises(FormatError, match=f"file is cut off: .* record at byte {end // size * size}[;:]"):
                read(content[:end], chunk)


def test_every_flipped_bit_is_noticed():
    """One flipped bit anywhere: a checksum that does not fit, or a length that is not there."""
    before, record = frame(sample_payload(seed=1)), frame(sample_payload())
    for bit in range(8 * len(record)):
        broken = bytearray(before + record + before)
        broken[len(before) + bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError, match=f"damaged.*at byte {len(before)}"):
            read(bytes(broken))


def test_absurd_length():
    for length in (2**63, 2**40, (1 << 20) + 1):
        header = length.to_bytes(8, "little")
        content = frame(b"first") + header + masked_crc32c(header).to_bytes(4, "little") + b"x" * 50
        with pytest.raises(FormatError, match=f"record at byte 21 claims {length} bytes; at most 1048576"):
            read(content)
    with pytest.raises(FormatError, match="at most 4 are read"):
        read(frame(b"12345"), max_length=4)


def test_compressed_file_is_named():
    with pytest.raises(FormatError, match="length at byte 0 does not fit .a compressed file must be unpacked"):
        read(b"\x1f\x8b\x08\x00" + bytes(100))


# ------------------------------------------------------------------------------------------------------------ payload


def test_real_record(real):
    content, facts = real
    record = decode_record(read(content)[0], where="file")
    metrics = facts["metrics"]
    assert record.module.hash.hex() == facts["module_hash"] == "00005c142e6f48ac74fdcf73e3439874"
    assert record.module.epochs == facts["epochs"] == 4
    assert f"{record.module.adjacency:049b}" == facts["raw_adjacency"] and record.module.vertices == 7
    names = ["input", *(OPERATIONS[label] for label in record.module.labels), "output"]
    assert ",".join(names) == facts["raw_operations"]
    assert record.parameters == metrics["trainable_parameters"] == 8_555_530
    _, half, end = metrics["evaluation_data"]
    keys = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    assert record.metrics == tuple(e[key] for e in (half, end) for key in keys)
    assert record.metrics[4:7:2] == (89.90399932861328, 0.3489583432674408)


def test_encoding_is_the_official_one(real):
    content, facts = real
    m = facts["metrics"]
    keys = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    payload = encode_record(
        facts["module_hash"],
        facts["epochs"],
        facts["raw_adjacency"],
        facts["raw_operations"],
        m["trainable_parameters"],
        m["total_time"],
        [[e[key] for key in keys] for e in m["evaluation_data"]],
    )
    assert payload == read(content)[0]


@pytest.mark.parametrize("name", ["first_real_record", "synthetic_full", "synthetic_only108"])
def test_both_readers_on_official_files(shared_data, name, monkeypatch):
    payloads = read((shared_data / "official" / f"nb101_{name}.tfrecord").read_bytes(), 5000)
    expected = [packed(decode_record(p, where="file")) for p in payloads]
    monkeypatch.setattr(format101, "decode_record", None)  # the fast reader must not need the slow one
    assert unpacked(decode_records(payloads, where="file")) == expected


def test_modules_are_listed_once(shared_data):
    payloads = read((shared_data / "official" / "nb101_synthetic_full.tfrecord").read_bytes())
    records = decode_records(payloads, where="file")
    assert len(records.modules) == len(set(records.modules)) == 42 * 4
    assert records.module.tolist() == [i // 3 for i in range(504)]


def test_no_payload():
    records = decode_records([], where="file")
    assert records.modules == [] and records.metrics.shape == (0, 2, 4)


# A writer of every legal layout, beside `encode_record`, which knows one.


def varint(number, length=None):
    """With `length`, padded by zero bits to that many bytes, which is legal."""
    number %= 2**64
    groups = [number >> 7 * i & 127 for i in range(max(1, -(-number.bit_length() // 7), length or 0))]
    return bytes([g | 128 for g in groups[:-1]] + groups[-1:])


UNKNOWN = [b"\x3a\x03abc", b"\x40\x07", b"\x49" + bytes(8), b"\x55" + bytes(4), b"\x0d" + bytes(4), b"\x11" + bytes(8)]
"""Fields 7 to 10 of every wire type, and fields 1 and 2 of wire types that they do not have."""


@st.composite
def evaluations(draw):
    numbers = draw(st.lists(st.floats(width=32), min_size=5, max_size=5))
    fields = [bytes([n << 3 | 1]) + struct.pack("<d", x) for n, x in enumerate(numbers, 1)]
    if draw(st.booleans()):
        kept = draw(st.lists(st.booleans(), min_size=5, max_size=5))
        fields = [f for f, keep in zip(fields, kept, strict=True) if keep]
        numbers = [x if keep else 0.0 for x, keep in zip(numbers, kept, strict=True)]
    if draw(st.booleans()):
        fields.append(b"\x32\x04path")
    if draw(st.booleans()):
        fields = draw(st.permutations(fields))
    return numbers, b"".join(fields)


@st.composite
def payloads_of_any_layout(draw):
    """A payload and what it says."""
    v = draw(st.integers(2, 7))
    bits = [[draw(st.sampled_from("01")) if x < y else "0" for y in range(v)] for x in range(v)]
    labels = draw(st.lists(st.integers(0, 2), min_size=v - 2, max_size=v - 2))
    module_hash = draw(st.sampled_from(["0" * 32, "00005c142e6f48ac74fdcf73e3439874", "f" * 32]))
    epochs = draw(st.sampled_from([4, 12, 36, 108, 2**31 - 1]))
    parameters = draw(st.one_of(st.integers(2 * 10**5, 5 * 10**7), st.integers(-(2**31), 2**31 - 1)))
    adjacency = "".join("".join(row) for row in bits)
    operations = ",".join(["input", *(OPERATIONS[i] for i in labels), "output"])
    if draw(st.booleans()):  # as in the official files
        numbers = draw(st.lists(st.lists(st.floats(), min_size=5, max_size=5), min_size=3, max_size=3))
        payload = encode_record(module_hash, epochs, adjacency, operations, parameters, 1.0, numbers)
    else:
        chosen = [draw(evaluations()) for _ in range(3)]
        numbers = [n for n, _ in chosen]
        parts = [b"\x0a" + varint(len(m), draw(st.integers(1, 3))) + m for _, m in chosen]
        rest = [b"\x19" + struct.pack("<d", 5.0)] * draw(st.integers(0, 2))
        if draw(st.booleans()):
            rest.append(b"\x10" + varint(parameters, draw(st.integers(1, 10))))
        else:
            parameters = 0
        for part in draw(st.lists(st.sampled_from(UNKNOWN))):
            rest.insert(draw(st.integers(0, len(rest))), part)
        message = b"".join(parts + rest if draw(st.booleans()) else rest + parts)
        encode = draw(st.sampled_from([base64.encodebytes, base64.b64encode, lambda m: b" \n" + base64.b64encode(m)]))
        options = draw(st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}]))
        payload = json.dumps([module_hash, epochs, adjacency, operations, encode(message).decode()], **options).encode()
        if draw(st.booleans()):
            payload = payload.replace(b"/", b"\\/")
    module = format101.Module(bytes.fromhex(module_hash), epochs, v, int(adjacency, 2), tuple(labels))
    return payload, (module, parameters, struct.pack("<8d", *numbers[1][1:], *numbers[2][1:]))


@settings(deadline=None, max_examples=150)
@given(st.lists(payloads_of_any_layout(), min_size=1, max_size=6))
def test_any_layout(cases):
    payloads, expected = zip(*cases, strict=True)
    assert [packed(decode_record(p, where="file")) for p in payloads] == list(expected)
    records = decode_records(payloads, where="file")
    assert unpacked(records) == list(expected)
    assert records.modules == list(dict.fromkeys(module for module, *_ in expected))


@pytest.mark.parametrize("parameters", [127, 2**14, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 2**31 - 1, 0, -1, -(2**31)])
def test_parameters_of_every_length(parameters):
    payload = sample_payload(parameters)
    assert decode_record(payload, where="file").parameters == parameters
    assert decode_records([sample_payload(), payload], where="file").parameters.tolist() == [8_555_530, parameters]


def test_the_last_of_a_repeated_field_counts():
    once = json.loads(sample_payload())
    message = base64.b64decode(once[4]) + b"\x10\x05"
    payload = json.dumps([*once[:4], base64.b64encode(message).decode()]).encode()
    assert decode_record(payload, where="file").parameters == 5


def changed(position, value):
    content = json.loads(sample_payload())
    content[position] = value
    return json.dumps(content).encode()


def metrics(message):
    return changed(4, base64.encodebytes(message).decode())


GOOD = base64.b64decode(json.loads(sample_payload())[4])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not JSON"),
        (b"\xff" * 300, "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": 1}', "not a JSON array of five"),
        (b"[1, 2, 3, 4]", "not a JSON array of five"),
        (changed(0, 7), "must be strings"),
        (changed(0, "xyz"), "'xyz' is not a module hash"),
        (changed(0, "A" * 32), "lower-case"),
        (changed(1, "4"), "has '4' epochs"),
        (changed(1, True), "has True epochs"),
        (changed(1, 0), "has 0 epochs"),
        (changed(1, 2**31), "epochs"),
        (changed(1, 4.0), "has 4.0 epochs"),
        (changed(2, ""), "not the adjacency matrix"),
        (changed(2, "0" * 48), "not the adjacency matrix"),
        (changed(2, "0" * 64), "not the adjacency matrix of 2 to 7"),
        (changed(2, "2" * 49), "not the adjacency matrix"),
        (changed(2, "1" * 49), "not strictly upper triangular"),
        (changed(3, "input,output"), "not a list of 7 operations"),
        (changed(3, "input" + ",conv5x5" * 5 + ",output"), "not a list of 7 operations"),
        (changed(3, "output" + ",maxpool3x3" * 5 + ",input"), "not a list of 7 operations"),
        (changed(4, "????"), "not base64"),
        (changed(4, "abc"), "not base64"),
        (changed(4, "\u00e9"), "not base64"),
        (metrics(b""), "0 evaluations instead of 3"),
        (metrics(GOOD[:141]), None),
        (metrics(GOOD[:94]), "2 evaluations instead of 3"),
        (metrics(GOOD[:100]), "cut off: field 1 has 4 of 45 bytes"),
        (metrics(GOOD + b"\x10"), "a number in them has no end"),
        (metrics(GOOD + b"\x10" + b"\xff" * 11), "a number in them has no end"),
        (metrics(GOOD + b"\x03"), "wire type 3"),
        (metrics(GOOD + b"\x00"), "field 0"),
        (metrics(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + GOOD), "cut off"),
        (metrics(GOOD * 2), "6 evaluations instead of 3"),
    ],
)
def test_bad_payloads(payload, message):
    if message is None:  # parameters and total time may be absent
        assert decode_record(payload, where="file").parameters == 0
        return
    with pytest.raises(FormatError, match=f"^file: .*{message}"):
        decode_record(payload, where="file")
    for payloads in ([payload], [sample_payload(), payload], [payload, sample_payload()]):
        with pytest.raises(FormatError, match="^file: "):
            decode_records(payloads, where="file")


def agree(payload):
    """Both readers say the same of a payload in any company, or both refuse it."""
    slow = packed(outcome(decode_record, payload))
    company = sample_payload(seed=3)
    fast = unpacked(outcome(decode_records, [company, payload, company]))
    good = packed(decode_record(company, where="file"))
    assert fast == (FormatError if slow is FormatError else [good, slow, good])
    return slow


def test_every_flipped_bit_behind_the_checksum():
    """With the checksum made anew a flipped bit is refused or changes what is read, never anything else."""
    payload = sample_payload()
    original = packed(decode_record(payload, where="file"))
    told = {"refused": 0, "changed": 0, "same": 0}
    for bit in range(8 * len(payload)):
        broken = bytearray(payload)
        broken[bit // 8] ^= 1 << bit % 8
        result = agree(bytes(broken))
        told["refused" if result is FormatError else "same" if result == original else "changed"] += 1
    assert sum(told.values()) == 8 * len(payload)
    assert min(told.values()) > 0  # "same": total time and first evaluation are not kept


def test_payload_cut_at_every_byte():
    payload = sample_payload()
    for end in range(len(payload)):
        assert agree(payload[:end]) is FormatError


PIECES = st.one_of(st.binary(max_size=5), st.sampled_from([b"=", b'"', b"\\n", b"A"]))
EDITS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 12), PIECES), max_size=4)


@settings(deadline=None, max_examples=400)
@given(EDITS, st.integers(0, 2**31 - 1))
def test_edited_payloads(edits, parameters):
    payload = sample_payload(parameters)
    for start, length, new in edits:
        payload = payload[:start] + new + payload[start + length :]
    agree(payload)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 160), st.integers(0, 10), st.binary(max_size=10)), max_size=3))
def test_edited_messages(edits):
    message = GOOD
    for start, length, new in edits:
        message = message[:start] + new + message[start + length :]
    agree(metrics(message))
