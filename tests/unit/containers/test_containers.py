"""Names, signals, states, filters, and how containers are found again after a restart of the engine."""

import pytest
from msgspec import structs

from wherry.containers import filters, names, present, signals
from wherry.containers.catalog import Catalog
from wherry.containers.record import Record
from wherry.containers.state import State
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.models.container import ContainerConfig, HostConfig, NetworkingConfig
from wherry.store.database import Database


def record(number: int, name: str, **state: object) -> Record:
    return Record(
        id=f"{number:064x}",
        name=name,
        created=number,
        image_id="sha256:" + "a" * 64,
        config=ContainerConfig(image="busybox", labels={"tier": "db"}),
        host_config=HostConfig(network_mode="bridge"),
        networking=NetworkingConfig(),
        driver="overlay2",
        path="sh",
        args=("-c", "exit 3"),
        state=State(**state),  # type: ignore[arg-type]
    )


@pytest.fixture
def catalog(tmp_path):
    return Catalog(Database(tmp_path / "meta.db"))


@pytest.mark.parametrize("bad", ["", "-", "-a", "../x", "a b", "a/b", "é" * 3, "a" * 256, "a\nb"])
def test_names_outside_the_grammar_are_refused(bad):
    with pytest.raises(InvalidArgument, match=r"only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed"):
        names.check(bad)


def test_invented_names_keep_the_grammar_and_avoid_taken_ones():
    taken: set[str] = set()
    for _ in range(300):
        name = names.invent(taken)
        assert names.check(name) not in taken
        taken.add(name)


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN", 34), ("RTMIN+3", 37), ("RTMAX-1", 63)]
)
def test_signals_by_name_and_number(text, number):
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["FOO", "0", "65", "-1", "RTMIN+99", "\uff19"])
def test_unknown_signals(text):
    with pytest.raises(InvalidArgument, match="invalid signal: "):
        signals.parse(text)


def test_illegal_moves_are_refused():
    with pytest.raises(Conflict, match="is created and cannot become paused"):
        record(1, "aa").moved("paused")


def test_found_by_id_name_and_unique_prefix(catalog):
    catalog.add(record(0xAB, "first"))
    catalog.add(record(0xAC, "second"))
    assert catalog.resolve("/first").name == "first"
    assert catalog.resolve(f"{0xAC:064x}").name == "second"
    with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: 000"):
        catalog.resolve("000")
    with pytest.raises(NotFound, match=r"^No such container: nosuch$"):
        catalog.resolve("nosuch")


def test_a_taken_name_is_refused_with_the_text_that_clients_match(catalog):
    catalog.add(record(1, "web"))
    with pytest.raises(Conflict, match=r'^Conflict. The container name "/web" is already in use by container "0+1"'):
        catalog.add(record(2, "web"))


def test_records_survive_the_engine(tmp_path):
    first = Catalog(Database(tmp_path / "meta.db"))
    container = first.add(record(1, "web"))
    first.save(container, structs.replace(container.record, name="renamed", state=State(status="exited", exit_code=3)))
    second = Catalog(Database(tmp_path / "meta.db"))
    assert second.load() == []
    assert second.resolve("renamed").record == container.record
    with pytest.raises(NotFound):
        second.resolve("web")


def test_a_damaged_record_is_reported_and_the_others_load(tmp_path):
    database = Database(tmp_path / "meta.db")
    Catalog(database).add(record(1, "good"))
    database.execute("INSERT INTO containers VALUES ('bad', 'bad', 1, ?)", (b"{torn",))
    catalog = Catalog(database)
    (sentence,) = catalog.load()
    assert "container bad cannot be read" in sentence
    assert [each.name for each in catalog] == ["good"]


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({"name": ["we"]}, True),
        ({"name": ["^/web$"]}, True),
        ({"name": ["x"]}, False),
        ({"status": ["exited", "running"]}, True),
        ({"status": ["running"]}, False),
        ({"exited": ["3"]}, True),
        ({"exited": ["0"]}, False),
        ({"label": ["tier"]}, True),
        ({"label": ["tier=db", "tier=web"]}, False),
        ({"network": ["bridge"]}, True),
    ],
)
def test_filters(wanted, holds):
    assert filters.accepts(record(1, "web", status="exited", exit_code=3), wanted) is holds


def test_an_unknown_filter_is_refused():
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        filters.check({"colour": ["red"]})


def test_the_status_column():
    second = 1_000_000_000
    assert present.status(record(1, "x", status="running", started_at=second), 6 * second) == "Up 5 seconds"
    ended = record(1, "x", status="exited", exit_code=3, finished_at=second)
    assert present.status(ended, 2 * second) == "Exited (3) 1 second ago"
    assert present.command(ended) == "sh -c 'exit 3'"
