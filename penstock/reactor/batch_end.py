"""What became of a batch: read from the report when its worker lives, from the flight recorder when it died. Pure.

| the delivery…                              | worker lives | worker died                    |
|--------------------------------------------|--------------|--------------------------------|
| told its outcome over the channel          | that         | that                           |
| is marked acked                            | acked        | acked                          |
| was running                                |              | `Died`, it alone is to blame   |
| was running, and the fork server died too  |              | not begun: nobody is to blame  |
| was not begun                              | not begun    | not begun                      |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from penstock.app.outcomes import DONE, Died, Outcome
from penstock.channels.recorder import Mark, Phase, Reading
from penstock.reactor.work import Work


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of a worker's end."""

    how: str
    """Signal or exit code, or why it was killed, in words."""
    peak_bytes: int = 0
    """The most resident memory that was seen of it; 0 when nobody knows."""
    stack: str = ""
    """Its Python stack, when it left one."""
    blameless: bool = False
    """The fork server died, and took it along."""


@dataclass(slots=True)
class BatchEnd:
    """Those that ended, and those that were never begun and were not taken back before."""

    ended: list[tuple[Work, Outcome]] = field(default_factory=list)
    unstarted: list[Work] = field(default_factory=list)


def after_report(works: Sequence[Work], marks: bytes, told: Mapping[int, Outcome]) -> BatchEnd:
    """The worker lives; `marks` has one byte for each of the works, `told` the outcomes that came over the channel."""
    end = BatchEnd()
    for index, work in enumerate(works):
        if index in told:
            end.ended.append((work, told[index]))
        elif marks[index] == Mark.ACKED:
            end.ended.append((work, DONE))
        else:
            # Told, but never heard: it runs again, and its first run may have had effects.
            work.delivery.redelivered = work.delivery.redelivered or marks[index] == Mark.TOLD
            end.unstarted.append(work)
    return end


def after_death(
    works: Sequence[Work],
    marks: bytes,
    told: Mapping[int, Outcome],
    reading: Reading | None,
    death: Death,
) -> BatchEnd:
    """The worker died; `reading` is the recorder's last, None when it never saw this batch.

    The death goes into the outcome of the delivery that was running, unless it was nobody's fault.
    """
    end = after_report(works, marks, told)
    if reading is None or reading.phase in (Phase.IDLE, Phase.ENDED) or reading.index >= len(works):
        return end
    running = works[reading.index]
    if running not in end.unstarted:
        return end
    commit_unknown = reading.phase is Phase.COMMITTING
    if death.blameless:
        # It runs again, and its first run may have had effects.
        running.delivery.redelivered = True
        if commit_unknown:
            running.delivery.history = replace(running.delivery.history, commit_unknown=True)
        return end
    end.unstarted.remove(running)
    died = Died(death.how, reading.phase.words, commit_unknown, death.peak_bytes, death.stack)
    end.ended.append((running, died))
    return end
