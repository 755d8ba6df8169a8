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
    return [ipaddress.ip_network(text) for text in texts]


SPACE = subnets.AddressSpace((*subnets.DEFAULT_POOLS, subnets.unique_local(bytes.fromhex("e252d43a6f"))))


@pytest.mark.parametrize(
    ("taken", "preferred", "chosen"),
    [
        ([], "", "172.17.0.0/16"),
        (["172.17.0.0/16"], "", "172.18.0.0/16"),
        (["172.17.44.0/24", "172.18.0.0/32"], "", "172.19.0.0/16"),
        (["172.17.0.0/16", "172.18.0.0/15", "172.21.3.0/24"], "", "172.20.0.0/16"),
        (["172.17.0.0/16", "172.18.0.0/15", "172.20.0.0/15", "172.21.3.0/24"], "", "172.22.0.0/16"),
        (["172.16.0.0/12"], "", "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.0.0/24"], "", "192.168.16.0/20"),
        ([], "172.20.0.0/16", "172.20.0.0/16"),
        (["172.20.0.0/16"], "172.20.0.0/16", "172.17.0.0/16"),
        (["fde2:52d4:3a6f::/48"], "", "172.17.0.0/16"),
    ],
)
def test_the_first_subnet_that_collides_with_nothing(taken, preferred, chosen):
    assert str(SPACE.choose(4, nets(*taken), preferred)) == chosen


@pytest.mark.parametrize(
    ("taken", "preferred", "chosen"),
    [
        ([], "", "fde2:52d4:3a6f::/64"),
        (["fde2:52d4:3a6f::/64"], "", "fde2:52d4:3a6f:1::/64"),
        (["fde2:52d4:3a6f::/49"], "", "fde2:52d4:3a6f:8000::/64"),
        (["fde2:52d4:3a6f::7/128", "10.0.0.0/8"], "", "fde2:52d4:3a6f:1::/64"),
        (["fde2:52d4:3a6f::/64"], "fde2:52d4:3a6f:5::/64", "fde2:52d4:3a6f:5::/64"),
    ],
)
def test_networks_of_ipv6_are_of_the_engines_own_block(taken, preferred, chosen):
    assert str(SPACE.choose(6, nets(*taken), preferred)) == chosen


def test_thousands_of_networks_fit_and_dockerds_thirty_one_come_first():
    taken: list = []
    for _ in range(1000):
        taken.append(SPACE.choose(4, taken))
    assert [str(each) for each in (taken[14], taken[15], taken[30], taken[31], taken[999])] == [
        *("172.31.0.0/16", "192.168.0.0/20", "192.168.240.0/20", "10.208.0.0/24", "10.211.200.0/24")
    ]


def test_pools_of_the_settings_replace_those_of_their_family():
    space = subnets.AddressSpace(subnets.pools([subnets.ipv4("10.9.0.0/30", 30)], bytes(5)))
    assert str(space.choose(4, [])) == "10.9.0.0/30"
    assert str(space.choose(6, [])) == "fd00::/64"
    with pytest.raises(SystemFailure, match="all predefined address pools have been fully subnetted"):
        space.choose(4, nets("10.9.0.0/24"))


def test_nothing_left_says_what_to_do():
    with pytest.raises(SystemFailure, match="--bip 10"):
        SPACE.choose(4, nets("0.0.0.0/0"))
    with pytest.raises(SystemFailure, match="--bip6 fd00"):
        SPACE.choose(6, nets("fd00::/8"))


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


def test_a_pool_of_ipv6_enumerates_nothing(database):
    pool = AddressPool(database, "p", "fd12::/64", "fd12::1", reserved=["fd12::3"])
    assert [pool.allocate() for _ in range(3)] == ["fd12::2", "fd12::4", "fd12::5"]
    pool.release(["fd12::4"])
    assert pool.allocate() == "fd12::4"
    assert pool.reserve("fd12::ffff:ffff:ffff:ffff", "c") == "fd12::ffff:ffff:ffff:ffff"
    for wrong in ("fd12::", "fd13::1", "10.0.0.2", "fd12::2%eth0"):
        with pytest.raises(InvalidArgument):
            pool.reserve(wrong, "c")
    with pytest.raises(Conflict):
        pool.reserve("fd12:0:0::2", "c")


def test_a_small_pool_of_ipv6_has_all_addresses_but_the_first(database):
    pool = AddressPool(database, "p", "fd12::/126", "fd12::1")
    assert [pool.allocate() for _ in range(2)] == ["fd12::2", "fd12::3"]
    with pytest.raises(SystemFailure, match="no available IPv6 addresses on this network's address pools: fd12::/126"):
        pool.allocate()


def test_the_pools_of_a_network_share_a_table_and_leave_each_others_rows(database):
    four = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1")
    six = AddressPool(database, "p", "fd12::/64", "fd12::1")
    four.allocate("c"), six.allocate("c")
    four = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1")
    six = AddressPool(database, "p", "fd12::/64", "fd12::1")
    assert (four.given(), six.given()) == ({"10.0.0.2"}, {"fd12::2"})
    six.release(["fd12::2"])
    assert (four.given(), six.given()) == ({"10.0.0.2"}, set())


def test_an_ipv6_address_keeps_the_place_of_its_ipv4_address_while_that_is_free(database):
    four = AddressPool(database, "p", "10.0.0.0/24", "10.0.0.1")
    six = AddressPool(database, "p", "fd12::/64", "fd12::1", "fd12::/120", ["fd12::9"])

    def pair(ipv4: str) -> str:
        return six.allocate(offset=four.offset(ipv4))

    assert [pair("10.0.0.2"), pair("10.0.0.200"), pair("10.0.0.3")] == ["fd12::2", "fd12::c8", "fd12::3"]
    assert pair("10.0.0.9") == "fd12::4"
    six.release(["fd12::c8"])
    assert pair("10.0.0.200") == "fd12::c8"
