"""A short storm: clients that speak, leave, stall, send rubbish or nothing, all at once."""

from benchmarks.serve import Soak

SECONDS = 2


def test_a_storm_leaves_nothing_behind(served):
    """No speech is lost or of the wrong length, no row stays taken, and the sound is still right afterwards."""
    url, server = served
    storm = Soak(int(url.rpartition(":")[2]), SECONDS, frames=8)
    storm.run(threads=8)
    assert not storm.faults
    assert storm.counts["spoken"] >= 10 and storm.counts["leave"] and storm.counts["rubbish"]
    for _ in range(200):  # what was left is noticed by the event loop, and freed between two frames
        server.engine.call(lambda: None).result(10)
        if not server.engine.load:
            break
    assert server.engine.load == server.engine.running == server.engine.queued == 0
    assert server.engine.alive and not server.engine.decoding.generation.unfinished
