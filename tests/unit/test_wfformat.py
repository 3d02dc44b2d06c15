"""WfFormat files: what is read, and how each kind of fault is told."""

import gzip
import json

import pytest

import headrace
from headrace.errors import GraphError
from headrace.formats.wfformat import read, stand_in


def workflow(parents, runtimes_s=None):
    """Make a WfFormat 1.5 document from `{task: [parents]}`."""
    document = {
        "schemaVersion": "1.5",
        "workflow": {"specification": {"tasks": [{"id": name, "parents": needed} for name, needed in parents.items()]}},
    }
    if runtimes_s is not None:
        executed = [{"id": name, "runtimeInSeconds": seconds} for name, seconds in runtimes_s.items()]
        document["workflow"]["execution"] = {"tasks": executed}
    return document


def test_parents_come_first_whatever_the_order_in_the_file():
    flow = read(workflow({"c": ["b", "a"], "b": ["a"], "a": []}, {"a": 1, "b": 2.5, "c": 0}))
    assert list(flow) == ["a", "b", "c"]
    assert flow["c"].parents == ("b", "a")
    assert [recorded.runtime_s for recorded in flow.values()] == [1.0, 2.5, 0.0]


def test_a_workflow_that_was_never_executed_takes_no_time():
    assert read(workflow({"a": []}))["a"].runtime_s == 0.0


def test_a_parent_named_twice_is_needed_once():
    assert read(workflow({"a": [], "b": ["a", "a"]}))["b"].parents == ("a",)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_are_read_packed_or_not(tmp_path, pack):
    path = tmp_path / "flow"
    path.write_bytes(pack(json.dumps(workflow({"a": []})).encode()))
    assert list(read(path)) == list(read(str(path))) == ["a"]


def test_the_hash_covers_name_order_and_ancestry():
    left, right = stand_in("left", 0), stand_in("right", 0)
    hashes = {
        left,
        right,
        stand_in("both", 0, left, right),
        stand_in("both", 0, right, left),
        stand_in("other", 0, left, right),
        stand_in("both", 0, left),
    }
    assert len(hashes) == 6
    assert stand_in("left", 0) == left


def test_the_graph_has_the_ids_as_keys_and_the_parents_as_edges():
    graph = headrace.Graph.from_wfformat(workflow({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}))
    assert len(graph) == 4
    assert graph["d"].key == "d"
    assert "4 edges" in repr(graph)


FAULTS = {
    "no object": ([1], "the document is no object"),
    "no version": ({}, "no 'schemaVersion'"),
    "other version": (workflow({}) | {"schemaVersion": "1.4"}, "schemaVersion is '1.4'"),
    "no tasks": ({"schemaVersion": "1.5", "workflow": {"specification": {}}}, "no 'tasks'"),
    "task is text": ({"schemaVersion": "1.5", "workflow": {"specification": {"tasks": ["a"]}}}, "task 0 is no object"),
    "two of one id": (
        {"schemaVersion": "1.5", "workflow": {"specification": {"tasks": [{"id": "a", "parents": []}] * 2}}},
        "two tasks have the id 'a'",
    ),
    "unknown parent": (workflow({"a": ["z"]}), "task 'a' names the parent 'z'"),
    "parent is no text": (workflow({"a": [[]]}), "task 'a' names the parent []"),
    "negative runtime": (workflow({"a": []}, {"a": -1}), "task 'a' has the runtime -1"),
    "runtime is text": (workflow({"a": []}, {"a": "1"}), "task 'a' has the runtime '1'"),
    "endless runtime": (workflow({"a": []}, {"a": float("inf")}), "task 'a' has the runtime inf"),
}


@pytest.mark.parametrize(("document", "text"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(document, text):
    with pytest.raises(GraphError) as caught:
        read(document)
    assert text in str(caught.value)
    assert "the workflow is not WfFormat 1.5" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", gzip.compress(b"{}")[:-9], b"[" * 100_000])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"broken\.json cannot be read as JSON"):
        read(path)


@pytest.mark.parametrize("length", [1, 2, 10, 1_000])
def test_a_cycle_is_shown_with_its_length_and_ten_tasks_at_most(length):
    ring = {f"t{number}": [f"t{(number + 1) % length}"] for number in range(length)}
    with pytest.raises(GraphError) as caught:
        headrace.Graph.from_wfformat(workflow(ring | {"free": []}))
    text = str(caught.value)
    assert f"cycle of {length} task" in text
    assert "free" not in text
    assert len(set(text.split(" -> ")) & set(ring)) <= 10


@pytest.mark.parametrize("time_scale", [-1, float("nan"), float("inf"), "1", None])
def test_a_time_scale_that_makes_no_sense_is_refused(time_scale):
    with pytest.raises(GraphError, match="time_scale"):
        headrace.Graph.from_wfformat(workflow({"a": []}), time_scale=time_scale)
