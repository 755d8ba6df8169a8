"""Reading json-file logs: tails, windows, rotation, following, torn lines."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from wherry.logs import jsonfile, stream
from wherry.logs.jsonfile import parse_time
from wherry.logs.reader import Reader, Window
from wherry.services.chunks import Chunks


def line(text: str, second: int = 0, kind: str = "stdout") -> str:
    return json.dumps({"log": text, "stream": kind, "time": f"2026-01-01T00:00:{second:02d}.000000001Z"}) + "\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x-json.log"


def ahead(made):
    return Chunks(made, AsyncExitStack())


def texts(path, **window):
    reader = Reader(str(path), jsonfile, Window(**window))
    found = [record[2].decode() for batch in reader.read() for record in batch]
    reader.close()
    return found


def test_all_tail_and_tail_across_rotated_files(path):
    path.with_name(path.name + ".2").write_text(line("1\n") + line("2\n"))
    path.with_name(path.name + ".1").write_text(line("3\n"))
    path.write_text(line("4\n") + line("5\n"))
    assert texts(path) == ["1\n", "2\n", "3\n", "4\n", "5\n"]
    assert texts(path, tail=2) == ["4\n", "5\n"]
    assert texts(path, tail=4) == ["2\n", "3\n", "4\n", "5\n"]
    assert texts(path, tail=99) == ["1\n", "2\n", "3\n", "4\n", "5\n"]
    assert texts(path, tail=0) == []


def test_a_long_file_is_read_from_its_end(path):
    path.write_text("".join(line(f"{number}\n") for number in range(50_000)))
    assert texts(path, tail=3) == ["49997\n", "49998\n", "49999\n"]


def test_since_and_until(path):
    path.write_text("".join(line(f"{number}\n", number) for number in range(10)))
    at = parse_time("2026-01-01T00:00:05.000000001Z")
    assert texts(path, since=at) == [f"{number}\n" for number in range(5, 10)]
    assert texts(path, until=at) == [f"{number}\n" for number in range(6)]


def test_a_torn_last_line_is_left_out(path):
    path.write_text(line("good\n") + '{"log":"to')
    assert texts(path) == ["good\n"]


def test_frames_timestamps_and_streams(path):
    path.write_text(line("a\n") + line("b\n", 1, "stderr"))
    records = [record for batch in Reader(str(path), jsonfile, Window()).read() for record in batch]
    form = stream.Form(framed=True, stdout=True, stderr=True)
    assert stream.encode(records, form) == b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x02b\n"
    only = stream.Form(framed=False, stdout=False, stderr=True, timestamps=True)
    assert stream.encode(records, only) == b"2026-01-01T00:00:01.000000001Z b\n"


def test_follow_sees_new_lines_a_rotation_and_the_end(path):
    path.write_text(line("1\n"))
    ended = False

    async def scenario() -> list[bytes]:
        nonlocal ended
        seen: list[bytes] = []
        form = stream.Form(framed=False, stdout=True, stderr=True)

        async def consume() -> None:
            reader = Reader(str(path), jsonfile, Window())
            chunks = stream.follow(reader, form, ended=lambda: ended, ahead=ahead)
            seen.extend([chunk async for chunk in chunks])

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0.05)
        with path.open("a") as file:
            file.write(line("2\n"))
        await asyncio.sleep(0.05)
        path.rename(path.with_name(path.name + ".1"))
        path.write_text(line("3\n"))
        await asyncio.sleep(0.05)
        ended = True
        await asyncio.wait_for(consumer, 3)
        return seen

    assert b"".join(asyncio.run(scenario())) == b"1\n2\n3\n"


@pytest.mark.parametrize(("sound", "spoilt"), [(b"stdout", b"std\xb3ut"), (b"two", b't\xb3\\"wo'), (b"Z", b"\xff")])
def test_a_byte_that_a_disk_has_spoilt_costs_at_most_its_record(sound, spoilt):
    record = b'{"log":"%b\\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}\n'
    data = record % b"one" + (record % b"two").replace(sound, spoilt) + record % b"three"
    for timed in (False, True):
        found, used = jsonfile.decode(data, timed=timed)
        text = b"".join(record[2] for record in found)
        assert used == len(data)
        assert text.startswith(b"one\n")
        assert text.endswith(b"three\n")
