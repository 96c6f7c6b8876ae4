"""What may go wrong in a simulated fleet; each by a name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Scenario:
    """How devices and the new release behave. Shares are of devices, ratios of rows."""

    words: str
    offline_share: float = 0.02
    """Not there when the rollout begins."""
    returning_share: float = 0.5
    """Of those: back within three hours; others stay away."""
    slow_share: float = 0.05
    """Their downloads take twenty times as long."""
    download_seconds: float = 20.0
    flaky_share: float = 0.0
    """Downloads that fail, each attempt anew."""
    unfit_share: float = 0.0
    """Refuse the release for good."""
    crashing_share: float = 0.0
    """Their own probation takes the release back."""
    failed_rows: float = 0.0
    """More rows fail with the new release."""
    latency_ratio: float = 1.0
    anomaly_ratio: float = 0.0
    """More answers are another label with the new release."""
    bad_site: bool = False
    """Sensors of the first site break as the rollout begins, under any release."""


SCENARIOS: dict[str, Scenario] = {
    "good": Scenario("A good release on a fleet as usual: a few devices offline, a few slow."),
    "slow-links": Scenario("Two of five devices have slow links.", slow_share=0.4),
    "offline": Scenario("Every tenth device is offline.", offline_share=0.1),
    "flaky-downloads": Scenario("Three of ten downloads fail and work later.", flaky_share=0.3),
    "bad-release": Scenario(
        "The release fails on 5 % of rows and is too slow.", failed_rows=0.05, latency_ratio=1.6
    ),
    "crashing-release": Scenario(
        "The release does not survive its probation on 30 % of devices.", crashing_share=0.3
    ),
    "wrong-answers": Scenario("The release answers otherwise.", anomaly_ratio=0.3),
    "bad-site": Scenario("The release is good; sensors of one site break.", bad_site=True),
}


def find_scenario(name: str) -> Scenario:
    """The scenario of a name; several joined by + have the worst of each."""
    found: Scenario | None = None
    for one in name.split("+"):
        if one not in SCENARIOS:
            raise InvalidInputError(
                f"scenario {one[:40]!r}: expected one of {', '.join(SCENARIOS)}, or several with +",
                code="unknown-scenario",
            )
        found = SCENARIOS[one] if found is None else _both(found, SCENARIOS[one])
    assert found is not None
    return found


def _both(one: Scenario, other: Scenario) -> Scenario:
    plain = Scenario("")
    changed = {
        name: getattr(other, name)
        for name in Scenario.__dataclass_fields__
        if name != "words" and getattr(other, name) != getattr(plain, name)
    }
    return replace(one, words=f"{one.words} {other.words}", **changed)
