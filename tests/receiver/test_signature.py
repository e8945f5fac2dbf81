"""Signatures match the published test vectors of other projects."""

import base64

from uplift_webhooks.signature import standard_signature, uplift_signature

# The example of the Standard Webhooks specification and its libraries' tests.
STANDARD_KEY = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
STANDARD_BODY = b'{"test": 2432232314}'


def test_the_vector_of_standard_webhooks() -> None:
    signature = standard_signature(STANDARD_KEY, b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", STANDARD_BODY)

    assert signature == b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_github_vector_for_the_uplift_scheme() -> None:
    # docs.github.com, "Validating webhook deliveries", section "Testing the webhook payload validation".
    assert (
        uplift_signature(b"It's a Secret to Everybody", b"Hello, World!")
        == b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )


def test_the_uplift_signature_uses_the_text_of_the_secret_as_key() -> None:
    # printf '{"test": 2432232314}' | openssl dgst -sha256 -hmac whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
    assert (
        uplift_signature(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", STANDARD_BODY)
        == b"sha256=80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c"
    )
