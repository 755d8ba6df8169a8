"""Fixtures of the tests that run containers through a `Supervision` of their own."""

import asyncio

import pytest

from tests.kernel.yard import make_rootfs, yard


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory):
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def run(tmp_path, rootfs, request):
    """Run a test's coroutine function with a yard: one that has no spare supervisors yet, or one that has."""

    def go(scenario, folder=tmp_path):
        async def main():
            async with yard(folder, rootfs) as made:
                if getattr(request, "param", "") == "spare":
                    await made.grow_spares()
                await scenario(made)

        asyncio.run(main())

    return go
