"""Databases beside the live one: made, found, swapped, dropped; with rights that are just enough, and with fewer."""

import threading
import time
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from mistudio_ops.domain.backup import DatabaseFacts
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.database_properties import carry_properties
from mistudio_ops.errors import LockedError, NothingFoundError, PreconditionError
from tests.support.real_backups import facts_of

pytestmark = pytest.mark.integration
FACTS = DatabaseFacts("live", "15.1", 15, 1, "owner", "UTF8", "C.UTF-8", "C.UTF-8", None)
Admin = psycopg.Connection[tuple[object, ...]]


def made(access: DatabaseAccess, purpose: databases.Purpose = "restore", token: str = "0000aaaa") -> str:
    name = databases.database_name(access.name, purpose, token)
    assert databases.create_database(access, name, FACTS) is None
    return name


def note(access: DatabaseAccess, dbname: str, text: str) -> None:
    with access.session(dbname) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
        connection.execute("INSERT INTO note VALUES (%s)", (text,))


def noted(access: DatabaseAccess, dbname: str) -> str:
    with access.session(dbname) as connection:
        row = connection.execute("SELECT text FROM note").fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("live", ["lab", "l" * 60, "é" * 31, "x" + "é" * 31])
def test_names_fit_into_63_bytes(live: str) -> None:
    for purpose in ("verify", "restore", "before"):
        name = databases.database_name(live, purpose, "1a2b3c4d")
        assert len(name.encode()) <= 63
        assert name.endswith(f"_{purpose}_1a2b3c4d")
        assert live.startswith(name.removesuffix(f"_{purpose}_1a2b3c4d"))


def test_an_owner_with_createdb_makes_lists_and_drops(plain_owner: DatabaseAccess) -> None:
    name = made(plain_owner)
    assert databases.exists(plain_owner, name)
    assert databases.list_ours(plain_owner) == [databases.OurDatabase(name, "restore", True)]
    assert databases.list_ours(plain_owner, "verify", "before") == []
    facts = facts_of(replace(plain_owner, name=name))
    assert (facts.owner, facts.encoding, facts.collate) == (plain_owner.owner.user, "UTF8", "C.UTF-8")
    with plain_owner.session(name):  # a session that is in it does not save it
        databases.drop_database(plain_owner, name)
        assert not databases.exists(plain_owner, name)
    databases.drop_database(plain_owner, name)


def test_the_live_database_is_never_dropped(plain_owner: DatabaseAccess) -> None:
    with pytest.raises(ValueError, match="live"):
        databases.drop_database(plain_owner, plain_owner.name)
    assert databases.exists(plain_owner, plain_owner.name)


def test_without_createdb_the_statement_to_type_is_named(plain_owner: DatabaseAccess, admin: Admin) -> None:
    admin.execute(sql.SQL("ALTER ROLE {} NOCREATEDB").format(sql.Identifier(plain_owner.owner.user)))
    expected = f'ALTER ROLE "{plain_owner.owner.user}" CREATEDB;'
    for attempt in (
        lambda: databases.require_createdb(plain_owner),
        lambda: databases.create_database(plain_owner, "never", FACTS),
    ):
        with pytest.raises(PreconditionError) as caught:
            attempt()
        assert caught.value.exit_code == 13
        assert expected in (caught.value.hint or "")
    admin.execute(
        sql.SQL("CREATE DATABASE {} OWNER {}").format(
            sql.Identifier(f"{plain_owner.name}_in"), sql.Identifier(plain_owner.owner.user)
        )
    )
    with pytest.raises(PreconditionError) as caught:
        databases.swap(
            plain_owner, current=plain_owner.name, incoming=f"{plain_owner.name}_in", aside=f"{plain_owner.name}_aside"
        )
    assert expected in (caught.value.hint or "")
    with plain_owner.session():  # still there, and open
        pass


def test_an_admin_who_is_not_the_owners_member_hears_which_grant_is_missing(
    plain_owner: DatabaseAccess, admin: Admin
) -> None:
    name = f"{plain_owner.owner.user}_stranger"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD 'x'").format(sql.Identifier(name)))
    try:
        stranger = replace(plain_owner.owner, user=name, password="x")
        with pytest.raises(PreconditionError) as caught:
            databases.create_database(replace(plain_owner, admin=stranger), "never", FACTS)
        assert f'GRANT "{plain_owner.owner.user}" TO "{name}";' in (caught.value.hint or "")
    finally:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_missing_locale_falls_back_and_says_so(plain_owner: DatabaseAccess) -> None:
    differs = databases.create_database(
        plain_owner, f"{plain_owner.name}_fallback", replace(FACTS, collate="xx_YY", ctype="xx_YY")
    )
    assert differs is not None
    assert "xx_YY" in differs
    assert databases.exists(plain_owner, f"{plain_owner.name}_fallback")


def test_a_locale_that_cannot_be_replaced_is_an_error(plain_owner: DatabaseAccess) -> None:
    with pytest.raises(PreconditionError, match="klingon"):
        databases.create_database(
            plain_owner, f"{plain_owner.name}_never", replace(FACTS, encoding="klingon", collate="xx_YY")
        )
    assert not databases.exists(plain_owner, f"{plain_owner.name}_never")


def test_an_unknown_extension_is_named_before_anything_is_made(plain_owner: DatabaseAccess) -> None:
    with pytest.raises(PreconditionError, match="lacks the extension timescale9") as caught:
        databases.create_database(
            plain_owner, f"{plain_owner.name}_never", replace(FACTS, extensions=("plpgsql", "timescale9"))
        )
    assert "apt-get install" in (caught.value.hint or "")
    assert not databases.exists(plain_owner, f"{plain_owner.name}_never")


def test_an_extension_that_only_a_superuser_may_create_leaves_nothing_without_one(plain_owner: DatabaseAccess) -> None:
    facts = replace(FACTS, extensions=("pageinspect",))
    with pytest.raises(PreconditionError, match="cannot create the extension pageinspect"):
        databases.create_database(plain_owner, f"{plain_owner.name}_never", facts)
    assert not databases.exists(plain_owner, f"{plain_owner.name}_never")


def test_the_admin_login_creates_what_the_owner_may_not(plain_owner: DatabaseAccess, access: DatabaseAccess) -> None:
    both = replace(plain_owner, admin=access.admin)
    databases.create_database(
        both, f"{plain_owner.name}_extended", replace(FACTS, extensions=("pageinspect", "pg_trgm"))
    )
    assert facts_of(replace(both, name=f"{plain_owner.name}_extended")).extensions == (
        "pageinspect",
    )  # pg_trgm: pg_restore's work


def test_swapping_keeps_the_old_one_blocked_and_undoes(plain_owner: DatabaseAccess) -> None:
    live, incoming = plain_owner.name, made(plain_owner)
    note(plain_owner, live, "old")
    note(plain_owner, incoming, "new")
    aside = databases.database_name(live, "before", "0000aaaa")
    databases.swap(plain_owner, current=live, incoming=incoming, aside=aside)
    assert noted(plain_owner, live) == "new"
    assert databases.list_ours(plain_owner) == [databases.OurDatabase(aside, "before", False)]
    with pytest.raises(PreconditionError, match="not currently accepting"), plain_owner.session(aside):
        pass
    databases.swap(plain_owner, current=live, incoming=aside, aside=incoming)
    assert noted(plain_owner, live) == "old"
    databases.unblock(plain_owner, incoming)
    assert noted(plain_owner, incoming) == "new"


def test_swapping_where_the_live_one_is_gone(plain_owner: DatabaseAccess, admin: Admin) -> None:
    incoming = made(plain_owner)
    note(plain_owner, incoming, "new")
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(plain_owner.name)))
    databases.swap(plain_owner, current=plain_owner.name, incoming=incoming, aside="never")
    assert noted(plain_owner, plain_owner.name) == "new"
    assert databases.list_ours(plain_owner) == []


def test_swapping_what_is_not_there_or_in_the_way_changes_nothing(plain_owner: DatabaseAccess) -> None:
    incoming = made(plain_owner)
    note(plain_owner, plain_owner.name, "old")
    with pytest.raises(NothingFoundError):
        databases.swap(plain_owner, current=plain_owner.name, incoming="nowhere", aside="never")
    with pytest.raises(PreconditionError, match="exists already"):
        databases.swap(plain_owner, current=plain_owner.name, incoming=incoming, aside=incoming)
    assert noted(plain_owner, plain_owner.name) == "old"


def test_swapping_wins_against_clients_that_reconnect_at_once(plain_owner: DatabaseAccess) -> None:
    live, incoming = plain_owner.name, made(plain_owner)
    note(plain_owner, live, "old")
    note(plain_owner, incoming, "new")
    stop = threading.Event()
    seen: set[str] = set()

    def hammer() -> None:
        while not stop.is_set():
            try:
                with plain_owner.owner.connect(live) as connection:
                    for _ in range(50):
                        row = connection.execute("SELECT text FROM note").fetchone()
                        seen.add(str(row[0]) if row else "nothing")
            except psycopg.Error:
                continue

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    databases.swap(plain_owner, current=live, incoming=incoming, aside=f"{plain_owner.name}_old")
    took = time.monotonic() - began
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen == {"old", "new"}
    assert took < 5, "RENAME gives up after five seconds: the sessions were not ended meanwhile"


def test_a_session_that_may_not_be_ended_is_named(
    plain_owner: DatabaseAccess, access: DatabaseAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = made(plain_owner)
    monkeypatch.setattr("mistudio_ops.drivers.database_swap.ATTEMPTS", 1)
    with (
        access.owner.connect(plain_owner.name, "a superuser's psql"),
        pytest.raises(PreconditionError, match="a superuser's psql"),
    ):
        databases.swap(
            plain_owner,
            current=plain_owner.name,
            incoming=incoming,
            aside="never",
        )
    with plain_owner.session():
        pass
    assert databases.exists(plain_owner, incoming)


def test_leftovers_of_killed_verifications_go_and_those_in_use_stay(plain_owner: DatabaseAccess) -> None:
    used, left = made(plain_owner, "verify", "0000aaaa"), made(plain_owner, "verify", "0000bbbb")
    kept = made(plain_owner, "restore", "0000cccc")
    with databases.scratch_claim(plain_owner, used):
        assert databases.drop_leftovers(plain_owner) == [left]
        with pytest.raises(LockedError), databases.scratch_claim(plain_owner, used):
            pass
    assert [one.name for one in databases.list_ours(plain_owner)] == [kept, used]
    assert databases.drop_leftovers(plain_owner) == [used]


def test_databases_of_another_live_name_are_not_ours(plain_owner: DatabaseAccess) -> None:
    other = replace(plain_owner, name=f"{plain_owner.name}_x")
    name = made(other, "verify", "0000aaaa")
    long, longer = (replace(plain_owner, name=f"{plain_owner.name}{'y' * 50}{end}") for end in "ab")
    theirs = made(long, "verify", "0000bbbb")
    assert databases.list_ours(plain_owner) == []
    assert databases.list_ours(longer) == []
    assert [one.name for one in databases.list_ours(other)] == [name]
    assert [one.name for one in databases.list_ours(long)] == [theirs]


def test_settings_rights_and_limits_are_carried_over(plain_owner: DatabaseAccess, admin: Admin) -> None:
    live, incoming, owner = plain_owner.name, made(plain_owner), plain_owner.owner.user
    reader = f"{owner}_reader"
    admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(reader)))
    try:
        for text in (
            "ALTER DATABASE {live} SET work_mem = '7MB'",
            'ALTER DATABASE {live} SET search_path = one, "two three"',
            "ALTER DATABASE {live} SET application_name = 'it''s, \"mine\"'",
            "ALTER ROLE {owner} IN DATABASE {live} SET lock_timeout = '9s'",
            "ALTER DATABASE {live} CONNECTION LIMIT 17",
            "REVOKE CONNECT ON DATABASE {live} FROM PUBLIC",
            "GRANT CONNECT ON DATABASE {live} TO {reader} WITH GRANT OPTION",
        ):
            names = {"live": live, "owner": owner, "reader": reader}
            admin.execute(sql.SQL(text).format(**{key: sql.Identifier(value) for key, value in names.items()}))
        assert carry_properties(plain_owner, live, incoming) == []
        assert properties(admin, incoming) == properties(admin, live)
        admin.execute(sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(sql.Identifier(live)))
        (left,) = carry_properties(plain_owner, live, incoming)
        assert "log_statement" in left
        assert carry_properties(plain_owner, "nowhere", incoming) == []
    finally:
        admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(*map(sql.Identifier, (live, reader))))
        admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(*map(sql.Identifier, (incoming, reader))))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(reader)))


def properties(admin: Admin, name: str) -> list[object]:
    rows = admin.execute(
        "SELECT datconnlimit, s.setrole, ARRAY(SELECT unnest(s.setconfig) ORDER BY 1),"
        " ARRAY(SELECT a::text FROM aclexplode(datacl) a ORDER BY 1)"
        " FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = %s ORDER BY 2",
        (name,),
    )
    return list(rows.fetchall())


def test_swapping_carries_them_over_too(plain_owner: DatabaseAccess, admin: Admin) -> None:
    live, incoming = plain_owner.name, made(plain_owner)
    admin.execute(sql.SQL("ALTER DATABASE {} SET work_mem = '7MB'").format(sql.Identifier(live)))
    before = properties(admin, live)
    assert databases.swap(plain_owner, current=live, incoming=incoming, aside=f"{live}_old") == []
    assert properties(admin, live) == before


def test_a_claim_outlives_the_servers_limit_on_idle_sessions(plain_owner: DatabaseAccess, admin: Admin) -> None:
    role = sql.Identifier(plain_owner.owner.user)
    admin.execute(sql.SQL("ALTER ROLE {} SET idle_session_timeout = '50ms'").format(role))
    name = made(plain_owner, "verify")
    with databases.scratch_claim(plain_owner, name):
        time.sleep(0.3)
        assert databases.drop_leftovers(plain_owner) == []
    assert databases.drop_leftovers(plain_owner) == [name]
