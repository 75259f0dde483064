from __future__ import annotations

import pytest

from domain.clock import ManualClock
from domain.errors import ConfigError, PermissionDeniedError, UnauthenticatedError
from serving.access import (
    Access,
    AccessConfig,
    check_permission,
    client_line,
    new_token,
    read_clients,
)

SHOP, READER = "token-of-the-shop", "token-of-the-reader"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text(
        "# the clients\n\n"
        f"{client_line('shop', ['read', 'publish'], SHOP)}\n"
        f"  {client_line('reader', ['read'], READER)}  \n"
        "billing read certificate:billing.example.com\n"
    )
    return path


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def access_of(path, clock=None) -> Access:
    return Access(AccessConfig(tokens=str(path)), clock or ManualClock())


def test_a_client_is_known_by_its_token(file):
    access = access_of(file)
    assert access.caller(bearer(SHOP), {}).name == "shop"
    assert access.caller({"authorization": f"BEARER {READER}"}, {}).name == "reader"


def test_a_client_is_known_by_any_name_of_its_certificate(file):
    access = access_of(file)
    names = {"x509_subject_alternative_name": [b"127.0.0.1", b"billing.example.com"]}
    assert access.caller({}, names).name == "billing"
    assert access.caller({}, {"x509_common_name": [b"billing.example.com"]}).name == "billing"


@pytest.mark.parametrize(
    ("metadata", "certificate"),
    [
        ({}, {}),
        ({}, {"x509_common_name": [b"somebody.example.com"]}),
        ({}, {"other": [b"billing.example.com"]}),
        (bearer("wrong"), {}),
        (bearer(""), {}),
        (bearer("x" * 100_000), {}),
        ({"authorization": SHOP}, {}),
        ({"authorization": f"Basic {SHOP}"}, {}),
        # Who shows a token that is wrong is not let in by the certificate instead.
        (bearer("wrong"), {"x509_common_name": [b"billing.example.com"]}),
    ],
)
def test_nobody_else_is_known(file, metadata, certificate):
    with pytest.raises(UnauthenticatedError):
        access_of(file).caller(metadata, certificate)


def test_hash_of_a_token_is_no_token(file):
    digest = client_line("shop", ["read"], SHOP).rpartition(":")[2]
    with pytest.raises(UnauthenticatedError):
        access_of(file).caller(bearer(digest), {})


@pytest.mark.parametrize(
    ("method", "shop", "reader"),
    [
        ("/headrace.v1.Recommender/Recommend", True, True),
        ("/headrace.v1.Retrieval/Retrieve", True, True),
        ("/headrace.v1.Ranking/BatchRank", True, True),
        ("/headrace.v1.Events/Publish", True, False),
        ("/headrace.v1.Admin/Rollback", False, False),
        ("/headrace.v1.SomethingNew/Do", False, False),  # what nobody thought of is for admins
    ],
)
def test_a_client_may_do_what_its_line_says_and_no_more(file, method, shop, reader):
    access = access_of(file)
    for token, may in ((SHOP, shop), (READER, reader)):
        caller = access.caller(bearer(token), {})
        if may:
            check_permission(caller, method)
        else:
            with pytest.raises(PermissionDeniedError, match=f"{caller.name} has no permission to"):
                check_permission(caller, method)


def test_without_a_file_everybody_may_do_everything():
    access = Access(AccessConfig(), ManualClock())
    assert access.open
    assert access.caller(bearer("any"), {}) is None
    check_permission(None, "/headrace.v1.Admin/Rollback")


def test_a_changed_file_is_used_within_a_second(file):
    clock = ManualClock()
    access = access_of(file, clock)
    file.write_text(f"{client_line('new', ['read'], 'token-of-the-new')}\n")
    clock.sleep(1.0)
    assert access.caller(bearer("token-of-the-new"), {}).name == "new"
    with pytest.raises(UnauthenticatedError):
        access.caller(bearer(SHOP), {})


def test_a_file_that_became_bad_changes_nothing_and_is_spoken_of_once(file, caplog):
    clock = ManualClock()
    access = access_of(file, clock)
    for _ in range(3):
        file.write_text(f"shop read {SHOP}\n")
        clock.sleep(1.0)
        assert access.caller(bearer(SHOP), {}).name == "shop"
    file.unlink()
    clock.sleep(1.0)
    assert access.caller(bearer(SHOP), {}).name == "shop"
    assert "tokens.txt:1: expected NAME PERMISSIONS sha256:" in caplog.text
    assert SHOP not in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shop read", "expected NAME PERMISSIONS sha256:"),
        (f"shop read {SHOP}", "expected NAME PERMISSIONS sha256:"),
        ("shop read sha256:abc", "expected NAME PERMISSIONS sha256:"),
        (f"shop read,write sha256:{'0' * 64}", "expected permissions out of read, publish, admin"),
        (f"shop , sha256:{'0' * 64}", "expected permissions out of"),
        (f"a/b read sha256:{'0' * 64}", "expected a name of letters"),
        (f"a read sha256:{'0' * 64}\nb read sha256:{'0' * 64}", ":2: this token is listed twice"),
        ("a read certificate:x\nb read certificate:x", ":2: this certificate is listed twice"),
        ("# nobody", "lists no client"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_quotes_no_secret(tmp_path, line, message):
    path = tmp_path / "tokens.txt"
    path.write_text(f"{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_clients(path)
    said = str(caught.value)
    assert said.startswith(f"server.access.tokens: {path}")
    assert message in said
    assert SHOP not in said
    assert "\n" not in said


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nope cannot be read: No such file"):
        access_of(tmp_path / "nope")


def test_new_tokens_are_long_and_differ():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43  # 256 bits
