"""Planning a rollout: which devices it means, which can take it, and who is in which wave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from controller.collections_later import collecting_later
from controller.errors import ConflictError
from controller.releases import check_released, get_release
from controller.rollouts.evidence import what_a_canary_finds
from controller.rollouts.opting import list_opt_outs, words_for
from controller.rollouts.values import Specification
from controller.rollouts.waves import cut_waves, draw_order, grow, hold_back
from controller.saved_selectors import is_there, unreached
from controller.schema import device_models, devices
from controller.selection import Moment, read_selection, subjects
from shoal.compatibility import Chooser, Facts
from shoal.errors import InvalidInputError
from shoal.protocol.manifest import Manifest
from shoal.selector import Subject, matches

Document = dict[str, Any]

MAX_NAMED = 5
READ_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class DrawnWave:
    """A wave with its devices."""

    name: str
    devices: list[str]
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What a specification would do to the fleet as it is."""

    specification: Specification
    sequence: int
    waves: list[DrawnWave]
    fitting: list[Subject]
    """All that match and can take the release, by name."""
    excluded: list[Document]
    previous_sequence: int | None

    @property
    def size(self) -> int:
        """Devices in all waves."""
        return sum(len(one.devices) for one in self.waves)


def make_draft(
    connection: Connection, rollout: str, specification: Specification, moment: Moment
) -> Draft:
    """Choose the devices, leave out those that cannot take the release, and cut the waves."""
    check_released(connection, specification.model, specification.version)
    with collecting_later():
        return _make_draft(connection, rollout, specification, moment)


def _make_draft(
    connection: Connection, rollout: str, specification: Specification, moment: Moment
) -> Draft:
    release = get_release(connection, specification.model, specification.version)
    manifest = msgspec.convert(release["manifest"], Manifest)
    selection = read_selection(connection, specification.selector)
    by_wave = any(wave.selector for wave in specification.waves)
    running = _running(connection, specification.model)
    subjects_ = subjects(connection, selection, moment, with_models=by_wave)
    fitting, excluded = _fitting(connection, manifest, subjects_, running)
    if not fitting:
        raise InvalidInputError(
            f"rollout: selector {specification.selector!r} leaves no device that can run "
            f"{specification.model} {specification.version}"
            + "".join(f"; {one['sentence']}" for one in excluded[:3]),
            code="no-devices",
        )
    before = [running[one.device] for one in fitting if running.get(one.device)]
    order = draw_order(rollout, [(one.device, one.profile) for one in fitting])
    drawn, control = hold_back(order, specification.control_share)
    specs = grow(specification.waves, len(drawn))
    texts = {wave.selector for wave in specs if wave.selector}
    chosen = {text: _meant(connection, text, fitting, moment) for text in texts}
    cut = zip(specs, cut_waves(specs, drawn, chosen), strict=True)
    waves = [DrawnWave(spec.name, members, spec.approval) for spec, members in cut]
    return Draft(
        specification,
        release["sequence"],
        [*waves, DrawnWave("control", control)] if control else waves,
        fitting,
        excluded,
        max(set(before), key=before.count) if before else None,
    )


def _meant(
    connection: Connection, text: str, fitting: list[Subject], moment: Moment
) -> frozenset[str]:
    """Which of them the selector of a wave means."""
    selection = read_selection(connection, text)
    return frozenset(
        one.device
        for one in fitting
        if matches(selection.terms, one, moment.now_ms, selection.groups)
    )


def preview(connection: Connection, specification: Specification, moment: Moment) -> Document:
    """What `create` would do now; the draw itself depends on the rollout's name."""
    draft = make_draft(connection, "preview", specification, moment)
    outside = _count_devices(connection) - len(draft.fitting) - len(draft.excluded)
    offline = [unreached(one, moment.now_ms) for one in draft.fitting if not is_there(one)]
    warnings = [f"{outside} devices are not selected"] if outside else []
    if draft.size < len(draft.fitting):
        warnings.append("the last wave does not reach every device selected")
    detectable = _detectable(connection, specification, draft)
    blind = [what for what, least in detectable.items() if least is None]
    if blind:
        warnings.append(
            f"the first wave is too small, or too little known, to test {', '.join(blind)} for "
            "small harm; limits hold all the same"
        )
    if offline:
        warnings.append(f"{len(offline)} of {len(draft.fitting)} devices are offline")
    return {
        "detectable": detectable,
        "model": specification.model,
        "version": specification.version,
        "matched": len(draft.fitting),
        "waves": [
            {
                "name": one.name,
                "size": len(one.devices),
                "devices": one.devices,
                "needs_approval": one.needs_approval,
            }
            for one in draft.waves
        ],
        "offline": offline,
        "incompatible": draft.excluded,
        "warnings": warnings,
    }


def check_expected(expected: int | None, matched: int) -> None:
    """Refuse to go on with more or fewer devices than a person has seen."""
    if expected is not None and expected != matched:
        raise ConflictError(
            f"rollout: {expected} devices were expected, {matched} match and can take the release",
            code="other-devices",
        )


def check_unchanged(rollout: str, planned: Iterable[str], draft: Draft) -> None:
    """Refuse to start a plan that was made for other devices, and name the difference."""
    before, now = set(planned), {one.device for one in draft.fitting}
    drawn = {device for one in draft.waves for device in one.devices}
    added, gone = sorted(drawn - before), sorted(before - now)
    if not added and not gone:
        return
    changes = [
        f"{len(devices_)} {words}: {', '.join(devices_[:MAX_NAMED])}"
        + (f" and {len(devices_) - MAX_NAMED} more" if len(devices_) > MAX_NAMED else "")
        for devices_, words in ((added, "came"), (gone, "went"))
        if devices_
    ]
    raise ConflictError(
        f"rollout {rollout}: other devices match than when it was planned: {'; '.join(changes)}; "
        f"expect {len(now)} to plan it anew and start",
        code="other-devices",
    )


def _detectable(
    connection: Connection, specification: Specification, draft: Draft
) -> dict[str, float | None]:
    """What the first wave can show against the rest."""
    release = get_release(connection, specification.model, specification.version)
    manifest = msgspec.convert(release["manifest"], Manifest)
    first, *later = [one.devices for one in draft.waves]
    control = [device for members in later for device in members]
    return what_a_canary_finds(
        connection, manifest, specification.gates or manifest.gates, first, control
    )


def _fitting(
    connection: Connection, manifest: Manifest, meant: list[Subject], running: Mapping[str, int]
) -> tuple[list[Subject], list[Document]]:
    """Devices that are meant and can take the release, and the others with the reason."""
    obstacles = _obstacles(connection, manifest, {one.device for one in meant}, running)
    out = list_opt_outs(connection)
    fitting, excluded = [], []
    for one in meant:
        sentence = words_for(out, one) or obstacles.get(one.device)
        if sentence:
            excluded.append({"device": one.device, "sentence": f"{one.device}: {sentence}"})
        else:
            fitting.append(one)
    return fitting, excluded


def _obstacles(
    connection: Connection, manifest: Manifest, names: set[str], running: Mapping[str, int]
) -> dict[str, str]:
    """Why devices cannot take the release; facts pass by, since those of a fleet are large."""
    chooser = Chooser(manifest)
    query = select(devices.c.device, devices.c.facts)
    found = {}
    for rows in connection.execute(query).partitions(READ_AT_ONCE):
        for device, facts in rows:
            if device in names:
                sentence = _obstacle(manifest, chooser, facts, running.get(device))
                if sentence:
                    found[device] = sentence
    return found


def _obstacle(manifest: Manifest, chooser: Chooser, facts: Facts, runs: int | None) -> str:
    variant, gaps = chooser.choose(facts)
    if variant is None:
        return "; ".join(map(str, gaps))
    if runs is not None and runs > manifest.sequence:
        return f"runs release {runs}, which is newer than {manifest.sequence}"
    return ""


def _running(connection: Connection, model: str) -> dict[str, int]:
    query = select(device_models.c.device, device_models.c.active_sequence).where(
        device_models.c.model == model, device_models.c.active_sequence.is_not(None)
    )
    return {device: sequence for device, sequence in connection.execute(query).all()}  # noqa: C416 - the same


def _count_devices(connection: Connection) -> int:
    query = select(func.count()).select_from(devices).where(devices.c.revoked_ms.is_(None))
    return connection.scalar(query) or 0
