#!/usr/bin/python3
"""nginx/openapi.json against what really comes: answers of every kind, headers and bodies, held to it
by Debian's python3-jsonschema. The 200 is held to the published schema and example as well."""

import json
import pathlib
import re
import unittest
from datetime import datetime

import jsonschema

from tests.support.scripted_pool import ScriptedPool, after, ok
from tests.support.raw_http import ask, get_request, pipeline
from tests.support.stack import ROOT, Stack

OURS = json.loads(pathlib.Path(ROOT, "nginx", "openapi.json").read_text(encoding="utf-8"))
VECTORS = ROOT / "tests" / "vectors"
PUBLISHED = json.loads(pathlib.Path(VECTORS, "published_schema.json").read_text(encoding="utf-8"))
EXAMPLE = json.loads(pathlib.Path(VECTORS, "published_example.json").read_text(encoding="utf-8"))
ENDPOINT = OURS["paths"]["/api/v1/keys"]
# What HTTP itself puts on any answer, and describes nothing of ours.
FRAME = {"server", "date", "connection", "content-type", "content-length", "last-modified", "etag"}
USERS = [f"0000000{n}-0000-4000-8000-00000000000{n}" for n in range(8)]


def setUpModule():
    global stack, token
    stack = unittest.enterModuleContext(Stack())
    token = stack.mint()


formats = jsonschema.FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)
def is_date_time(value):
    """RFC 3339 section 5.6."""
    if not isinstance(value, str):
        return True
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", value):
        return False
    return datetime.fromisoformat(value.upper()) is not None


@formats.checks("uuid")
def is_uuid(value):
    return not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value)


def resolved(document, node):
    """The node that a $ref of the document names, or the node itself."""
    while "$ref" in node:
        path = node["$ref"].removeprefix("#/").split("/")
        node = document
        for part in path:
            node = node[part]
    return node


def json_schema(document, node):
    """An OpenAPI 3.0 schema as JSON Schema: references in place, `nullable` as a type."""
    if isinstance(node, list):
        return [json_schema(document, item) for item in node]
    if not isinstance(node, dict):
        return node
    node = resolved(document, node)
    schema = {name: json_schema(document, value) for name, value in node.items() if name not in ("nullable", "example")}
    if node.get("nullable") is True:
        schema["type"] = [node["type"], "null"]
    return schema


def validate(document, schema, value):
    schema = json_schema(document, schema)
    jsonschema.Draft4Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft4Validator, format_checker=formats)


def response_of(operation, status):
    return resolved(OURS, operation["responses"][str(status)])


def check_headers(description, answer):
    for name, header in description["headers"].items():
        header = resolved(OURS, header)
        found = answer.headers.get(name.lower())
        if found is None:
            if header.get("required"):
                raise AssertionError(f"{name} is missing: {answer}")
            continue
        validate(OURS, header["schema"], int(found) if header["schema"]["type"] == "integer" else found)
    strangers = set(answer.headers) - FRAME - {name.lower() for name in description["headers"]}
    if strangers:
        raise AssertionError(f"headers that are not described: {strangers}: {answer}")


class OpenApiTestCase(unittest.TestCase):
    def check(self, status, code, answer, response=None):
        """The answer is of this status and code, and as described (by default for GET of the list)."""
        self.assertEqual(answer.status, status, answer)
        response = response or response_of(ENDPOINT["get"], status)
        check_headers(response, answer)
        media = response["content"][answer.headers["content-type"]]
        body = answer.json()
        validate(OURS, media["schema"], body)
        if status != 200:
            self.assertEqual(body["error"]["code"], code)
            self.assertEqual(body["error"]["request_id"], answer.headers["x-request-id"])
            validate(PUBLISHED, PUBLISHED["components"]["schemas"]["Error"], body)
        return body


class TheList(OpenApiTestCase):
    def published(self, body):
        published = PUBLISHED["paths"]["/api/v1/keys"]["get"]["responses"]["200"]
        validate(PUBLISHED, published["content"]["application/json"]["schema"], body)

    def test_every_users_list_is_as_described_and_as_published(self):
        totals = []
        for user in (USERS[1], USERS[2], USERS[3], USERS[4], USERS[6]):
            answer = stack.get(token=stack.mint("--user", user))
            body = self.check(200, None, answer)
            self.published(body)
            self.assertEqual(body["meta"]["total"], len(body["data"]))
            for name in response_of(ENDPOINT["get"], 200)["headers"]:
                if "RateLimit" in name:
                    self.assertIn(name.lower(), answer.headers)
            totals.append(body["meta"]["total"])
        self.assertEqual(totals, [2, 1, 0, 1000, 6])

    def test_the_demo_users_list_is_the_published_example_field_by_field(self):
        body = stack.get(token=token).json()
        self.assertEqual(list(body), list(EXAMPLE))
        self.assertEqual(body["meta"], EXAMPLE["meta"])
        self.assertEqual(len(body["data"]), len(EXAMPLE["data"]))
        for ours, theirs in zip(body["data"], EXAMPLE["data"]):
            self.assertEqual([name for name in ours if name in theirs], list(theirs), "in their order")
            for name, value in theirs.items():
                self.assertEqual(ours[name], value, name)

    def test_a_key_has_the_fields_of_schema_and_example_together(self):
        schema = OURS["components"]["schemas"]["APIKeyInfo"]
        published = set(PUBLISHED["components"]["schemas"]["APIKeyInfo"]["properties"])
        self.assertEqual(set(schema["properties"]), published | set(EXAMPLE["data"][0]))
        self.assertEqual(schema["required"], list(schema["properties"]))
        self.assertEqual(list(stack.get(token=token).json()["data"][0]), schema["required"])

    def test_head_has_the_headers_that_get_has(self):
        for request in ({"token": token}, {}, {"token": "junk"}, {"path": "/api/v1/nothing"}):
            get, head = (stack.get(method=method, **request) for method in ("GET", "HEAD"))
            changing = {"date", "x-request-id", "x-ratelimit-remaining", "ratelimit", "x-ratelimit-reset"}
            self.assertEqual(head.status, get.status)
            self.assertEqual(head.body, b"")
            self.assertEqual(list(head.headers), list(get.headers))
            for name in set(get.headers) - changing:
                self.assertEqual(head.headers[name], get.headers[name], name)

    def test_http_2_has_the_answer_that_http_1_1_has(self):
        for request in ({"token": token}, {}, {"method": "POST"}, {"path": "/api/v1/nothing"}):
            one, two = (stack.get(http=http, **request) for http in ("1.1", "2"))
            self.assertEqual(two.http, "HTTP/2")
            self.assertEqual(two.status, one.status)
            self.assertEqual(set(two.headers), set(one.headers) - {"connection"})
            self.assertEqual(re.sub(b"req_[0-9a-f]*", b"", two.body), re.sub(b"req_[0-9a-f]*", b"", one.body))


class TheDescription(OpenApiTestCase):
    def test_it_is_served(self):
        describe = OURS["paths"]["/api/openapi.json"]["get"]
        for http in ("1.1", "2"):
            answer = stack.get(path="/api/openapi.json", http=http)
            self.assertEqual(self.check(200, None, answer, response_of(describe, 200)), OURS)
        self.check(
            405, "method_not_allowed", stack.get(path="/api/openapi.json", method="POST"), response_of(describe, 405)
        )
        answer = stack.get(path="/api/openapi.json", headers={"If-Match": '"none"'})
        self.check(412, "precondition_failed", answer, response_of(describe, 412))

    def test_its_references_lead_somewhere_and_its_examples_are_as_it_says(self):
        def visit(node):
            if isinstance(node, dict):
                resolved(OURS, node)
                if "schema" in node and "example" in node:
                    validate(OURS, node["schema"], node["example"])
                node = list(node.values())
            if isinstance(node, list):
                for item in node:
                    visit(item)

        visit(OURS)

    def test_get_and_head_have_the_same_answers(self):
        self.assertEqual(ENDPOINT["head"]["responses"], ENDPOINT["get"]["responses"])

    def test_every_error_that_nginx_names_is_described(self):
        """The table in nginx/keys-http.conf; 403 is the status listener's alone."""
        text = pathlib.Path(ROOT, "nginx", "keys-http.conf").read_text(encoding="utf-8")
        table = re.search(r"map \$status \$keys_error_code \{(.*?)\}", text, re.S)[1]
        rows = dict(re.findall(r"(\d{3}) (\w+);", table))
        self.assertEqual(rows.pop("403"), "forbidden")
        responses = {}
        for path in OURS["paths"].values():
            for operation in path.values():
                responses |= operation["responses"]
        for status, code in rows.items():
            schema = resolved(OURS, responses[status])["content"]["application/json"]["schema"]
            self.assertIn(code, schema["properties"]["error"]["properties"]["code"]["enum"])


class WhatGoesWrong(OpenApiTestCase):
    def test_refusals_are_as_described(self):
        self.check(401, "missing_api_key", stack.get())
        self.check(401, "invalid_session", stack.get(token="junk"))
        self.check(401, "invalid_session", stack.get(token=stack.mint("--user", USERS[5])))
        self.check(401, "expired_session", stack.get(token=stack.mint("--expires-in", "-60")))
        self.check(403, "cross_site_request", stack.get(token=token, headers={"Sec-Fetch-Site": "cross-site"}))
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            self.check(405, "method_not_allowed", stack.get(token=token, method=method))

    def test_malformed_requests_are_as_described(self):
        get = "GET /api/v1/keys HTTP/1.1\r\nHost: localhost\r\n"
        long = "a" * 40000
        for status, code, request in (
            (400, "bad_request", get + "Host: b\r\n\r\n"),
            (413, "payload_too_large", get + f"Content-Length: 40000\r\n\r\n{long}"),
            (414, "uri_too_long", get.replace("keys", f"keys?{long}") + "\r\n"),
            (431, "headers_too_large", get + f"X: {long}\r\n\r\n"),
            (501, "not_implemented", get + "Transfer-Encoding: gzip\r\n\r\n"),
            (505, "http_version_not_supported", get.replace("1.1", "3.0") + "\r\n"),
        ):
            self.check(status, code, ask(stack, request))
        self.check(400, "bad_request", ask(stack, get + "\r\n", plain=True))

    def test_other_paths_are_as_described(self):
        not_found = OURS["components"]["responses"]["NotFound"]
        for path in ("/api/v1/keys/", "/api/v2/keys"):
            self.check(404, "not_found", stack.get(path=path), not_found)

    def test_a_user_over_the_limit_is_answered_as_described(self):
        free = stack.mint("--user", USERS[2])
        while (answer := stack.get(token=free)).status == 200:
            pass
        body = self.check(429, "rate_limit_exceeded", answer)
        self.assertEqual(body["error"]["details"]["limit"], 10)
        self.assertIn("x-ratelimit-limit", answer.headers)

    def test_a_flood_is_answered_as_described(self):
        with ScriptedPool() as scripted_pool:
            found = scripted_pool.wait_until(
                lambda: [one for one in pipeline(scripted_pool, [get_request()] * 700) if one.status == 429],
                timeout=60,
                what="the limit",
            )
            answer = found[0]
            self.assertNotIn("details", self.check(429, "rate_limit_exceeded", answer)["error"])

    def test_a_fault_of_ours_is_answered_as_described(self):
        stack.psql("REVOKE SELECT ON public.tiers FROM keys_runtime")
        try:
            self.check(500, "internal_error", stack.get(token=token))
        finally:
            stack.psql("GRANT SELECT ON public.tiers TO keys_runtime")
        self.assertEqual(stack.get(token=token).status, 200)

    def test_without_its_database_the_service_answers_as_described(self):
        stack.pg_ctl("stop", "-m", "immediate")
        try:
            stack.wait_until(lambda: stack.get(token=token).status == 503, what="503 without a database")
            self.check(503, "service_unavailable", stack.get(token=token))
            self.assertEqual(stack.get(url=stack.status_url, path="/readyz").status, 503)
            self.assertEqual(stack.get(url=stack.status_url, path="/healthz").status, 200)
        finally:
            stack.pg_ctl("start")
        stack.wait_until(lambda: stack.get(token=token).status == 200, what="its return")
        stack.wait_until(lambda: stack.get(url=stack.status_url, path="/readyz").status == 200, what="that it says so")

    def test_without_its_pool_nginx_answers_as_described(self):
        with ScriptedPool(listening=False) as scripted_pool:
            self.check(502, "bad_gateway", scripted_pool.get(token=token))
        with ScriptedPool() as scripted_pool:
            scripted_pool.peer = after(60, ok())
            self.check(504, "gateway_timeout", scripted_pool.get(token=token))


if __name__ == "__main__":
    unittest.main()
