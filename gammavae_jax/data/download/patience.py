"""How often something that failed is tried again, and how long to wait before."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Waits that double, each cut short by chance, so that users do not come at once.

    The defaults outlast about seven minutes without a network.
    """

    n_tries: int = 25  # without anything new
    n_wrong: int = 2  # of whole files that are not what they should be
    first_s: float = 1.0
    longest_s: float = 30.0
    longest_asked_s: float = 300.0  # of what a server may ask for
    timeouts_s: tuple[float, float] = (15.0, 60.0)  # to connect; for the next bytes
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def wait_s(self, n_failures: int, asked_s: float = 0.0) -> float:
        """Seconds to wait after so many failures in a row, one at least.

        Args:
            n_failures: in a row.
            asked_s: what the server asks for; no less is waited.
        """
        longest = min(self.first_s * 2.0 ** (n_failures - 1), self.longest_s)
        return max(longest * (0.5 + 0.5 * self.chance()), asked_s)
