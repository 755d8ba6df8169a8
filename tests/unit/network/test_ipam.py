from __future__ import annotations

import ipaddress
import random

import pytest

from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.network.ipam import subnets
from wherry.network.ipam.pool import AddressPool
from wherry.store.database import Database


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "meta.db")
    yield database
    database.close()


def rows(database):
    return database.query("SELECT pool, address, container FROM addresses ORDER BY address")


def test_the_lowest_free_address_is_next(database):
    pool = AddressPool(database, "p", "172.17.0.0/16", "172.17.0.1")
    assert [pool.allocate("c") for _ in range(4)] == ["172.17.0.2", "172.17.0.3", "172.17.0.4", "172.17.0.5"]
    pool.release(["172.17.0.4", "172.17.0.3"])
    assert [pool.allocate() for _ in range(3)] == ["172.17.0.3", "172.17.0.4", "172.17.0.6"]
    assert ("p", "172.17.0.2", "c") in rows(database)
    assert ("p", "172.17.0.3", "") in rows(database)


def test_a_new_engine_knows_what_was_given_out(database):
    AddressPool(database, "p", "172.17.0.0/16", "172.17.0.1").allocate("c")
    again = AddressPool(database, "p", "172.17.0.0/16", "172.17.0.1")
    assert again.given() == {"172.17.0.2"}
    assert again.allocate() == "172.17.0.3"
    again.release(["172.17.0.2"])
    assert again.allocate() == "172.17.0.2"


def test_rows_of_another_subnet_are_dropped_and_of_another_pool_are_not(database):
    AddressPool(database, "p", "172.17.0.0/16", "172.17.0.1").allocate()
    AddressPool(database, "q", "172.17.0.0/16", "172.17.0.1").allocate()
    AddressPool(database, "p", "172.18.0.0/16", "172.18.0.1")
    assert rows(database) == [("q", "172.17.0.2", "")]


def test_a_full_pool_says_so_and_goes_on_after_a_release(database):
    pool = AddressPool(database, "p", "10.0.0.0/29", "10.0.0.1")
    assert len({pool.allocate() for _ in range(5)}) == 5
    with pytest.raises(SystemFailure, match="no available IPv4 addresses"):
        pool.allocate()
    pool.release(["10.0.0.4"])
    assert pool.allocate() == "10.0.0.4"


def test_the_gateway_may_stand_anywhere(database):
    pool = AddressPool(database, "p", "10.0.0.0/29", "10.0.0.3")
    assert sorted(pool.allocate() for _ in range(5)) == ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]


def test_a_certain_address(database):
    pool = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1")
    assert pool.reserve("10.0.0.3", "c") == "10.0.0.3"
    assert [pool.allocate(), pool.allocate()] == ["10.0.0.2", "10.0.0.4"]
    for taken in ("10.0.0.3", "10.0.0.1", "10.0.0.4"):
        with pytest.raises(Conflict, match="Address already in use"):
            pool.reserve(taken, "d")
    for wrong in ("10.0.1.1", "10.0.0.0", "10.0.0.255", "x", "10.0.0.1\n"):
        with pytest.raises(InvalidArgument):
            pool.reserve(wrong, "d")


def test_releasing_twice_gives_an_address_out_once(database):
    pool = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1")
    pool.allocate()
    pool.release(["10.0.0.2"])
    pool.release(["10.0.0.2", "10.0.0.9"])
    assert [pool.allocate(), pool.allocate()] == ["10.0.0.2", "10.0.0.3"]


def test_no_address_is_ever_given_out_twice(database):
    pool = AddressPool(database, "p", "10.0.0.0/26", "10.0.0.1")
    dice = random.Random(1)
    held: set[str] = set()
    for _ in range(600):
        if held and (len(held) == 61 or dice.random() < 0.5):
            gone = dice.choice(sorted(held))
            held.remove(gone)
            pool.release([gone])
        else:
            address = pool.allocate()
            assert address not in held
            held.add(address)
    assert pool.given() == held


def nets(*texts):
    return [ipaddress.IPv4Network(text) for text in texts]


@pytest.mark.parametrize(
    ("taken", "preferred", "chosen"),
    [
        ([], "", "172.17.0.0/16"),
        (["172.17.0.0/16"], "", "172.18.0.0/16"),
        (["172.17.44.0/24", "172.18.0.0/32"], "", "172.19.0.0/16"),
        (["172.16.0.0/12"], "", "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.0.0/24"], "", "192.168.16.0/20"),
        ([], "172.20.0.0/16", "172.20.0.0/16"),
        (["172.20.0.0/16"], "172.20.0.0/16", "172.17.0.0/16"),
    ],
)
def test_the_first_subnet_that_collides_with_nothing(taken, preferred, chosen):
    assert str(subnets.choose(nets(*taken), preferred)) == chosen


def test_nothing_left_says_what_to_do():
    with pytest.raises(SystemFailure, match="--bip"):
        subnets.choose(nets("0.0.0.0/0"))


def test_a_range_is_what_is_given_out_and_the_reserved_are_nobodys(database):
    pool = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1", "10.0.0.128/30", ["10.0.0.129"])
    assert [pool.allocate() for _ in range(3)] == ["10.0.0.128", "10.0.0.130", "10.0.0.131"]
    with pytest.raises(SystemFailure, match="no available IPv4 addresses"):
        pool.allocate()
    assert pool.reserve("10.0.0.9", "c") == "10.0.0.9"
    with pytest.raises(Conflict, match="Address already in use"):
        pool.reserve("10.0.0.129", "c")
    pool.release(["10.0.0.9", "10.0.0.130"])
    assert pool.allocate() == "10.0.0.130"


def test_the_lowest_comes_first_also_after_a_higher_one_was_asked_for(database):
    pool = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1")
    pool.reserve("10.0.0.99", "c")
    pool.release(["10.0.0.99"])
    assert pool.allocate() == "10.0.0.2"
