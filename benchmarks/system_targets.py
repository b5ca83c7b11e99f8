"""What is asked of the systems side by side, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pooling
from condition_tables import named, own_cells, trainings
from corners import BASELINE, PROTOCOL, SYSTEMS
from findings import MET, MISSING, NOT_MET, Finding, low_of, verdict
from pooling import Cell
from substitution_tables import halves
from tables import MODELS, Found, last, seeds_asked
from wording import points_text, span

from wamlab.report.words import number
from wamlab.sim.shifts import shifts

CASCADE = "unipi"
FARTHEST_BELOW = -0.15
LEAST_R2, MOST_R2_OF_OTHERS = 0.95, 0.2
MOST_TIMES_UWM = 2.0


def findings(found: Found) -> list[Finding]:
    """The targets of the systems that a number decides."""
    return [
        cells_finding(found),
        shifts_finding(found),
        *(success_finding(found, model) for model in ("gr1", "vpp")),
        inverse_finding(found),
        *(control_finding(found, future) for future in ("static", "shuffled")),
        *(cost_finding(found, model) for model in ("gr1", "vpp")),
    ]


def cells_finding(found: Found) -> Finding:
    """The target is that they are measured: what came of them decides the others."""
    wanted = [system for system in SYSTEMS if system not in MODELS]
    each = max(seeds_asked(PROTOCOL, one) for one in wanted)
    asked = f"`{PROTOCOL}`: {', '.join(f'`{one}`' for one in wanted)}; {each} seeds each"
    seeds = {one: [cell["seed"] for cell in last(found, PROTOCOL, one)] for one in wanted}
    if not any(seeds.values()):
        return Finding("systems", asked, "", MISSING)
    said = "; ".join(
        f"`{one}` {', '.join(map(str, there)) or 'none'}" for one, there in seeds.items()
    )
    complete = all(len(there) >= seeds_asked(PROTOCOL, one) for one, there in seeds.items())
    return Finding("systems", asked, f"seeds {said}", verdict(True, complete))


def shifts_finding(found: Found) -> Finding:
    """The shifts under which a system solves fewer of the same starts, beyond chance.

    Each is of its own last training that was played so: where these are of different seeds, the
    systems are not paired with each other, and the finding says it.
    """
    asked = (
        f"`{PROTOCOL}`: {' and '.join(f'`{one}`' for one in MODELS)} under every shift, "
        "five episodes a task, paired"
    )
    said, complete, seeds = [], True, []
    for system in MODELS:
        by_shift = {name: shifted(found, system, name) for name in shifts()}
        complete &= all(by_shift.values())
        falls = {
            name: both.difference
            for name, cells in by_shift.items()
            if cells and (both := pooling.paired(cells, own_cells(found, cells)))
        }
        lost = [
            f"{name} {points_text(one)}"
            for name, one in falls.items()
            if one.interval and one.interval[1] < 0
        ]
        if falls:
            under = [cell for cells in by_shift.values() for cell in cells]
            of = trainings(under)
            seeds.append({cell["seed"] for cell in under})
            said.append(f"`{system}` ({of}) falls under {', '.join(lost) or 'none'}")
    if len(seeds) == len(MODELS) and not set.intersection(*seeds):
        said.append("of different seeds, so not paired with each other")
    return Finding(
        "conditions", asked, "; ".join(said), verdict(True, complete) if said else MISSING
    )


def shifted(found: Found, system: str, shift: str) -> list[Cell]:
    """What was played under a shift, of a system's last training that was played so."""
    played = pooling.newest(found.conditions)
    return named([c for c in played if c["protocol"] == PROTOCOL], system, shift)


def success_finding(found: Found, model: str) -> Finding:
    asked = (
        f"`{model}` on `{PROTOCOL}`: above the better blind row, and at most 15 points below "
        f"`{BASELINE}`, paired; {seeds_asked(PROTOCOL, model)} seeds"
    )
    cells = last(found, PROTOCOL, model)
    if not cells:
        return Finding("systems", asked, "", MISSING)
    over = pooling.pooled_over_blind(cells)
    said, good = f"{points_text(over)} over blind", low_of(over) > 0
    both = pooling.paired(cells, last(found, PROTOCOL, BASELINE))
    if both is None:
        return Finding("systems", asked, said, verdict(good, complete=False))
    said += f"; {points_text(both.difference)} against `{BASELINE}`"
    good = good and both.difference.value >= FARTHEST_BELOW
    return Finding(
        "systems", asked, said, verdict(good, len(cells) >= seeds_asked(PROTOCOL, model))
    )


def inverse_finding(found: Found) -> Finding:
    asked = (
        f"inverse dynamics of `{CASCADE}` on real clips: R² above {LEAST_R2}, from other frames "
        f"below {MOST_R2_OF_OTHERS}"
    )
    cells = of_cascade(found.recorded)
    if not cells:
        return Finding("systems", asked, "", MISSING)
    own = [one["inverse_r2"]["value"] for one in cells]
    other = [one["inverse_r2"]["details"]["other_frames"] for one in cells]
    said = "; ".join(r2_text(one["inverse_r2"]) for one in cells) + true_places_text(found)
    good = min(own) > LEAST_R2 and max(other) < MOST_R2_OF_OTHERS
    return Finding("systems", asked, said, verdict(good))


def of_cascade(cells: Sequence[Cell]) -> list[Cell]:
    """Those of the cascade's last attempt."""
    return pooling.newest([c for c in cells if (c["protocol"], c["model"]) == (PROTOCOL, CASCADE)])


def r2_text(r2: Mapping[str, Any]) -> str:
    """With its control, and with what one explains who knows each mean between two frames."""
    own = number(r2["value"], 3) + span(r2["interval"], 3)
    other, means = (number(r2["details"][n], 2) for n in ("other_frames", "between_frames"))
    return f"{own}, from other frames {other}; the mean action between two frames {means}"


def true_places_text(found: Found) -> str:
    """What a network explains that is told where the hand truly was at the same frames."""
    if (record := found.files.get("action_sight")) is None:
        return ""
    name, first = next(iter(record["looks"].items()))
    return f"; from the hand's true places at {name} {number(first['r2'], 3)}"


def control_finding(found: Found, future: str) -> Finding:
    """Does the imagination do anything? The cascade with a future that says nothing is below it."""
    asked = f"`{CASCADE}` above itself with a {future} future, paired"
    own = of_cascade(found.substitutions)
    both = pooling.paired(halves(own, "learned", "learned"), halves(own, future, "learned"))
    if both is None:
        return Finding("systems", asked, "", MISSING)
    over = both.difference
    return Finding("systems", asked, points_text(over), MET if low_of(over) > 0 else NOT_MET)


def cost_finding(found: Found, model: str) -> Finding:
    asked = f"a plan of `{model}` within 2x of `uwm`'s at batch 1, calls as declared"
    rows = {row["model"]: row for row in found.files.get("plan_cost", {}).get("systems", ())}
    if not {model, "uwm"} <= rows.keys():
        return Finding("systems", asked, "", MISSING)
    one, uwm = rows[model], rows["uwm"]
    own, its = one["ms"]["p50"], uwm["ms"]["p50"]
    times = own / its
    said = (
        f"{number(own, 0)} ms, {number(times, 2)} times {number(its, 0)}; "
        f"network calls {', '.join(map(str, one['calls']))}, declared {one['calls_declared']}"
    )
    kept = one["calls"] == [one["calls_declared"]]
    return Finding("systems", asked, said, verdict(times <= MOST_TIMES_UWM and kept))
