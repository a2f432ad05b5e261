"""Measures how long JAX traces, lowers and compiles, from its monitoring events."""

import time

import jax

_LOWERING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
_COMPILING = ("/jax/core/compile/backend_compile_duration",)


class CompileClock:
    """Records JAX's compilation events, from its creation on."""

    def __init__(self):
        self._intervals: list[tuple[str, float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._record)

    def facts(self) -> dict[str, float]:
        """Return the seconds spent on tracing and lowering, and on compiling."""
        return {
            "lowering_s": self._covered(_LOWERING),
            "compile_s": self._covered(_COMPILING),
        }

    def _record(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        now = time.monotonic()
        self._intervals.append((event, now - duration_secs, now))

    def _covered(self, events: tuple[str, ...]) -> float:
        """Return the total time that events cover; nested events count once."""
        total, end = 0.0, float("-inf")
        for start, stop in sorted(i[1:] for i in self._intervals if i[0] in events):
            total += max(stop - max(start, end), 0.0)
            end = max(end, stop)
        return total
