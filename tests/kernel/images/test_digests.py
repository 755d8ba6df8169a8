"""Names by digest: NAME@sha256:HEX, as a pull gives them."""

from __future__ import annotations

import pytest

from tests.kernel.images.store import NO_FILTERS, UPPER, Store
from wherry.errors import Conflict, NotFound

pytestmark = pytest.mark.root
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def named(store: Store, *names: str) -> str:
    """An image with stored names, of which none is its import's."""
    image_id = store.put(UPPER)
    with store.database.transaction():
        for name in names:
            store.images._rows.put_tag(f"docker.io/library/{name}", image_id, store.now)
    return image_id


def found(store: Store, dangling: str) -> set[str]:
    return {each["Id"] for each in store.images.listing(all=False, filters={"dangling": [dangling]})}


def test_an_image_is_found_by_digest_whatever_tag_stands_before_it(store: Store) -> None:
    image_id = named(store, f"a@{ONE}", "a:1")
    for ref in (f"a@{ONE}", f"a:1@{ONE}", f"a:nosuch@{ONE}", f"docker.io/library/a@{ONE}"):
        assert store.images.resolve(ref).id == image_id
    with pytest.raises(NotFound, match=f"No such image: a@{TWO}"):
        store.images.resolve(f"a@{TWO}")
    assert store.images.inspect("a:1")["RepoDigests"] == [f"a@{ONE}"]
    assert store.images.tag(f"a@{ONE}", "b", "") == "b:latest"
    with store.images.saved([f"a@{ONE}"]) as (ids, chunks):
        assert ids == [image_id]
        assert b'"RepoTags":null' in b"".join(chunks)


def test_the_digest_goes_with_the_last_tag_of_its_repository(store: Store) -> None:
    image_id = named(store, f"a@{ONE}", "a:1", "a:2", f"b@{ONE}")
    assert store.remove("a:1") == [{"Untagged": "a:1"}]
    assert store.remove("a:2") == [{"Untagged": "a:2"}, {"Untagged": f"a@{ONE}"}]
    assert store.remove(f"b@{ONE}")[:2] == [{"Untagged": f"b@{ONE}"}, {"Deleted": image_id}]


def test_a_name_by_digest_goes_alone(store: Store) -> None:
    named(store, f"a@{ONE}", "a:1")
    assert store.remove(f"a@{ONE}") == [{"Untagged": f"a@{ONE}"}]
    assert store.tags() == ["a:1"]


def test_one_repository_with_one_tag_is_removed_by_id(store: Store) -> None:
    image_id = named(store, f"a@{ONE}", f"a@{TWO}", "a:1")
    steps = store.remove(image_id)
    assert steps[:4] == [
        {"Untagged": "a:1"}, {"Untagged": f"a@{ONE}"}, {"Untagged": f"a@{TWO}"}, {"Deleted": image_id},
    ]  # fmt: skip


def test_two_repositories_must_be_forced(store: Store) -> None:
    image_id = named(store, f"a@{ONE}", "b:1")
    with pytest.raises(Conflict, match="image is referenced in multiple repositories"):
        store.remove(image_id)
    assert len(store.remove(image_id, force=True)) == 4


def test_a_container_forbids_the_last_tag_though_a_digest_is_there(store: Store) -> None:
    named(store, f"a@{ONE}", "a:1")
    with pytest.raises(Conflict, match="unable to remove repository reference"):
        store.remove("a:1", users=lambda _: [("c" * 64, False)])


def test_without_a_tag_it_is_dangling(store: Store) -> None:
    image_id = named(store, f"a@{ONE}")
    tagged = named(store, f"b@{TWO}", "b:1")
    assert found(store, "true") == {image_id}
    assert found(store, "false") == {tagged, image_id}
    answer = store.images.prune(NO_FILTERS, users=lambda _: [])
    assert answer["ImagesDeleted"][:2] == [{"Untagged": f"a@{ONE}"}, {"Deleted": image_id}]
