"""Response headers and redirect targets show no secrets."""

import pytest

from uplift_server.core.http.response_headers import mask_response_headers, mask_urls

MASK = "********"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/hook", "https://a.example/hook"),
        ("https://a.example/hook?token=s3cret&x=1", f"https://a.example/hook?{MASK}"),
        ("https://a.example/hook#access_token=s3cret", f"https://a.example/hook#{MASK}"),
        ("https://coach:s3cret@a.example:8443/", f"https://{MASK}@a.example:8443/"),
        ("//coach:s3cret@a.example/", f"//{MASK}@a.example/"),
        ("/login?next=s3cret", f"/login?{MASK}"),
        ("0; url=https://a.example/?s3cret", f"0; url=https://a.example/?{MASK}"),
        (
            '<https://a.example/?s3cret>; rel="next", </b?s3cret>; rel=prev',
            f'<https://a.example/?{MASK}>; rel="next", </b?{MASK}>; rel=prev',
        ),
        ("mailto:coach@rapids.example", "mailto:coach@rapids.example"),
    ],
)
def test_a_url_shows_its_host_and_path(url: str, shown: str) -> None:
    assert mask_urls(url) == shown


def test_headers_with_secrets_are_masked() -> None:
    head = (
        b"HTTP/1.1 302 Found\r\nDate: now\r\nLocation: https://a.example/x?s3cret\r\nset-cookie: id=s3cret; Path=/\r\n"
        b"X-Session-Id: s3cret\r\nX-API-Key:s3cret\r\nAuthentication-Info: s3cret\r\nRefresh: 0; url=/?s3cret\r\n"
        b'WWW-Authenticate: Bearer realm="a"\r\nX-Request-Id: 1\r\nlocation\r\n'
        b"X-Redirect-To: https://u:s3cret@a.example/y?s3cret\r\nX-Token: https://a.example/s3cret\r\n"
        b"Content-Security-Policy: default-src 'self'; report-uri https://a.example/r?s3cret; sandbox\r\n\r\n"
    )

    masked = mask_response_headers(head)

    assert b"s3cret" not in masked
    assert b"Location: https://a.example/x?********\r\n" in masked
    assert b"set-cookie: ********\r\nX-Session-Id: ********\r\nX-API-Key: ********\r\n" in masked
    assert b'WWW-Authenticate: Bearer realm="a"\r\nX-Request-Id: 1\r\n' in masked
    assert b"X-Redirect-To: https://********@a.example/y?********\r\n" in masked
    assert b"default-src 'self'; report-uri https://a.example/r?******** sandbox\r\n" in masked
    assert masked.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nserver: \xff\x00\r\n", b"token\r\nlocation"]
)
def test_other_bytes_stay(head: bytes) -> None:
    assert mask_response_headers(head) == head
