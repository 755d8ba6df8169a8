"""The words of mappings, and the ids of a container in a user namespace."""

from __future__ import annotations

import pytest

from wherry.runtime.idmaps import Ids, parse

IDS = Ids(((0, 100000, 1000), (1000, 500000, 10)), ((0, 200000, 65536),))


def test_words_and_spec_lead_back():
    assert Ids.of_words(IDS.words) == IDS
    assert Ids.of_words("") is None
    assert Ids.of_spec(IDS.to_spec()) == IDS
    assert parse(IDS.words) == (IDS.uids, IDS.gids)
    with pytest.raises(ValueError, match=r"needs linux\.uidMappings"):
        Ids.of_spec({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]})


@pytest.mark.parametrize(("own", "host"), [(0, 100000), (999, 100999), (1000, 500000), (1009, 500009)])
def test_an_id_inside_is_one_of_the_host(own, host):
    assert IDS.uid(own) == host
    assert IDS.own(host, 200000) == (own, 0)


def test_who_is_nobody():
    for unknown in (1010, 99999):
        with pytest.raises(OSError, match=f"user {unknown} has no id"):
            IDS.uid(unknown)
    with pytest.raises(OSError, match="group 65536 has no id"):
        IDS.host(0, 65536)
    assert IDS.own(0, 0) == (65534, 65534)


def test_settings_of_file_systems():
    assert IDS.settings(("mode=700", "uid=1000", "gid=5", "size=1k", "uid=x")) == (
        "mode=700", "uid=500000", "gid=200005", "size=1k", "uid=x",
    )  # fmt: skip


def test_what_is_to_be_seen_inside():
    assert IDS.seen_inside("owner=0:33") == "owner=100000:200033"
    found = IDS.seen_inside("uids=7-0-1#5000-998-4;gids=7-0-1")
    assert found == "uids=7-100000-1#5000-100998-2#5002-500000-2;gids=7-200000-1"
    for text in ("owner=70000:0", "uids=1-4000-5;gids=1-0-1"):
        with pytest.raises(ValueError, match=r"has no id|none of the ids"):
            IDS.seen_inside(text)
