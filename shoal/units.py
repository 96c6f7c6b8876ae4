"""Units of measurement, by the symbols people write: which may be turned into which, and how.

A conversion is `value × gain + offset`. A sensor's unit is named by the device, a feature's by the
package; what cannot be converted is refused with both in the sentence.

    >>> round(conversion("°F", "°C").apply(212.0), 9)
    100.0
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.errors import InvalidInputError


class UnitMismatchError(InvalidInputError):
    """Two units between which there is no conversion."""

    code = "unit-mismatch"


@dataclass(frozen=True, slots=True)
class Conversion:
    """value × gain + offset."""

    gain: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.gain == 1.0 and self.offset == 0.0

    def apply(self, value: float) -> float:
        """The value in the other unit."""
        return value * self.gain + self.offset


@dataclass(frozen=True, slots=True)
class _Unit:
    """value × scale + zero is the value in the dimension's base unit."""

    dimension: str
    scale: float = 1.0
    zero: float = 0.0


# Sources: SI brochure 9 (exact SI prefixes), NIST SP 811 appendix B (feet, miles, pounds, psi).
_UNITS: dict[str, _Unit] = {
    # temperature, base K
    "K": _Unit("temperature"),
    "°C": _Unit("temperature", 1.0, 273.15),
    "°F": _Unit("temperature", 5 / 9, 459.67 * 5 / 9),
    # pressure, base Pa
    "Pa": _Unit("pressure"),
    "hPa": _Unit("pressure", 100.0),
    "kPa": _Unit("pressure", 1000.0),
    "MPa": _Unit("pressure", 1e6),
    "mbar": _Unit("pressure", 100.0),
    "bar": _Unit("pressure", 1e5),
    "psi": _Unit("pressure", 6894.757293168),
    "atm": _Unit("pressure", 101325.0),
    "inHg": _Unit("pressure", 3386.389),
    # speed, base m/s
    "m/s": _Unit("speed"),
    "km/h": _Unit("speed", 1 / 3.6),
    "mph": _Unit("speed", 0.44704),
    "kn": _Unit("speed", 1852 / 3600),
    "ft/s": _Unit("speed", 0.3048),
    "mm/s": _Unit("speed", 1e-3),
    # acceleration, base m/s²
    "m/s²": _Unit("acceleration"),
    "g": _Unit("acceleration", 9.80665),
    "mg": _Unit("acceleration", 9.80665e-3),
    # length, base m
    "m": _Unit("length"),
    "µm": _Unit("length", 1e-6),
    "mm": _Unit("length", 1e-3),
    "cm": _Unit("length", 1e-2),
    "km": _Unit("length", 1e3),
    "in": _Unit("length", 0.0254),
    "ft": _Unit("length", 0.3048),
    "mi": _Unit("length", 1609.344),
    # mass, base kg ("g" is the acceleration of sensors)
    "kg": _Unit("mass"),
    "lb": _Unit("mass", 0.45359237),
    "t": _Unit("mass", 1e3),
    # flow, base m³/s
    "m³/s": _Unit("flow"),
    "m³/h": _Unit("flow", 1 / 3600),
    "l/min": _Unit("flow", 1e-3 / 60),
    "l/s": _Unit("flow", 1e-3),
    # time, base s
    "s": _Unit("time"),
    "ms": _Unit("time", 1e-3),
    "min": _Unit("time", 60.0),
    "h": _Unit("time", 3600.0),
    # frequency and rotation, base Hz
    "Hz": _Unit("frequency"),
    "kHz": _Unit("frequency", 1e3),
    "rpm": _Unit("frequency", 1 / 60),
    # angle, base rad
    "rad": _Unit("angle"),
    "°": _Unit("angle", 0.017453292519943295),
    "rad/s": _Unit("angular rate"),
    "°/s": _Unit("angular rate", 0.017453292519943295),
    # electricity
    "V": _Unit("voltage"),
    "mV": _Unit("voltage", 1e-3),
    "kV": _Unit("voltage", 1e3),
    "A": _Unit("current"),
    "mA": _Unit("current", 1e-3),
    "W": _Unit("power"),
    "kW": _Unit("power", 1e3),
    "MW": _Unit("power", 1e6),
    "Wh": _Unit("energy", 3600.0),
    "kWh": _Unit("energy", 3.6e6),
    "J": _Unit("energy"),
    # shares, base 1
    "ratio": _Unit("share"),
    "%": _Unit("share", 0.01),
    "ppm": _Unit("share", 1e-6),
    # magnetic field, base T
    "T": _Unit("magnetic field"),
    "µT": _Unit("magnetic field", 1e-6),
    "G": _Unit("magnetic field", 1e-4),
}

_SPELLINGS = {
    "C": "°C", "degC": "°C", "celsius": "°C", "F": "°F", "degF": "°F", "fahrenheit": "°F",
    "kelvin": "K", "m/s2": "m/s²", "m/s^2": "m/s²", "kph": "km/h", "kmh": "km/h",
    "mi/h": "mph", "kt": "kn", "knot": "kn", "knots": "kn", "deg": "°", "deg/s": "°/s",
    "um": "µm", "μm": "µm", "uT": "µT", "μT": "µT", "L/min": "l/min", "L/s": "l/s",
    "lpm": "l/min", "m3/h": "m³/h", "m3/s": "m³/s", "percent": "%", "1": "ratio",
    "lbs": "lb", "1/min": "rpm", "sec": "s",
}  # fmt: skip


def canonical(symbol: str) -> str:
    """The symbol as this table writes it; an unknown one as it is."""
    return _SPELLINGS.get(symbol.strip(), symbol.strip())


def is_known(symbol: str) -> bool:
    """Whether the unit can be converted at all."""
    return canonical(symbol) in _UNITS


def conversion(source: str, target: str) -> Conversion:
    """How values in `source` become values in `target`, or `UnitMismatchError`.

    Equal symbols need not be known; a side that says nothing is taken at the other's word.
    """
    have, want = canonical(source), canonical(target)
    if have == want or not have or not want:
        return Conversion()
    for symbol in (have, want):
        if symbol not in _UNITS:
            raise UnitMismatchError(
                f"expected {want}, got {have}: {symbol} is not a unit that can be converted"
            )
    one, other = _UNITS[have], _UNITS[want]
    if one.dimension != other.dimension:
        raise UnitMismatchError(
            f"expected {want} ({other.dimension}), got {have} ({one.dimension})"
        )
    return Conversion(one.scale / other.scale, (one.zero - other.zero) / other.scale)
