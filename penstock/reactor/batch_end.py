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

from penstock.app.outcomes import DONE, Died, Outcome
from penstock.channels.recorder import Mark, Phase, Reading
from penstock.reactor.work import Work


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
    how: str,
    *,
    blameless: bool,
) -> BatchEnd:
    """The worker died; `reading` is the recorder's last, None when it never saw this batch.

    `how` it died goes into the outcome of the delivery that was running, unless the death was nobody's fault.
    """
    end = after_report(works, marks, told)
    if reading is None or reading.phase in (Phase.IDLE, Phase.ENDED) or reading.index >= len(works):
        return end
    running = works[reading.index]
    if running not in end.unstarted:
        return end
    if blameless:
        # It runs again, and its first run may have had effects.
        running.delivery.redelivered = True
        return end
    end.unstarted.remove(running)
    end.ended.append((running, Died(how, reading.phase.words)))
    return end
