"""What kind of history it is: how much goes wrong, how much is kept, and how the runs of it talk."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Weather:
    """The draws of one history.

    Attributes:
        runs, attempts: how many there are, and how many attempts each run has at most.
        servers: stream server processes at a time.
        followers: how many come.
        recorder: whether each head has one.
        archive: whether stream servers are let see what recorders keep.
        step_seconds: how long a step takes at most, when nothing holds it up.
        hold_up: how probable it is that a step takes far longer.
        kills, cuts: stream servers and recorders that are killed, and connections that are cut: so many.
        redis_events: how often Redis is emptied, set back, or away.
        redis_away, api_away, archive_away: how probable it is that a single step fails.
        log_lines, log_bytes: what Redis holds of a log.
        window, page: how many lines a feed's window and a page have.
        speak_seconds: for about how long an attempt speaks.
        lines: about how many lines it has to say.
        rotates: whether log files are begun anew meanwhile.
        turns_back: whether a head's clock does.
        vanishes: how probable it is that an ended head's pod goes at once, with its log.
    """

    runs: int
    attempts: int
    servers: int
    followers: int
    recorder: bool
    archive: bool
    step_seconds: float
    hold_up: float
    kills: int
    cuts: float
    redis_events: int
    redis_away: float
    api_away: float
    archive_away: float
    log_lines: int
    log_bytes: int
    window: int
    page: int
    speak_seconds: float
    lines: int
    rotates: bool
    turns_back: bool
    vanishes: float

    @classmethod
    def draw(cls, rng: random.Random) -> "Weather":
        """Each kind of trouble is absent, rare or frequent: together they would hide each other."""
        recorder = rng.random() < 0.75
        rotates = rng.random() < 0.5
        return cls(
            runs=rng.choice([1, 1, 1, 2, 3]),
            attempts=rng.choice([1, 1, 2, 3]),
            servers=rng.choice([1, 2, 2, 3]),
            followers=rng.choice([2, 3, 5]),
            recorder=recorder,
            archive=recorder and rng.random() < 0.7,
            step_seconds=rng.choice([0.002, 0.02, 0.1]),
            hold_up=rng.choice([0, 0, 0.005, 0.02]),
            kills=rng.choice([0, 1, 3, 6]),
            cuts=rng.choice([0, 0.02, 0.1]),
            redis_events=rng.choice([0, 1, 2, 4]),
            redis_away=rng.choice([0, 0, 0.02]),
            api_away=rng.choice([0, 0, 0.05]),
            archive_away=rng.choice([0, 0, 0.1]),
            log_lines=rng.choice([10, 20, 60, 1000]),
            log_bytes=rng.choice([1024, 100_000, 100_000]),
            window=rng.choice([4, 15, 100]),
            page=rng.choice([2, 5, 50]),
            speak_seconds=rng.choice([1.0, 5.0, 12.0, 35.0 if rotates else 12.0]),
            lines=rng.choice([0, 5, 30, 120]),
            rotates=rotates,
            turns_back=not rotates and rng.random() < 0.3,
            vanishes=rng.choice([0, 0, 0.5]),
        )
