"""The provider's side of our house: every httpx import lives here."""
