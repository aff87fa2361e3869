"""Requests that are refused: with the right code, with nothing left open, and with nothing in the log."""

from __future__ import annotations

import gzip
import logging

import orjson
import pytest

from fairlead.apiserver.request import port_number
from tests.unit.apiserver.test_lifecycle import PATH, until, world

DIGITS = "9" * 5000  # more than Python makes a number of


async def test_a_watch_with_a_wrong_option_is_never_opened(tmp_path):
    """One answer, 400, and the registry watches for nobody."""
    async with world(tmp_path) as w:
        before = w.registry.watchers
        for wrong in ("timeoutSeconds=x", f"timeoutSeconds={DIGITS}", "includeObject=All"):
            code, body = await w.get(f"{PATH}?watch=1&{wrong}")
            assert (code, orjson.loads(body)["reason"]) == (400, "BadRequest")
        assert (w.server.open_streams, w.registry.watchers) == (0, before)


async def test_head_of_a_stream_is_not_allowed(tmp_path):
    """Its answer would have no end; the connection can be used again."""
    async with world(tmp_path) as w:
        for path in (f"{PATH}?watch=1", "/api/v1/namespaces/shop/pods/x/log", "/api/v1/namespaces/shop/pods/x/exec"):
            async with w.session.head(w.server.url + path) as response:
                assert response.status == 405
        assert (await w.get(PATH))[0] == 200
        assert w.server.open_streams == 0


async def test_the_longest_watch_can_be_asked_for(tmp_path):
    """Any number of seconds that fits 64 bits."""
    async with world(tmp_path) as w:
        response = await w.session.get(f"{w.server.url}{PATH}?watch=1&timeoutSeconds={2**63 - 1}")
        assert response.status == 200
        await until(lambda: w.server.open_streams == 1)
        response.close()


@pytest.mark.parametrize("wrong", [DIGITS, str(2**64), "-1", "x", "٣"])
async def test_resource_versions_are_numbers_of_64_bits(tmp_path, wrong):
    """400 for others, in a query; in a body that is older or newer than all, a conflict."""
    async with world(tmp_path) as w:
        assert (await w.get(f"{PATH}?resourceVersion={wrong}"))[0] == 400
        await w.make("a")
        body = {"metadata": {"name": "a", "resourceVersion": wrong}}
        async with w.session.put(f"{w.server.url}{PATH}/a", json=body) as response:
            assert response.status in (400, 409)


async def test_compressed_bodies_are_not_taken_apart(tmp_path, caplog):
    """As upstream: the bytes are no JSON, so 400, whether or not they could be decompressed."""
    async with world(tmp_path) as w:
        for body in (gzip.compress(b'{"metadata":{"name":"a"}}'), b"not gzip"):
            for encoding in ("gzip", "br", "nope"):
                headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
                async with w.session.post(w.server.url + PATH, data=body, headers=headers) as response:
                    assert (response.status, (await response.json())["reason"]) == (400, "BadRequest")
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_who_does_not_speak_http_is_told_and_not_logged(tmp_path, caplog):
    """What a stranger sends does not fill the log, nor get into it."""
    async with world(tmp_path) as w, w.session.get(f"{w.server.url}/", headers={"Host": "x" * 70_000}) as response:
        assert response.status == 400
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_number_that_is_none_is_a_bad_body(tmp_path):
    """YAML that looks like a number and can't be made one."""
    async with world(tmp_path) as w:
        for text in (b"a: " + DIGITS.encode(), b"a: 2026-13-41", b"a: 0b"):
            headers = {"Content-Type": "application/yaml"}
            async with w.session.post(w.server.url + PATH, data=text, headers=headers) as response:
                assert response.status in (400, 422), text[:20]


async def test_the_options_of_a_delete_have_their_types(tmp_path):
    """dryRun that is no list."""
    async with world(tmp_path) as w:
        await w.make("a")
        for wrong in (True, 7, {"All": 1}):
            async with w.session.delete(f"{w.server.url}{PATH}/a", json={"dryRun": wrong}) as response:
                assert response.status == 400
        assert (await w.get(f"{PATH}/a"))[0] == 200


def test_ports_are_digits_in_range():
    """Anything else is no port."""
    assert [port_number(text) for text in ("1", "65535", "080")] == [1, 65535, 80]
    assert {port_number(text) for text in ("", "0", "65536", "-1", "x", "٣", DIGITS, "1.5")} == {None}
