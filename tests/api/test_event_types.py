"""The event catalog over HTTP: creating, updating, listing and deleting event types."""

from typing import Any

from uplift_server.core.events.catalog import EVENT_TYPES


def test_a_new_server_has_the_built_in_types(server: Any) -> None:
    """Every key can read all types. The types in Uplift's documentation are marked."""
    owner = server.owner(server.account(), [])
    listed = owner.get("/v1/event-types?limit=500").json["data"]
    by_name = {each["name"]: each for each in listed}
    assert {each.name for each in EVENT_TYPES} <= by_name.keys()
    for built_in in EVENT_TYPES:
        shown = by_name[built_in.name]
        assert shown["documented"] is built_in.documented
        assert shown["schema"] == built_in.schema
        assert shown["example"] == built_in.example
        assert owner.get(f"/v1/event-types/{built_in.name}").json == shown


def test_an_event_type_is_created_replaced_and_deleted(server: Any) -> None:
    """PUT creates, replaces or recreates a type, and reports whether the type is new."""
    operator, path = server.operator, "/v1/event-types/pitch.tracked"
    schema = {"type": "object", "required": ["speed"], "properties": {"speed": {"type": "number"}}}
    added = operator.put(path, {"description": "A pitch.", "schema": schema, "example": {"speed": 41.5}})
    assert added.status == 201
    assert added.json | {"created_at": "", "updated_at": ""} == {
        "name": "pitch.tracked",
        "group": "pitch",
        "description": "A pitch.",
        "schema": schema,
        "example": {"speed": 41.5},
        "api_version": "01/01/2022",
        "documented": False,
        "archived": False,
        "archived_at": None,
        "created_at": "",
        "updated_at": "",
    }
    assert server.services.context.cache.event_types["pitch.tracked"].problems(b"{}")
    replaced = operator.put(path, {"description": "Two.", "archived": True, "group": "g", "api_version": "2"})
    assert replaced.status == 200
    assert replaced.json["schema"] is None
    assert (replaced.json["archived"], replaced.json["group"], replaced.json["api_version"]) == (True, "g", "2")
    assert replaced.json["created_at"] == added.json["created_at"]
    again = operator.put(path, {"description": "Two.", "archived": True}).json
    assert again["archived_at"] == replaced.json["archived_at"]
    assert operator.put(path, {"description": "Two."}).json["archived_at"] is None

    assert operator.delete(path).status == 204
    assert operator.get(path).code == "not_found"
    assert operator.delete(path).code == "not_found"
    assert operator.put(path, {"description": "Three."}).status == 201


def test_a_patch_changes_only_its_fields(server: Any) -> None:
    operator, path = server.operator, "/v1/event-types/pitch.patched"
    schema = {"type": "object", "required": ["speed"]}
    assert operator.patch(path, {"archived": True}).code == "not_found"
    created = operator.put(
        path, {"description": "A pitch.", "group": "g", "schema": schema, "example": {"speed": 1}, "api_version": "2"}
    )
    changed = operator.patch(path, {"archived": True}, if_match=created.headers["etag"])
    assert changed.status == 200
    moving = {"updated_at": "", "archived_at": ""}
    assert changed.json | moving == created.json | {"archived": True} | moving
    stale = operator.patch(path, {"description": "Two."}, if_match=created.headers["etag"])
    assert (stale.status, stale.code) == (412, "precondition_failed")
    assert operator.patch(path, {"example": {}}).problems == {("example", "schema_mismatch")}
    assert operator.patch(path, {"schema": {"type": "string"}}).problems == {("example", "schema_mismatch")}
    assert operator.patch(path, {"schema": {"type": 1}, "x": 1}).problems == {
        ("schema", "schema_invalid"),
        ("x", "unknown_field"),
    }
    assert operator.get(path).json == changed.json
    assert operator.get(path).headers["etag"] == operator.patch(path, {"archived": True}).headers["etag"]
    reset = operator.patch(path, {"schema": None, "example": None, "group": None, "api_version": None}).json
    assert [reset[name] for name in ("schema", "example", "group", "api_version")] == [
        None,
        None,
        "pitch",
        "01/01/2022",
    ]
    assert (reset["description"], reset["archived"]) == ("A pitch.", True)
    assert server.services.context.cache.event_types["pitch.patched"].problems(b"{}") == []


def test_a_repeated_put_keeps_the_version(server: Any) -> None:
    path, body = "/v1/event-types/pitch.repeated", {"description": "A pitch.", "example": {"speed": 1}}
    first = server.operator.put(path, body)
    again = server.operator.put(path, body)
    assert (again.status, again.json, again.headers["etag"]) == (200, first.json, first.headers["etag"])
    assert server.operator.patch(path, {"archived": True}, if_match=first.headers["etag"]).status == 200


def test_an_update_keeps_the_documented_mark(server: Any) -> None:
    """Operators can change the text, but not the mark."""
    path = "/v1/event-types/movement.analytics.created"
    before = server.operator.get(path).json
    changed = server.operator.put(path, {"description": "Ours."})
    assert (changed.status, changed.json["documented"]) == (200, True)
    fields = ("description", "group", "schema", "example", "api_version")
    server.operator.put(path, {name: before[name] for name in fields})


def test_all_problems_of_a_type_are_reported_together(server: Any) -> None:
    """Covers the name, the fields, the schema, and an example that does not match the schema."""
    put = server.operator.put
    assert put("/v1/event-types/Pitch..X", {"schema": {"type": "no such"}, "archived": 1, "z": 0}).problems == {
        ("name", "event_type_invalid"),
        ("description", "required"),
        ("schema", "schema_invalid"),
        ("archived", "type_boolean"),
        ("z", "unknown_field"),
    }
    schema = {"type": "object", "properties": {"speed": {"type": "number"}}, "required": ["speed"]}
    wrong = put("/v1/event-types/pitch.x", {"description": "x", "schema": schema, "example": {"speed": "fast"}})
    assert wrong.problems == {("example.speed", "schema_mismatch")}
    assert '"fast" is not of type "number"' in wrong.json["errors"][0]["message"]
    remote = put("/v1/event-types/pitch.x", {"description": "x", "schema": {"$ref": "http://192.0.2.1/s.json"}})
    assert remote.problems == {("schema", "schema_invalid")}
    long = put("/v1/event-types/pitch.x", {"description": "x" * 1001, "api_version": "v" * 33, "group": "g\n"})
    assert long.problems == {("description", "too_long"), ("api_version", "too_long"), ("group", "characters_invalid")}
    big = put("/v1/event-types/pitch.x", {"description": "x", "example": "x" * 300_000})
    assert big.problems == {("example", "too_long")}
