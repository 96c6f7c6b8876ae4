"""What every runtime must refuse or survive behind the one adapter, whichever is installed."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from agent.installed import find_tflite_library, runtime_entry_points
from agent.runtimes import adapters_of, load_engine
from agent.runtimes.base import RuntimeLoadError
from agent.runtimes.guard import Guard
from agent.tflite_c import Interpreter, Library
from shoal.tflite.operators import known_operators
from shoal.tflite.writer import write_float32, write_int8

pytestmark = pytest.mark.contract

TFLITE = [one for one in adapters_of("tflite") if one.available()]


def _rows(count=4, width=640):
    return np.random.default_rng(2).normal(0, 1, (count, width)).astype(np.float32)


@pytest.fixture
def engine(adapter, load, write, network):
    """A loaded network of 640 inputs and 3 outputs."""
    return load(write(adapter.kind, network((640, 8, 3))))


@pytest.mark.parametrize("shape", [(4, 641), (4, 639), (640,), (1, 4, 640), (0, 641)])
def test_other_lengths_are_refused(engine, shape):
    with pytest.raises(RuntimeLoadError, match="640") as caught:
        engine.run(np.zeros(shape, np.float32))
    assert caught.value.code == "wrong-tensor"


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", "<i4", "|i1"])
def test_other_numbers_than_native_float32_are_refused(engine, dtype):
    if np.dtype(dtype) == np.float32:
        dtype = np.dtype(dtype).newbyteorder().str
    with pytest.raises(RuntimeLoadError, match="float32") as caught:
        engine.run(_rows().astype(dtype))
    assert caught.value.code == "wrong-tensor"


def test_a_row_with_nan_answers_nan_and_leaves_the_others_alone(engine):
    rows = _rows(5)
    clean = engine.run(rows)
    rows[1, 17] = rows[3, 0] = np.nan
    found = engine.run(rows)
    assert np.isnan(found[[1, 3]]).all()
    assert np.allclose(found[[0, 2, 4]], clean[[0, 2, 4]], atol=1e-5)
    assert np.isnan(engine.run(np.full((2, 640), np.nan, np.float32))).all()


@pytest.mark.parametrize("adapter", TFLITE, ids=lambda one: one.name, indirect=True)
def test_nan_stays_nan_in_integer_models(adapter, load, network):
    engine = load(write_int8(network((640, 3)), _rows(50)))
    rows = _rows(2)
    rows[0, 5] = np.nan
    found = engine.run(rows)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_rows_may_lie_anywhere_in_memory(engine):
    rows = _rows(8)
    expected = engine.run(rows)
    for same in (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2], rows[::-1][::-1]):
        assert np.allclose(engine.run(same), expected, atol=1e-5)


def test_an_engine_is_not_shared_between_threads(engine):
    caught = []

    def run():
        try:
            engine.run(_rows())
        except RuntimeLoadError as error:
            caught.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == ["wrong-thread"]
    assert np.isfinite(engine.run(_rows())).all()


def test_an_engine_is_not_taken_across_a_fork(engine, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeLoadError) as caught:
        engine.run(_rows())
    assert caught.value.code == "wrong-thread"


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"text " * 100], ids=["empty", "zeros", "text"])
def test_what_is_no_model_is_refused(adapter, load, data, monkeypatch, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(data)
    monkeypatch.setenv("SHOAL_RUNTIMES", adapter.name)
    with pytest.raises((RuntimeLoadError, Exception)) as caught:
        load_engine(adapter.kind, path)
    assert caught.value.code in {"load-failed", "bad-model"}


def test_errors_of_a_runtime_while_running_are_ours(adapter):
    class Broken:
        name, version, kernels, input_values, output_values = "broken", "1", "numpy", 2, 1

        def __init__(self, answer):
            self.answer = answer

        def run(self, inputs):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    rows = np.zeros((3, 2), np.float32)
    for answer in (RuntimeError("inside\nthe library"), ValueError("x"), KeyError("y")):
        with pytest.raises(RuntimeLoadError, match="does not run") as caught:
            Guard(Broken(answer)).run(rows)
        assert caught.value.code == "invoke-failed"
    for answer in (np.zeros((3, 2), np.float32), np.zeros((3, 1)), np.zeros(3, np.float32)):
        with pytest.raises(RuntimeLoadError) as caught:
            Guard(Broken(answer)).run(rows)
        assert caught.value.code == "wrong-tensor"


@pytest.mark.parametrize("one", TFLITE, ids=lambda one: one.name)
def test_operator_versions_that_we_know_are_those_the_runtime_has(one, tmp_path, network):
    path = tmp_path / "model.tflite"
    path.write_bytes(write_float32(network((2, 2))))
    assert known_operators(one.name, one.load(path, 1).version) == one.operators()


def test_the_environment_says_which_runtimes_are_used(monkeypatch, tmp_path, network):
    path = tmp_path / "model.tflite"
    path.write_bytes(write_float32(network((2, 2))))
    names = [one.name for one in TFLITE]
    monkeypatch.setenv("SHOAL_RUNTIMES", f"nothing, {names[-1]},{names[0]}")
    assert [one.name for one in adapters_of("tflite")] == list(dict.fromkeys([names[-1], names[0]]))
    assert load_engine("tflite", path).name == names[-1]
    monkeypatch.setenv("SHOAL_RUNTIMES", "numpy")
    with pytest.raises(RuntimeLoadError) as caught:
        load_engine("tflite", path)
    assert caught.value.code == "no-runtime"


ECHO = """
class Echo:
    name, version, kernels = "echo", "1", "numpy"

    def __init__(self, width):
        self.input_values = self.output_values = width

    def run(self, inputs):
        return inputs


class Adapter:
    name, kind = "echo", "echo"

    def available(self):
        return True

    def load(self, path, num_threads):
        return Echo(int(path.read_bytes()))


adapter = Adapter()
"""


def test_third_parties_add_runtimes_by_entry_point(monkeypatch, tmp_path):
    information = tmp_path / "shoal_echo-3.1.dist-info"
    information.mkdir()
    (information / "entry_points.txt").write_text(
        "[console_scripts]\necho = echo_runtime:main\n\n"
        "[shoal.runtimes]\necho.echo = echo_runtime:adapter\n"
    )
    (tmp_path / "echo_runtime.py").write_text(ECHO)
    path = tmp_path / "model.echo"
    path.write_bytes(b"2")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ("echo.echo", "echo_runtime:adapter", "3.1") in runtime_entry_points()
    rows = np.ones((3, 2), np.float32)
    assert np.array_equal(load_engine("echo", path).run(rows), rows)
    with pytest.raises(RuntimeLoadError):
        load_engine("other", path)


@pytest.fixture
def interpreter(tmp_path, network):
    """The C library's own interpreter, which moves bytes."""
    path = tmp_path / "model.tflite"
    path.write_bytes(write_float32(network((2, 3))))
    with Interpreter(Library(find_tflite_library()), path) as opened:
        yield opened


def test_the_c_library_is_not_read_before_it_has_run(interpreter):
    def read_early():
        with pytest.raises(RuntimeLoadError, match="before invoke"):
            interpreter.get_output()

    read_early()
    interpreter.set_input(np.ones(2, np.float32).tobytes())
    read_early()
    interpreter.invoke()
    assert len(np.frombuffer(interpreter.get_output(), np.float32)) == 3
    interpreter.set_input(bytes(8))
    read_early()


@pytest.mark.parametrize("length", [0, 7, 9, 12])
def test_the_c_library_takes_only_whole_inputs(interpreter, length):
    with pytest.raises(RuntimeLoadError, match="8 input bytes") as caught:
        interpreter.set_input(bytes(length))
    assert caught.value.code == "wrong-tensor"


def test_a_library_that_is_none_is_no_runtime(tmp_path, monkeypatch):
    path = tmp_path / "libtensorflowlite_c.so"
    monkeypatch.setenv("SHOAL_TFLITE_LIBRARY", str(path))
    assert find_tflite_library() is None
    path.write_bytes(b"not a library")
    with pytest.raises(RuntimeLoadError) as caught:
        Library(find_tflite_library())
    assert caught.value.code == "no-runtime"
