import pytest

from ledger.api.origin import checked_base_url, origin
from ledger.errors import UsageProblem


@pytest.mark.parametrize(
    ("url", "checked", "remembered"),
    [
        ("https://411data.io", "https://411data.io", "https://411data.io"),
        ("https://411DATA.io/", "https://411data.io", "https://411data.io"),
        ("https://411data.io:443", "https://411data.io:443", "https://411data.io"),
        ("https://411data.io:8443", "https://411data.io:8443", "https://411data.io:8443"),
        ("http://127.0.0.1:8411", "http://127.0.0.1:8411", "http://127.0.0.1"),
        ("http://127.9.9.9:1", "http://127.9.9.9:1", "http://127.9.9.9"),
        ("http://localhost:80", "http://localhost:80", "http://localhost"),
        ("http://[::1]:9", "http://[::1]:9", "http://[::1]"),
    ],
)
def test_an_allowed_base_url(url: str, checked: str, remembered: str) -> None:
    assert (checked_base_url(url), origin(url)) == (checked, remembered)


@pytest.mark.parametrize(
    "url",
    [
        "http://411data.io",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "ftp://411data.io",
        "https://",
        "https://user:hunter2@411data.io",
        "https://@411data.io",
        "https://411data.io/api/v1",
        "https://411data.io?x=1",
        "https://411data.io#x",
        "https://411data.io:0",
        "https://411data.io:99999",
        "https://411data.io:x",
        "https://411 data.io",
        "https://411data.io\n",
        "https://411dätä.io",
        "https://[::1",
        "411data.io",
        "",
    ],
)
def test_a_base_url_that_will_not_do(url: str) -> None:
    for read in (checked_base_url, origin):
        with pytest.raises(UsageProblem) as caught:
            read(url)
        assert "hunter2" not in str(caught.value)
