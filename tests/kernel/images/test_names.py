"""Finding, listing, naming and removing images: dockerd's rules, shapes and words."""

from __future__ import annotations

import io
import time

import pytest

from tests import tars
from tests.kernel.images.store import LAYER, NO_FILTERS, UPPER, Store
from tests.tars import config_of, digest, docker_archive
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.images.commit import Commit

pytestmark = pytest.mark.root


def test_lookup_by_everything(store: Store) -> None:
    image_id = store.put(repo="name", tag="t")
    for ref in ("name:t", "docker.io/library/name:t", image_id, image_id[7:], image_id[:20], image_id[7:11]):
        assert store.images.resolve(ref).id == image_id
    for ref, text in (
        ("name", "No such image: name:latest"), ("f" * 64, f"No such image: sha256:{'f' * 64}"),
        ("sha256:zz", "No such image: sha256:zz"),
    ):  # fmt: skip
        with pytest.raises(NotFound) as caught:
            store.images.resolve(ref)
        assert caught.value.message == text
    with pytest.raises(InvalidArgument, match="must be lowercase"):
        store.images.resolve("UPPER")


def test_an_ambiguous_start_of_an_id_is_no_image(store: Store) -> None:
    seen: dict[str, str] = {}
    while True:
        image_id = store.put()
        if image_id[7] in seen:
            break
        seen[image_id[7]] = image_id
    with pytest.raises(NotFound):
        store.images.resolve(image_id[7])


def test_the_shape_of_a_list_entry(store: Store) -> None:
    store.load(docker_archive([LAYER], ["a:1"]))
    (entry,) = store.images.listing(all=False, filters=NO_FILTERS)
    assert entry == {
        "Containers": -1, "Created": 1714979289, "Id": digest(config_of([LAYER])), "Labels": {"a": "b"},
        "ParentId": "", "RepoDigests": [], "RepoTags": ["a:1"], "SharedSize": -1, "Size": 30,
    }  # fmt: skip


def test_history_counts_empty_layers(store: Store) -> None:
    steps = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD"},
        {"created": "2024-01-01T00:00:01+01:00", "created_by": "CMD", "empty_layer": True, "comment": "c"},
    ]
    store.load(docker_archive([LAYER], ["a:1"], config=config_of([LAYER], history=steps)))
    newest, oldest = store.images.history("a:1")
    assert (newest["Size"], newest["CreatedBy"], newest["Comment"], newest["Tags"]) == (0, "CMD", "c", ["a:1"])
    assert newest["Created"] == 1704063601
    assert (oldest["Id"], oldest["Size"], oldest["Tags"], oldest["Created"]) == ("<missing>", 30, None, 1704067200)


def test_filters(store: Store) -> None:
    first = store.put(repo="one", changes=["LABEL k=v"])
    second = store.put(repo="team/two", tag="x")
    third = store.put()

    def found(**filters: list[str]) -> list[str]:
        return [entry["Id"] for entry in store.images.listing(all=False, filters=filters)]

    assert found() == [third, second, first]
    assert found(dangling=["true"]) == [third]
    assert found(dangling=["false"]) == [second, first]
    assert found(label=["k"]) == found(label=["k=v"]) == [first]
    assert found(label=["k=w"]) == []
    assert found(reference=["o*"]) == [first]
    assert found(reference=["*"]) == [first]
    assert found(reference=["*/*:x"]) == [second]
    assert found(before=["team/two:x"]) == [first]
    assert found(since=["one"]) == [third, second]
    assert found(until=["1h"]) == []
    for filters, text in (
        ({"bogus": ["a"]}, "invalid filter 'bogus'"), ({"dangling": ["maybe"]}, "invalid filter 'dangling=[maybe]'"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument) as caught:
            store.images.listing(all=False, filters=filters)
        assert caught.value.message == text


def test_a_damaged_config_is_named(store: Store) -> None:
    image_id = store.put(repo="a")
    store.database.close()
    (store.root / "content/blobs/sha256" / image_id[7:]).write_bytes(b"{}")
    store.open()
    with pytest.raises(SystemFailure, match="is damaged"):
        store.images.resolve("a")


def test_tag(store: Store) -> None:
    image_id = store.put(repo="a")
    assert store.images.tag("a", "b/c", "") == "b/c:latest"
    assert store.images.tag(image_id[:20], "localhost:5000/x", "1") == "localhost:5000/x:1"
    assert store.images.tag("a", "", "") == ""
    assert store.tags() == ["a:latest", "b/c:latest", "localhost:5000/x:1"]
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        store.images.tag("nope", "b", "x")


def test_names_go_one_by_one_and_the_image_with_the_last(store: Store) -> None:
    empty = store.state()
    image_id = store.put(repo="a")
    store.images.tag("a", "b", "")
    assert store.remove("a") == [{"Untagged": "a:latest"}]
    assert store.remove("b") == [
        {"Untagged": "b:latest"}, {"Deleted": image_id}, {"Deleted": digest(LAYER)},
    ]  # fmt: skip
    assert store.state() == empty


def test_by_id_with_several_names(store: Store) -> None:
    image_id = store.put(repo="a")
    store.images.tag("a", "a", "2")
    with pytest.raises(Conflict) as caught:
        store.remove(image_id)
    short = image_id[7:19]
    assert caught.value.message == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert store.remove(short, force=True)[:3] == [
        {"Untagged": "a:2"}, {"Untagged": "a:latest"}, {"Deleted": image_id},
    ]  # fmt: skip


def test_used_by_a_stopped_container(store: Store) -> None:
    image_id = store.put(repo="a")
    short = image_id[7:19]

    def users(_: str) -> list[tuple[str, bool]]:
        return [("0123456789abcdef", False)]

    with pytest.raises(Conflict) as caught:
        store.remove("a", users=users)
    assert caught.value.message == (
        'conflict: unable to remove repository reference "a" (must force) - '
        f"container 0123456789ab is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as caught:
        store.remove(short, users=users)
    assert caught.value.message == (
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
    )
    store.driver.prepare("own", store.images.resolve("a").chain_id)
    assert store.remove("a", force=True, users=users) == [{"Untagged": "a:latest"}, {"Deleted": image_id}]
    assert len(list(store.driver.walk())) == 2  # the container still stands on its layer
    store.driver.remove("own")
    assert store.images.collect() == [digest(LAYER)[7:]]
    assert list(store.driver.walk()) == []


def test_used_by_a_running_container(store: Store) -> None:
    image_id = store.put(repo="a")

    def users(_: str) -> list[tuple[str, bool]]:
        return [("0123456789abcdef", True)]

    with pytest.raises(Conflict) as caught:
        store.remove(image_id, force=True, users=users)
    assert caught.value.message == (
        f"conflict: unable to delete {image_id[7:19]} (cannot be forced) - "
        "image is being used by running container 0123456789ab"
    )
    assert store.tags() == ["a:latest"]
    assert store.remove("a", force=True, users=users) == [{"Untagged": "a:latest"}]
    assert store.images.resolve(image_id).id == image_id


def child_of(store: Store, image_id: str, repo: str) -> str:
    chain = store.images.resolve(image_id).chain_id
    return store.images.commit(iter([UPPER]), Commit(chain, image_id, {}, "touch", repo=repo))


def test_a_name_is_taken_from_an_image_that_has_children(store: Store) -> None:
    base = store.put(repo="base", message="below")
    child = child_of(store, base, "child")
    short = base[7:19]
    assert store.remove("base") == [{"Untagged": "base:latest"}]
    with pytest.raises(Conflict) as caught:
        store.remove(base, force=True)
    assert caught.value.message == (
        f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images"
    )
    assert [each["Id"] for each in store.images.listing(all=False, filters=NO_FILTERS)] == [child]
    steps = store.remove("child")
    assert steps[:3] == [{"Untagged": "child:latest"}, {"Deleted": child}, {"Deleted": base}]


def test_history_knows_the_images_it_came_from(store: Store) -> None:
    base = store.put(repo="base")
    child = child_of(store, base, "child")
    found = [(each["Id"], each["Tags"]) for each in store.images.history("child")]
    assert found == [(child, ["child:latest"]), (base, ["base:latest"])]
    store.remove("base")
    assert [each["Tags"] for each in store.images.history("child")] == [["child:latest"], None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2023-11-14", False), ("2023-11-15", True), ("2023-11-14T22:13:20Z", False), ("2023-11-14T22:13:21", False),
        ("2023-11-14T22:13:22", True), ("2023-11-14T23", True), ("2023-11-14T22:14", True), ("1700000002", True),
        ("1700000001", False), ("2023-11-15Z", True), ("2023-11-14T22:13:22+01:00", False), ("0.5s", True),
    ],
)  # fmt: skip
def test_forms_of_a_time(store: Store, text: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    store.put(repo="a")
    assert store.now == 1_700_000_002_000_000_000  # made a second before it got its name
    assert bool(store.images.listing(all=False, filters={"until": [text]})) is found
    assert not store.images.listing(all=False, filters={"until": [text, "1999-01-01"]})


def test_what_is_no_time(store: Store) -> None:
    for text in ("foo", "2023-13-01", "2023-11-14T25", "", "-1h", "1e9", "99999999999999999"):
        with pytest.raises(InvalidArgument, match="failed to parse value as time or duration"):
            store.images.listing(all=False, filters={"until": [text]})


def test_prune(store: Store) -> None:
    dangling = store.put()
    used = store.put(UPPER)
    named = store.put(repo="a", changes=["LABEL keep=1"])

    def users(image_id: str) -> list[tuple[str, bool]]:
        return [("c" * 64, False)] if image_id == used else []

    def config_size(image_id: str) -> int:
        return (store.root / "content/blobs/sha256" / image_id[7:]).stat().st_size

    gone = [config_size(dangling), config_size(named)]
    assert store.images.prune(NO_FILTERS, users=users) == {
        "ImagesDeleted": [{"Deleted": dangling}], "SpaceReclaimed": gone[0],
    }  # fmt: skip
    kept: dict[str, list[str]] = {"dangling": ["false"], "label!": ["keep"]}
    assert store.images.prune(kept, users=users) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    answer = store.images.prune({"dangling": ["false"]}, users=users)
    assert answer == {
        "ImagesDeleted": [{"Untagged": "a:latest"}, {"Deleted": named}, {"Deleted": digest(LAYER)}],
        "SpaceReclaimed": 30 + len(LAYER) + gone[1],
    }
    assert store.images.resolve(used).id == used
    with pytest.raises(InvalidArgument, match="invalid filter 'bogus'"):
        store.images.prune({"bogus": ["x"]}, users=users)


def test_everything_is_found_again_after_a_restart(store: Store) -> None:
    image_id = store.put(repo="a")
    state = store.state()
    store.database.close()
    (store.root / "content/tmp/left").write_bytes(b"x")
    (store.root / "content/blobs/sha256" / ("0" * 64)).write_bytes(b"x")
    (store.root / "content/spool/spool.x").mkdir()
    (store.root / "content/spool/spool.x/1").write_bytes(b"x")
    store.driver.ingest("1" * 64, "", io.BytesIO(tars.END), store.root / "none")
    store.open()
    assert store.images.resolve("a").id == image_id
    assert store.state() == state
