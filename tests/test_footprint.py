"""Memory of processes of their own: what they do, and what is told where they fail."""

from __future__ import annotations

import json
import sys
import weakref
from types import SimpleNamespace

import pytest

from camrt import footprint as module
from camrt.footprint import Footprint, footprint, report

GIVEN = ("cluster-cam", {"clusters": 4})


def measured(tiny, **options) -> Footprint | None:
    return footprint(tiny, None, *GIVEN, bare=options.pop("bare", None))


@pytest.fixture
def child(monkeypatch):
    """Run other code in the process that measures."""
    monkeypatch.setattr(module, "device_memory", lambda: 100.0)
    return lambda code: monkeypatch.setattr(module, "CODE", code)


def test_an_explanation_takes_memory_of_its_own(tiny):
    found = measured(tiny)
    assert 20 < found.resident < 1000
    assert found.device is None or found.device > -1e5


@pytest.mark.parametrize("code", [
    "import sys; sys.exit(3)", "raise ValueError('no room')", "import os; os.kill(os.getpid(), 9)", "pass", "print('hello')",
    "print('[1, 2]')", "print('{}')", "print('{\"resident\": null, \"device\": 1}')", "import os; os.write(1, b'\\xff\\n')", "nonsense(",
    "print('{\"resident\": 1, \"device\": \"x\"}')",
])  # fmt: skip
def test_a_process_that_fails_is_told_and_ends_nothing(tiny, child, code):
    child(code)
    with pytest.warns(RuntimeWarning, match="^Memory was not measured: "):
        assert measured(tiny) is None


def test_the_last_line_of_the_error_is_told(tiny, child):
    child("raise ValueError('no room')")
    with pytest.warns(RuntimeWarning, match=r"failed \(ValueError: no room\)"):
        measured(tiny)


def test_a_process_that_does_not_end_is_told_and_ended(tiny, child, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 0.5)
    child("import time; time.sleep(60)")
    with pytest.warns(RuntimeWarning, match=r"failed \(.*it was not done after 0.5 seconds\)"):
        assert measured(tiny) is None


@pytest.mark.parametrize(("batch", "sizes"), [(4, [1, 4] * 3), (0, [1, 1] * 3)])
def test_the_bare_network_runs_on_one_image_and_on_as_many_as_share_a_call(tiny, capsys, monkeypatch, batch, sizes):
    asked, seen = [], []
    monkeypatch.setattr(module, "_ask", lambda text: asked.append(text) or {"resident": 1, "device": None})
    footprint(tiny, None, *GIVEN, bare=batch)
    real = module.open_graph

    def watched(bundle, graph, *rest):
        session, provider = real(bundle, graph, *rest)
        run = lambda names, feeds: seen.append((graph, len(*feeds.values()))) or session.run(names, feeds)  # noqa: E731
        return SimpleNamespace(run=run, get_inputs=session.get_inputs), provider

    monkeypatch.setattr(module, "open_graph", watched)
    monkeypatch.setattr(sys, "argv", ["-c", *asked])
    report()
    assert [size for graph, size in seen if graph == "head"] == [size for graph, size in seen if graph == "tail"] == sizes


def test_without_an_interpreter_nothing_is_measured(tiny, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.warns(RuntimeWarning, match="Memory was not measured"):
        assert measured(tiny) is None


def test_what_else_a_process_prints_is_no_matter(tiny, child):
    child("print('a banner'); print('{\"resident\": 7, \"device\": 130}'); print()")
    assert measured(tiny) == Footprint(7.0, 30.0)


def test_a_gpu_that_only_one_of_the_two_sees_tells_nothing(tiny, child, monkeypatch):
    child('print(\'{"resident": 7, "device": null}\')')
    assert measured(tiny) == Footprint(7.0, None)
    child('print(\'{"resident": 7, "device": 50}\')')
    monkeypatch.setattr(module, "device_memory", lambda: None)
    assert measured(tiny) == Footprint(7.0, None)


@pytest.mark.parametrize("bare", [4, None])
@pytest.mark.parametrize("of_source", [True, False])
def test_the_process_runs_what_it_was_asked_for(tiny, child, capsys, monkeypatch, tiny_bundle, bare, of_source):
    asked = []
    monkeypatch.setattr(module, "_ask", lambda text: asked.append(text) or {"resident": 1, "device": None})
    footprint(tiny, tiny_bundle.parent / "tiny.onnx" if of_source else None, *GIVEN, bare=bare)
    runs = []
    real = {"open_graph": module.open_graph, "open_session": module.open_session, "load": module.load}
    for name, function in real.items():
        monkeypatch.setattr(module, name, lambda *a, _n=name, _f=function, **o: runs.append((_n, str(a[1]))) or _f(*a, **o))
    monkeypatch.setattr(sys, "argv", ["-c", *asked])
    report()
    assert json.loads(capsys.readouterr().out)["resident"] > 0
    expected = ["load"] if bare is None else ["open_session"] if of_source else ["open_graph", "open_graph"]
    assert [name for name, _ in runs] == expected  # the bare network alone, without the graph of the masked images
    if expected == ["open_graph"] * 2:
        assert [graph for _, graph in runs] == ["head", "tail"]


@pytest.mark.parametrize(("bare", "opens"), [(4, "open_graph"), (None, "load")])
def test_the_devices_memory_is_read_while_the_sessions_are_open(tiny, capsys, monkeypatch, bare, opens):
    asked, opened = [], []
    monkeypatch.setattr(module, "_ask", lambda text: asked.append(text) or {"resident": 1, "device": None})
    footprint(tiny, None, *GIVEN, bare=bare)
    real = getattr(module, opens)

    def noted(*arguments, **options):
        made = real(*arguments, **options)
        opened.append(weakref.ref(made[0] if bare else made))
        return made

    monkeypatch.setattr(module, opens, noted)
    monkeypatch.setattr(module, "device_memory", lambda: sum(made() is not None for made in opened))
    monkeypatch.setattr(sys, "argv", ["-c", *asked])
    report()
    assert json.loads(capsys.readouterr().out)["device"] == len(opened) == (2 if bare else 1)
