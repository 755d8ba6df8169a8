"""Mounts of layers that nobody needs after the run."""

from wherry.runtime.mounts import Mount
from wherry.snapshots.ephemeral import ephemeral


def test_an_overlay_becomes_volatile_and_its_last_run_is_forgotten(tmp_path):
    mark = tmp_path / "key" / "work" / "work" / "incompat" / "volatile"
    for source, prefix in (("overlay", f"{tmp_path}/"), (str(tmp_path), "")):
        mark.mkdir(parents=True)
        options = ("lowerdir=l/a:l/b", f"upperdir={prefix}key/fs", f"workdir={prefix}key/work", "index=off")
        (found,) = ephemeral((Mount("overlay", source, "", options),))
        assert found == Mount("overlay", source, "", (*options, "volatile"))
        assert not mark.parent.exists()
        assert mark.parent.parent.exists()


def test_what_has_no_upper_layer_stays_as_it_is(tmp_path):
    others = (Mount("bind", str(tmp_path), "", ("rbind",)), Mount("overlay", "overlay", "", ("lowerdir=/a:/b",)))
    assert ephemeral(others) == others
