"""The way of the logs broken on purpose: what the histories have to find out, and where each was last found."""

from common import feed, follow, pages, pump, reader
from common.kube import archive, log
from common.streams import Streams
from tests.simulation.mutants import Mutant

MUTANTS = {
    # Ids, keys and cursors.
    "lines are appended whatever is on top": Mutant(1, scripts={"append": {"if top ~= ARGV[1] then": "if false then"}}),
    "attempts share a stream": Mutant(1, {Streams._key: {"{part}": "{part if isinstance(part, str) else 1}"}}),
    "a cursor's attempt is not looked at": Mutant(
        23, {follow._Follower.opening: {"Place(after.attempt, after.line)": "Place(feed.top.attempt, after.line)"}}
    ),
    "a cursor is applied to another run": Mutant(
        41, {follow._Follower.opening: {"after.run_id == feed.run_id and ": ""}}
    ),
    "a follower is not resumed at its cursor": Mutant(
        0, {follow._Follower.opening: {"self._place = Place(after.attempt, after.line)": "pass"}}
    ),
    # What Redis has lost, or let go of. That a silent pump sees that Redis was emptied is shown in test_pump: nearly
    # always somebody else sees it first.
    "a pump does not read again after a mismatch": Mutant(1, {pump.Pump._append: {"if real < top:": "if False:"}}),
    "a reader does not go on where Redis begins": Mutant(
        69, {reader.Reader._read_redis: {"if chunk.trimmed > self.top:": "if False:"}}
    ),
    "a window forgets that lines fell out of it": Mutant(0, {reader.Window.add: {"self.base = oldest.last": "pass"}}),
    "what Redis has let go of is passed over": Mutant(
        0, {pages.Pages._page: {"if page := await self._from_runner(attempt, since, trimmed):": "if page := ():"}}
    ),
    # Pages, of which followers are given a frame at a time.
    "a page of another attempt is gone on with": Mutant(
        23, {pages.Pages._start: {"start.attempt != place.attempt or ": ""}}
    ),
    "the frames of a page but its last are passed over": Mutant(
        0, {pages.Pages.after: {"next(frame for frame in frames if frame.last > place.line)": "frames[-1]"}}
    ),
    "who reads slowly is given the end of what was read": Mutant(
        49, {pages.Pages.after: {"cut(_FEW_BYTES)[0]": "cut(_FEW_BYTES)[-1]"}}
    ),
    # Gaps. What is looked at beside a reading is shown in test_looks, and that a loss is looked at again before it is
    # told in test_follow_losses: none of 2,500 histories does.
    "who was told more than is known is told nothing of it": Mutant(
        288, {follow._Follower.last: {"why is None and self._place > feed.top": "False"}}
    ),
    "the end of a log that went with its pod is no gap": Mutant(
        1, {log.rest: {"if kept.whole or log.ended or": "if True or"}}
    ),
    "what is lost of a past attempt is not told": Mutant(
        1, {feed.Feed.after: {"[] if found.lost is None else [found.lost]": "[]"}}
    ),
    "a file is taken for the first, whatever it begins with": Mutant(
        0, {log._mended: {"(reached and log.opens)": "False"}}
    ),
    # The archive. That one which goes away half-way is not taken for whole is shown in test_kube_log_ends, a file's
    # only line and where a hole's gap stands in test_kube_log: each takes thousands of histories.
    "the archive is not asked": Mutant(18, {archive.Kept.lines: {"while self._archive is not None:": "while False:"}}),
    # Ends.
    "the end is written for a log that is gone": Mutant(
        10, {pump.Pump._pass: {"if top == ZERO and not": "if False and not"}}
    ),
    "an end comes before the last lines": Mutant(
        0, {follow._Follower.near: {"and place < top:": "and place < top and not feed.finished:"}}
    ),
    "what came while a client was slow is not looked at": Mutant(
        0, {follow.Followers._run: {"or seen != feed.changes:": "or False:"}}
    ),
    "the boundary of attempts is not told": Mutant(
        1, {feed.Feed.after: {"[*lost, self._restart(attempt + 1)]": "[*lost]"}}
    ),
}
