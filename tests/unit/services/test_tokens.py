"""Scopes: what implies what."""

import pytest

from mistudio_server.services.tokens import LOCAL, TokenScope, hash_token, implied


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (["read"], {"read"}),
        (["write"], {"read", "write"}),
        (["admin"], {"read", "write", "admin"}),
        (["read", "write"], {"read", "write"}),
        (["unknown"], set()),
        ([], set()),
    ],
)
def test_implied(scopes: list[str], may: set[str]) -> None:
    assert implied(scopes) == {TokenScope(scope) for scope in may}


def test_the_local_principal_may_everything() -> None:
    assert all(LOCAL.may(scope) for scope in TokenScope)


def test_the_hash_is_sha256() -> None:
    assert hash_token("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
