"""The Redis-compatible store: PING in the database of Celery and in that of the events."""

from mistudio_ops.domain.check import Finding
from mistudio_ops.operations.health.facts import Facts

STORE_SECONDS = 4.0


def check_redis(facts: Facts) -> Finding:
    """PING both, and name the server."""
    broker = _ping(facts.variables["REDIS_URL"])
    events = _ping(facts.variables["REDIS_WS_URL"])
    return Finding.good(f"{broker[0]}: PING answered in DB {broker[1]} (Celery) and DB {events[1]} (events)")


def _ping(url: str) -> tuple[str, int]:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = redis.Redis.from_url(
        url, socket_timeout=STORE_SECONDS, socket_connect_timeout=STORE_SECONDS, retry=Retry(NoBackoff(), 0)
    )
    with client:
        client.ping()
        info = client.info("server")
        database = int(client.connection_pool.connection_kwargs.get("db", 0))
    name = str(info.get("server_name", "redis"))
    return f"{name} {info.get(f'{name}_version', info.get('redis_version', '?'))}", database


def redis_hint(facts: Facts, message: str) -> str:
    """Return what to do about an error of the client's."""
    lowered = message.lower()
    if "auth" in lowered or "wrongpass" in lowered or "password" in lowered:
        return "the password in REDIS_URL is not the store's: " + (
            "set MISTUDIO_REDIS_URL" if facts.environment.redis_url else "mistudio-ops deploy sets it again"
        )
    return facts.logs_hint("redis") if facts.environment.redis_url is None else "is REDIS_URL right, and the server up?"
