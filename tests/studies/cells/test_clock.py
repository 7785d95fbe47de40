"""How much time a study has left."""

from comodulation.studies.cells.clock import Clock


def test_the_time_left():
    """Mean seconds of each kind, by the number that is left; unknown kinds cost the mean of all; devices share."""
    clock = Clock("aaabb", workers=2)
    assert clock.remaining() is None
    clock.finish("a", 10.0)
    assert clock.remaining() == (2 * 10 + 2 * 10) / 2
    clock.finish("b", 40.0)
    assert clock.remaining() == (2 * 10 + 1 * 40) / 2
    for kind, seconds in (("a", 20.0), ("a", 30.0), ("b", 40.0)):
        clock.finish(kind, seconds)
    assert clock.remaining() == 0
