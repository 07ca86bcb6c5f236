"""The readers of torch.save files and of NAS-Bench-201 and NATS-Bench."""

import bz2
import copy
import io
import json
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from nats_files import official_meta, official_states, small, write_legacy

from nasharness.benchmarks.formats import nats, torch_file
from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.nats import (
    NUM_CLASSES,
    SPACES,
    find_form,
    list_folder,
    parse_states,
    read_architecture,
    read_meta,
    stream_architectures,
)
from nasharness.benchmarks.formats.torch_file import load_state_dict, plain_stream

TSS, SSS = "NATS-tss-v1_0-3ffb9-simple", "NATS-sss-v1_0-50262-simple"
PTH = "nb201_legacy_pth_layout_3archs.pth"


def assert_same(states, raw):
    """The slow way: every number of the raw structure is where it belongs."""
    assert len(states) == len(raw)
    for name, state in raw.items():
        parsed = states[{"full": "200", "less": "12"}.get(name, name)]
        assert (parsed.index, parsed.text) == (state["arch_index"], state["arch_str"])
        assert {d: [t.seed for t in trials] for d, trials in parsed.trials.items()} == state["dataset_seed"]
        for dataset, trials in parsed.trials.items():
            for trial in trials:
                result = state["all_results"][dataset, trial.seed]
                assert (trial.dataset, trial.epochs) == (dataset, result["epochs"])
                assert (trial.params, trial.flops) == (result["params"], result["flop"])
                assert list(trial.latency) == (result["latency"] or [])
                assert dict(enumerate(trial.train_accuracy)) == result["train_acc1es"]
                assert dict(enumerate(trial.train_loss)) == result["train_losses"]
                times = trial.train_seconds
                assert (times is None) == (result["train_times"] is None)
                assert times is None or dict(enumerate(times)) == result["train_times"]
                assert set(trial.evaluations) == set(result["eval_names"])
                tables = {"eval_acc1es": {}, "eval_losses": {}, "eval_times": {}}
                for key, curve in trial.evaluations.items():
                    for i, epoch in enumerate(curve.epochs):
                        tables["eval_acc1es"][f"{key}@{epoch}"] = curve.accuracy[i]
                        tables["eval_losses"][f"{key}@{epoch}"] = curve.loss[i]
                    for epoch, seconds in enumerate(() if curve.seconds is None else curve.seconds):
                        tables["eval_times"][f"{key}@{epoch}"] = seconds
                assert all(tables[field] == result[field] for field in tables)


class TestArchitectureFiles:
    @pytest.mark.parametrize("folder", [TSS, SSS])
    def test_official_files(self, shared_data, folder):
        files = list_folder(shared_data / "official" / folder)
        assert list(files) == [0, 11, 284]
        for path in files.values():
            assert_same(read_architecture(path), pickle.loads(bz2.decompress(path.read_bytes())))

    @pytest.mark.parametrize(("folder", "space"), [(TSS, "nasbench201"), (SSS, "nats_size")])
    def test_official_meta(self, shared_data, folder, space):
        meta = read_meta(shared_data / "official" / folder / "meta.pickle.pbz2")
        assert (meta.space, meta.total, meta.indexes) == (space, SPACES[space].size, ())

    @pytest.mark.parametrize("space", SPACES)
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_made_files(self, tmp_path, space, protocol):
        raw = official_states(space, 77, numpy=True)
        path = tmp_path / "77.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(raw, protocol)))
        assert_same(read_architecture(path), raw)

    def test_file_of_another_architecture(self, tmp_path):
        path = tmp_path / "000012.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(small())))
        with pytest.raises(FormatError, match=r"000012\.pickle\.pbz2: architecture 11 where 12 is expected"):
            read_architecture(path)
        with pytest.raises(FormatError, match="not named"):
            read_architecture(tmp_path / "meta.pickle.pbz2")

    def test_folders(self, tmp_path):
        with pytest.raises(FormatError, match="no files named"):
            list_folder(tmp_path)
        for name in ("5.pickle.pbz2", "000011.pickle.pbz2", "meta.pickle.pbz2", "README", "1234567.pickle.pbz2"):
            (tmp_path / name).touch()
        assert {i: path.name for i, path in list_folder(tmp_path).items()} == {
            5: "5.pickle.pbz2",
            11: "000011.pickle.pbz2",
        }
        (tmp_path / "000005.pickle.pbz2").touch()
        with pytest.raises(FormatError, match="two files of architecture 5"):
            list_folder(tmp_path)

    def test_damage(self, tmp_path):
        content = pickle.dumps(small())
        path = tmp_path / "000011.pickle.pbz2"
        compressed = bz2.compress(content)
        for end in range(0, len(compressed) - 1, len(compressed) // 30):
            with pytest.raises(FormatError, match="000011"):
                read_architecture(path, compressed[:end])
        for end in range(0, len(content) - 1, len(content) // 60):
            with pytest.raises(FormatError, match="000011"):
                read_architecture(path, bz2.compress(content[:end], 1))
        with pytest.raises(FormatError, match="goes on after its end"):
            read_architecture(path, bz2.compress(content + b"x"))
        rng = random.Random(0)
        for _ in range(60):
            flipped = bytearray(compressed)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            with pytest.raises(FormatError, match="000011"):
                read_architecture(path, bytes(flipped))
        for _ in range(60):
            flipped = bytearray(content)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            try:  # a changed number is a number; bzip2's checksum is what tells
                read_architecture(path, bz2.compress(bytes(flipped), 1))
            except FormatError as error:
                assert "000011" in str(error)

    def test_decompression_bomb(self, tmp_path):
        bomb = b"\x8e" + (70 << 20).to_bytes(8, "little") + bytes(70 << 20) + b"."
        with pytest.raises(FormatError, match="larger than 67108864 bytes"):
            read_architecture(tmp_path / "000011.pickle.pbz2", bz2.compress(bomb))


def broken(change):
    """The message about a small architecture after `change(states, state, result)`."""
    raw = copy.deepcopy(small())
    state = raw["12"]
    change(raw, state, state["all_results"]["cifar100", 111])
    with pytest.raises(FormatError) as caught:
        parse_states(raw, "sample")
    return str(caught.value)


class TestChecks:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda raw, s, r: raw.clear(), "dict of schedules"),
            (lambda raw, s, r: raw.update({"13": raw.pop("12")}), "architecture 11: unknown schedule '13'"),
            (lambda raw, s, r: raw.update({"90": raw.pop("12")}), "unknown schedule '90'"),
            (lambda raw, s, r: raw.update({"less": s}), "architecture 11 holds schedule 'less' of architecture 11"),
            (lambda raw, s, r: raw.update({"200": 5}), "schedule '200' of an architecture lacks"),
            (lambda raw, s, r: s.update(more=1), "lacks"),
            (lambda raw, s, r: s.update(arch_index=12), "architecture 12: its string .* is index 11"),
            (lambda raw, s, r: s.update(arch_index=-1), "is index 11"),
            (lambda raw, s, r: s.update(arch_index=True), "is index 11"),
            (lambda raw, s, r: s.update(arch_str="|none~0|"), "does not exist in nasbench201"),
            (lambda raw, s, r: s.update(arch_str="8:8:8:8:9"), "does not exist in nats_size"),
            (lambda raw, s, r: s.update(arch_str=["x"]), "arch_str is a list"),
            (lambda raw, s, r: s.update(dataset_seed=None), "no dict"),
            (lambda raw, s, r: s["dataset_seed"].update(mnist=[1]), "unknown dataset 'mnist'"),
            (lambda raw, s, r: s["dataset_seed"].update(cifar100=[111, 111]), "not those of its results"),
            (lambda raw, s, r: s["dataset_seed"].update(cifar100=[777]), "not those of its results"),
            (lambda raw, s, r: s["dataset_seed"].update(cifar100=["111"]), "the seeds of cifar100"),
            (lambda raw, s, r: s["dataset_seed"].pop("cifar100"), "dataset_seed does not list"),
            (lambda raw, s, r: r.update(more=1), "known fields .*'more'"),
            (lambda raw, s, r: r.pop("latency"), "known fields .*'latency'"),
            (lambda raw, s, r: r.update(net_state_dict={}), "weights"),
            (lambda raw, s, r: r.update(name="cifar10"), "is of 'cifar10'"),
            (lambda raw, s, r: r.update(seed="0112"), "is of 'cifar100' seed '0112'"),
            (lambda raw, s, r: r.update(epochs=200), "epochs is 200, not 12"),
            (lambda raw, s, r: r["arch_config"].update(arch_str="x"), "another architecture"),
            (lambda raw, s, r: r["arch_config"].update(depth=3), "another architecture"),
            (lambda raw, s, r: r["arch_config"].update(class_num=10), "10 classes"),
            (lambda raw, s, r: r.update(latency=1.0), "latency is 1.0"),
            (lambda raw, s, r: r.update(latency=["x"]), "latency holds a str"),
            (lambda raw, s, r: r.update(params=None), "params holds a NoneType"),
            (lambda raw, s, r: r.update(flop=True), "flop holds a bool"),
            (lambda raw, s, r: r.update(flop=10**400), "too large"),
            (lambda raw, s, r: r["train_acc1es"].pop(11), "train_acc1es .* not the epochs 0..11"),
            (lambda raw, s, r: r["train_acc1es"].update({12: r["train_acc1es"].pop(11)}), "lacks epoch 11"),
            (lambda raw, s, r: r["train_acc1es"].update({True: r["train_acc1es"].pop(1)}), "not the epochs"),
            (lambda raw, s, r: r["train_losses"].update({0: "x"}), "train_losses holds a str"),
            (lambda raw, s, r: r.update(train_times={}), "train_times .* not the epochs"),
            (lambda raw, s, r: r.update(train_acc1es=None), "train_acc1es is None"),
            (lambda raw, s, r: r["eval_names"].append("y-test"), "eval_names holds 'y-test'"),
            (lambda raw, s, r: r["eval_names"].append("x-test"), "eval_names holds 'x-test'"),
            (lambda raw, s, r: r["eval_names"].remove("x-test"), "eval_acc1es holds 'x-test@0'"),
            (lambda raw, s, r: r["eval_acc1es"].update({"x-valid@12": 1.0}), "eval_acc1es holds 'x-valid@12'"),
            (lambda raw, s, r: r["eval_acc1es"].pop("x-valid@3"), "eval_losses holds"),
            (lambda raw, s, r: r["eval_losses"].pop("x-valid@3"), "x-valid lacks"),
            (lambda raw, s, r: r["eval_times"].pop("x-valid@3"), "eval_times has 11 of the 12 epochs of x-valid"),
            (lambda raw, s, r: r["eval_times"].update({"x-valid@99": 1.0}), "eval_times holds 'x-valid@99'"),
            (lambda raw, s, r: r["eval_acc1es"].update({"x-valid@3": float("nan")}), "not a number"),
            (lambda raw, s, r: r["eval_acc1es"].update({"x-valid@3": None}), "eval_acc1es holds a NoneType"),
            (lambda raw, s, r: r.update(eval_losses=None), "three dicts"),
        ],
    )
    def test_what_is_not_as_described_is_refused(self, change, message):
        import re

        found = broken(change)
        assert re.search(message, found), found
        assert found.startswith("sample: ")

    def test_the_wrong_string_of_a_size_architecture(self):
        raw = official_states("nats_size", 11, schedules=["01"])
        assert raw["01"]["arch_str"] == "8:8:8:16:32"
        raw["01"]["arch_index"] = 10
        with pytest.raises(FormatError, match="'8:8:8:16:32' is index 11 in nats_size"):
            parse_states(raw, "sample")

    def test_states_of_two_architectures(self):
        raw = {
            **official_states("nasbench201", 3, schedules=["12"]),
            **official_states("nasbench201", 4, schedules=["200"]),
        }
        with pytest.raises(FormatError, match="architecture 3 holds schedule '200' of architecture 4"):
            parse_states(raw, "sample")

    def test_missing_latency_and_seeds_as_numbers(self):
        raw = small()
        for result in raw["12"]["all_results"].values():
            result.update(latency=None, seed=int(result["seed"]))
        assert parse_states(raw, "sample")["12"].trials["cifar100"][0].latency == ()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"meta_archs": []}, "meta_archs is no list"),
            ({"meta_archs": ["|none~0|"]}, "not the architectures of nasbench201"),
            ({"total_archs": 15624}, "total_archs is 15624, not 15625"),
            ({"evaluated_indexes": None}, "evaluated_indexes"),
            ({"arch2infos": {}}, "this one does"),
            ({"version": 2}, "no benchmark file"),
        ],
    )
    def test_meta(self, tmp_path, change, message):
        path = tmp_path / "meta.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(official_meta("nasbench201"))))
        assert read_meta(path).total == 15625
        path.write_bytes(bz2.compress(pickle.dumps({**official_meta("nasbench201"), **change})))
        with pytest.raises(FormatError, match=message):
            read_meta(path)


def streamed(path):
    found = []
    meta = stream_architectures(path, found.append)
    return meta, {next(iter(states.values())).index: states for states in found}


class TestStreams:
    def test_official_layout(self, shared_data):
        """The three real architectures in the .pth layout are those of the NATS files."""
        meta, found = streamed(shared_data / "official" / PTH)
        assert meta == nats.Meta("nasbench201", 15625, (0, 11, 284)) and list(found) == [0, 11, 284]
        with (shared_data / "official" / PTH).open("rb") as file:
            raw = [pickle.load(file) for _ in range(4)][3]
        for index, states in found.items():
            assert_same(states, raw["arch2infos"][index])
            nats_file = shared_data / "official" / TSS / f"{index:06d}.pickle.pbz2"
            assert_same(states, pickle.loads(bz2.decompress(nats_file.read_bytes())))

    @pytest.mark.parametrize("form", ["legacy", "zip", "pickle"])
    @pytest.mark.parametrize("space", SPACES)
    def test_forms(self, tmp_path, form, space):
        infos = {i: official_states(space, i, schedules=["12"], numpy=True) for i in (5, 3, 4000)}
        path = tmp_path / "file"
        if form == "legacy":
            write_legacy(path, official_meta(space, infos, old=True))
        elif form == "zip":
            torch.save(official_meta(space, infos, old=True), path)
        else:
            path.write_bytes(bz2.compress(pickle.dumps(official_meta(space, infos))))
        assert find_form(path) == ("pickle" if form == "pickle" else "torch")
        meta, found = streamed(path)
        assert meta == nats.Meta(space, SPACES[space].size, (3, 5, 4000)) and list(found) == [5, 3, 4000]
        for index, states in found.items():
            assert_same(states, infos[index])

    def test_version_1_0(self, tmp_path):
        """No times in the long schedule, several latencies, the short one for cifar10-valid only."""
        infos = {}
        for i, seeds in ((1, [777]), (2, [777, 999]), (3, [777, 888, 999])):
            infos[i] = official_states("nasbench201", i, seeds=seeds, old=True)
            less = infos[i]["less"]
            for dataset in ("cifar10", "cifar100", "ImageNet16-120"):
                del less["all_results"][dataset, 111], less["dataset_seed"][dataset]
        path = tmp_path / "NAS-Bench-201-v1_0-e61699.pth"
        write_legacy(path, official_meta("nasbench201", infos, old=True))
        _, found = streamed(path)
        for index, states in found.items():
            assert_same(states, infos[index])
            trial = states["200"].trials["cifar100"][0]
            assert trial.train_seconds is None and len(trial.latency) == 3
            assert all(curve.seconds is None for curve in trial.evaluations.values())

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_strings_shared_between_architectures(self, tmp_path, protocol):
        """The writer's memo reaches back across architectures; only what cannot be shared is forgotten."""
        shared = {name: name for name in NUM_CLASSES}
        infos = {}
        for i in range(30):
            raw = small(index=i)
            for result in raw["12"]["all_results"].values():
                result["name"] = shared[result["name"]]
                result["seed"] = {"0111": "0111", "0777": "0777"}[result["seed"]]
            infos[i] = raw
        path = tmp_path / "file"
        path.write_bytes(bz2.compress(pickle.dumps(official_meta("nasbench201", infos, old=True), protocol)))
        _, found = streamed(path)
        assert all(found[i]["12"].index == i for i in range(30)) and len(found) == 30
        for i in range(30):
            assert_same(found[i], infos[i])

    def test_memo_stays_small(self, tmp_path):
        sizes = []

        def visit(states):
            sizes.append((len(unpickler.memo), len(unpickler.memo.outside), len(unpickler.memo._words)))

        infos = {
            i: official_states("nasbench201", i, schedules=["12"], datasets=["cifar10"]) for i in range(1050)
        }  # more than a batch of items
        data = pickle.dumps(official_meta("nasbench201", infos, old=True), 2)
        unpickler = nats._ArchitectureUnpickler(nats.Window(io.BytesIO(data).read), encoding="latin1")
        unpickler.allowed, unpickler.where, unpickler.visit = nats.PLAIN, "sample", visit
        unpickler.load()
        assert len(sizes) == 1050
        first, last = sizes[1], sizes[-1]
        assert last[0] == first[0] and last[1] <= first[1] + 5 and last[2] <= first[2] + 5

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda meta: meta["arch2infos"].update({9: meta["arch2infos"].pop(3)}), "architecture .* under index 9"),
            (lambda meta: meta["arch2infos"].update({9: {}}), "9 among the architectures holds no training results"),
            (lambda meta: meta["arch2infos"].update({"3": meta["arch2infos"].pop(3)}), "'3' among the architectures"),
            (lambda meta: meta["evaluated_indexes"].clear(), "evaluated indexes does not fit"),
            (lambda meta: meta.update(arch2infos=None), "no architectures"),
            (lambda meta: meta["arch2infos"][3]["12"].update(arch_index=4), "architecture 4: its string"),
            (lambda meta: meta["meta_archs"].reverse(), "official order"),
        ],
    )
    def test_contradictions(self, tmp_path, change, message):
        meta = official_meta("nasbench201", {3: small(index=3), 5: small(index=5)})
        change(meta)
        path = tmp_path / "file.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(meta)))
        with pytest.raises(FormatError, match=rf"file\.pickle\.pbz2.*{message}"):
            streamed(path)

    def test_mixed_spaces(self, tmp_path):
        path = tmp_path / "file.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(official_meta("nasbench201", {3: small("nats_size", 3)}))))
        with pytest.raises(FormatError, match="stored under index 3"):
            streamed(path)

    def test_errors_of_the_visitor_pass_through(self, tmp_path):
        path = tmp_path / "file.pickle.pbz2"
        path.write_bytes(bz2.compress(pickle.dumps(official_meta("nasbench201", {3: small(index=3)}))))

        def visit(states):
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            stream_architectures(path, visit)

    def test_damage(self, tmp_path):
        path = tmp_path / "file.pth"
        write_legacy(path, official_meta("nasbench201", {3: small(index=3)}, old=True))
        data = path.read_bytes()
        for end in [*range(0, 400, 13), *range(400, len(data) - 1, len(data) // 20)]:
            path.write_bytes(data[:end])
            with pytest.raises(FormatError, match=r"file\.pth"):
                streamed(path)
        path.write_bytes(data + b"x")
        with pytest.raises(FormatError, match="goes on after its end"):
            streamed(path)
        write_legacy(path, official_meta("nasbench201", {3: small(index=3)}, old=True), keys=["0"])
        with pytest.raises(FormatError, match="holds tensors"):
            streamed(path)
        compressed = bz2.compress(pickle.dumps(official_meta("nasbench201", {3: small(index=3)}, old=True)))
        for end in range(5, len(compressed) - 1, len(compressed) // 8):
            path.write_bytes(compressed[:end])
            with pytest.raises(FormatError, match=r"file\.pth"):
                streamed(path)

    def test_unknown_forms(self, tmp_path):
        path = tmp_path / "file"
        for start in (b"", b"\x80\x04", b"ustar", b"PK"):
            path.write_bytes(start)
            with pytest.raises(FormatError, match="expected a folder"):
                find_form(path)
        assert find_form(tmp_path) == "folder"
        with pytest.raises(FormatError, match="is a folder"):
            streamed(tmp_path)

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
    def test_peak_memory_does_not_grow(self, tmp_path):
        """Peak resident memory over files of 10 and 90 architectures, each in a process of its own."""
        script = (
            "import sys; from pathlib import Path\n"
            "from nasharness.benchmarks.formats.nats import stream_architectures\n"
            "n = []; stream_architectures(Path(sys.argv[1]), lambda states: n.append(1))\n"
            "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
            "print(len(n), int(peak.split()[1]) // 1024)"
        )
        peaks = []
        for n in (10, 90):
            path = tmp_path / f"{n}.pth"
            infos = {i: official_states("nasbench201", i, old=True) for i in range(n)}
            write_legacy(path, official_meta("nasbench201", infos, old=True))
            done = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)
            count, peak = map(int, done.stdout.split())
            assert count == n
            peaks.append(peak)
        assert peaks[1] - peaks[0] < 10  # MiB; loaded at once, 80 architectures take 100


def tensors():
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = network.state_dict()  # an OrderedDict with an attribute
    state["transposed"] = torch.arange(12).reshape(3, 4).t()
    state["view"] = torch.arange(12, dtype=torch.float64)[3:7]
    state["column"] = torch.arange(12, dtype=torch.int32).reshape(3, 4)[:, 1]
    state["empty"] = torch.zeros(0, 3)
    state["scalar"] = torch.tensor(3, dtype=torch.int16)
    state["parameter"] = torch.nn.Parameter(torch.randn(2, 2).half())
    state["bytes"] = torch.tensor([1, 255], dtype=torch.uint8)
    state["chars"] = torch.tensor([1, -1], dtype=torch.int8)
    state["bools"] = torch.tensor([True, False])
    state["shared"] = state["0.weight"]
    return state


class TestStateDicts:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_equal_to_torch(self, tmp_path, zipped):
        expected = tensors()
        torch.save(expected, tmp_path / "state.pt", _use_new_zipfile_serialization=zipped)
        arrays = load_state_dict(tmp_path / "state.pt")
        assert list(arrays) == list(expected)
        for name, tensor in expected.items():
            array = tensor.detach().numpy()
            assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
            assert np.array_equal(arrays[name], array) and arrays[name].flags.owndata

    def test_official_vector(self, shared_data):
        path = shared_data / "official" / "nb301_gin_synth_state.pt"
        expected = torch.load(path, weights_only=True)
        arrays = load_state_dict(path)
        assert list(arrays) == list(expected)
        assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in expected.items())

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"a": torch.zeros(2, dtype=torch.bfloat16)}, r"torch\.BFloat16Storage"),
            ({"a": torch.zeros(2, dtype=torch.complex64)}, r"torch\.ComplexFloatStorage"),
            ({"a": 1}, "is no state dict: 'a' is 1"),
            ({"a": {"b": torch.zeros(1)}}, "is no state dict"),
            ({1: torch.zeros(1)}, "is no state dict"),
            ([torch.zeros(1)], "holds a list"),
            ({"a": torch.zeros(1).expand(9)}, "impossible shape|storage of 1 elements"),
            (torch.nn.Linear(1, 1), "asks for torch.nn.modules.linear.Linear"),
            ({"a": torch.float32}, "asks for torch.float32"),
        ],
    )
    def test_other_things_are_refused(self, tmp_path, zipped, value, message):
        torch.save(value, tmp_path / "state.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(FormatError, match=rf"state\.pt.*({message})"):
            load_state_dict(tmp_path / "state.pt")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_damage(self, tmp_path, zipped):
        path = tmp_path / "state.pt"
        torch.save({"a": torch.arange(5.0), "b": torch.arange(3)}, path, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        for end in range(0, len(data) - 1, len(data) // 80):
            path.write_bytes(data[:end])
            with pytest.raises(FormatError):
                load_state_dict(path)
        rng = random.Random(1)
        for _ in range(200):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            try:
                load_state_dict(path)
            except FormatError as error:
                assert "state.pt" in str(error)

    def test_an_archive_that_points_before_its_start(self, tmp_path):
        """The operating system refuses to go there with EINVAL."""
        path = tmp_path / "state.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("state/data.pkl", pickle.dumps({}, 2))
        data = bytearray(path.read_bytes())
        end = data.rindex(b"PK\x05\x06")
        data[end + 16 : end + 20] = (len(data) + 1000).to_bytes(4, "little")  # where its list of members is
        path.write_bytes(data)
        for read in (load_state_dict, lambda path: stream_architectures(path, print)):
            with pytest.raises(FormatError, match=r"state\.pt is damaged"):
                read(path)

    def test_archives_of_other_kinds(self, tmp_path):
        path = tmp_path / "state.pt"
        pickled = pickle.dumps({})

        def archive(files, compression=zipfile.ZIP_STORED):
            with zipfile.ZipFile(path, "w", compression) as out:
                for name, content in files.items():
                    out.writestr(name, content)
            return load_state_dict(path)

        assert archive({"x/data.pkl": pickled, "x/byteorder": "little"}) == {}
        for files, message in (
            ({"data.pkl": pickled}, "0 pickles"),
            ({"x/data.pkl": pickled, "y/data.pkl": pickled}, "2 pickles"),
            ({"x/data.pkl": pickled, "x/byteorder": "big"}, "big-endian"),
        ):
            with pytest.raises(FormatError, match=message):
                archive(files)
        with pytest.raises(FormatError, match="compressed"):
            archive({"x/data.pkl": pickled}, zipfile.ZIP_DEFLATED)

    def test_plain_stream_refuses_tensors(self, tmp_path):
        for zipped in (True, False):
            torch.save({"a": torch.zeros(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
            with (
                pytest.raises(FormatError, match=r"x\.pt.*(tensors|outside itself|asks for)"),
                plain_stream(tmp_path / "x.pt") as window,
            ):
                torch_file._load(window, {}, "x.pt")

    def test_plain_stream(self, tmp_path):
        value = {"a": [1, 2.0, "x"], "b": None}
        write_legacy(tmp_path / "old.pt", value)
        torch.save(value, tmp_path / "new.pt")
        torch.save(value, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
        for name in ("old.pt", "new.pt", "legacy.pt"):
            with plain_stream(tmp_path / name) as window:
                assert torch_file._load(window, {}, name) == value
            assert torch.load(tmp_path / name, weights_only=True) == value

    def test_big_endian(self, tmp_path):
        write_legacy(tmp_path / "x.pt", {})
        data = (tmp_path / "x.pt").read_bytes()
        (tmp_path / "x.pt").write_bytes(data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
        assert data != (tmp_path / "x.pt").read_bytes()
        with pytest.raises(FormatError, match="big-endian"):
            load_state_dict(tmp_path / "x.pt")


def test_vectors_of_the_old_api(shared_data):
    """A sample of what the old official API answers on the .pth file."""
    answers = json.loads((shared_data / "official" / "nb201_old_api_queries.json").read_text())
    assert "_about" in answers
    _, found = streamed(shared_data / "official" / PTH)
    trials = found[0]["200"].trials["cifar10-valid"]
    mean = float(np.mean([trial.evaluations["x-valid"].accuracy[199] for trial in trials]))
    assert any(abs(value - mean) <= 1e-12 * mean for value in _numbers(answers))


def _numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, float):
        yield value
