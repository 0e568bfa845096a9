"""What is written beside training becomes rarer only where it would slow training down."""

from mrigan.jobs.train.pace import Pace


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        def run():
            self.now += seconds

        return run


def test_a_short_run_is_written_in_full():
    clock = Clock()
    pace = Pace(clock, clock)
    for _ in range(9):
        assert pace.is_due()
        pace.timed(clock.work(1.0))()


def test_later_the_same_work_waits_until_it_takes_a_twentieth_of_the_time():
    clock = Clock()
    pace = Pace(clock, clock)
    clock.now += 60
    assert pace.is_due()  # nothing is known of its cost
    pace.timed(clock.work(0.5))()
    clock.now += 9  # 9.5 s since it began
    assert not pace.is_due()
    clock.now += 0.6
    assert pace.is_due()


def test_work_that_costs_nothing_is_always_due():
    clock = Clock()
    pace = Pace(clock, clock)
    clock.now += 60
    pace.timed(clock.work(0.0))()
    assert pace.is_due()


def test_waiting_for_a_store_costs_nothing():
    clock = Clock()
    pace = Pace(clock, lambda: 0.0)
    clock.now += 60
    pace.timed(clock.work(50.0))()
    assert pace.is_due()
