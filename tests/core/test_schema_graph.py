"""The graph of a JSON Schema document: its references, unknown references and recursions."""

from typing import Any

import pytest

from uplift_server.core.events.schema_graph import SchemaGraph


def graph_of(schema: Any) -> SchemaGraph:
    return SchemaGraph(schema)


@pytest.mark.parametrize("reference", ["#/$defs/a", "#/%24defs/a", "#here", "https://x.example/s#/$defs/a"])
def test_a_reference_is_resolved_within_the_document(reference: str) -> None:
    target = {"$anchor": "here", "type": "string"}
    root = {"$id": "https://x.example/s", "$defs": {"a": target}, "$ref": reference}
    graph = graph_of(root)
    assert [edge.target for edge in graph.in_place[id(root)]] == [target]
    assert graph.unknown_references == []


def test_a_reference_to_an_embedded_document_is_resolved() -> None:
    target = {"$id": "other", "type": "string"}
    root = {"$id": "https://x.example/s", "$defs": {"a": target}, "$ref": "other"}
    assert [edge.target for edge in graph_of(root).in_place[id(root)]] == [target]


@pytest.mark.parametrize("reference", ["#/a/0", "#/b"])
def test_pointers_resolve_through_lists_and_to_true(reference: str) -> None:
    assert graph_of({"$ref": reference, "a": [{}], "b": True}).unknown_references == []


@pytest.mark.parametrize(
    "reference", ["#/a/1", "#/a/x", "#/a/²", "#/a/" + "9" * 5000, "#/c", "#/b/d", "#nowhere", "elsewhere"]
)
def test_an_unknown_reference_is_listed(reference: str) -> None:
    assert graph_of({"$ref": reference, "a": [{}], "b": 5}).unknown_references == [reference]


def test_a_dynamic_reference_resolves_to_every_anchor_of_its_name() -> None:
    first, second = {"$dynamicAnchor": "n", "$id": "one"}, {"$dynamicAnchor": "n", "$id": "two"}
    root = {"$defs": {"a": first, "b": second}, "$dynamicRef": "two#n", "properties": {"$ref": {"$ref": 5}}}
    assert [edge.target for edge in graph_of(root).in_place[id(root)]] == [first, second]


def test_values_are_not_schemas() -> None:
    root = {"const": {"$id": "x"}, "properties": {"const": {"$anchor": "a"}}, "$ref": "#a", "not": 5, "allOf": [True]}
    graph = graph_of(root)
    assert [edge.target for edge in graph.in_place[id(root)]] == [{"$anchor": "a"}]


def test_recursions_are_found() -> None:
    leaf: Any = {"type": "string"}
    node: Any = {"properties": {"child": {"$ref": "#/$defs/node"}, "leaf": leaf}, "dependentSchemas": 5}
    root = {"$defs": {"node": node}, "items": {"$ref": "#/$defs/node"}, "additionalItems": leaf}
    recursions = graph_of(root).recursions()
    assert set(recursions) == {id(node), id(node["properties"]["child"])}
    assert len(set(recursions.values())) == 1
    assert graph_of({"$ref": "#"}).recursions()
    assert graph_of(True).recursions() == {}
