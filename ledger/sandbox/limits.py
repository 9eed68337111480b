"""The real limits behind a 429: a token bucket in real seconds, and how much may go on at once."""

from __future__ import annotations

from collections.abc import Callable

from ledger.sandbox.settings import Settings


class Limits:
    """Says whether one more request may come in.

    Args:
        real: Monotonic real seconds: the client's `Retry-After` wait is real too.
        settings: `rate_per_s`, `rate_burst`, `max_posts_at_once`, `max_open_jobs`.
    """

    def __init__(self, real: Callable[[], float], settings: Settings) -> None:
        self._real = real
        self._settings = settings
        self._tokens = float(settings.rate_burst)
        self._filled_at = real()
        self.posts_at_once = 0
        """Paid POSTs in the air, the one that asks included."""
        self.posts_at_once_max = 0
        """The most that ever were."""

    def configure(self, settings: Settings) -> None:
        """Change the limits; the bucket keeps its tokens up to the new burst."""
        self._refill()
        self._settings = settings
        self._tokens = min(self._tokens, float(settings.rate_burst))

    def post_arrives(self) -> None:
        """A paid POST is in the air; `post_leaves` must follow."""
        self.posts_at_once += 1
        self.posts_at_once_max = max(self.posts_at_once_max, self.posts_at_once)

    def post_leaves(self) -> None:
        """A paid POST was answered."""
        self.posts_at_once -= 1

    def wait_for_token(self) -> float:
        """Take a token: 0, or the real seconds until there is one."""
        if not self._settings.rate_per_s:
            return 0.0
        self._refill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._settings.rate_per_s

    def wait_for_room(self, running: int) -> float:
        """0 when a paid POST may come in beside the `running` jobs, else a second: nobody knows how long."""
        posts, jobs = self._settings.max_posts_at_once, self._settings.max_open_jobs
        full = (posts and self.posts_at_once > posts) or (jobs and running >= jobs)
        return 1.0 if full else 0.0

    def _refill(self) -> None:
        now = self._real()
        gained = (now - self._filled_at) * self._settings.rate_per_s
        self._tokens = min(self._tokens + gained, float(self._settings.rate_burst))
        self._filled_at = now
