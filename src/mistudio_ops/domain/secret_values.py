"""The generated secrets of an environment, and the variables made of them. Pure values."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from urllib.parse import quote


@dataclass(frozen=True, slots=True, repr=False)
class SecretValues:
    """Passwords and tokens, generated once. They print as nothing."""

    postgres_admin_password: str
    database_password: str
    redis_password: str
    internal_token: str

    def __repr__(self) -> str:
        return "SecretValues(...)"

    def all(self) -> tuple[str, ...]:
        """Return every secret, for a redactor."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def document(self) -> dict[str, str]:
        """Return the JSON form. Write it with mode 0600."""
        return asdict(self)

    @classmethod
    def completed(cls, known: Mapping[str, str], generate: Callable[[], str]) -> "SecretValues":
        """Return ``known`` with each missing secret generated."""
        return cls(**{field.name: known.get(field.name) or generate() for field in fields(cls)})


def database_url(secrets: SecretValues, port: int) -> str:
    """Return the URL of the embedded PostgreSQL, driver named."""
    return f"postgresql+psycopg://mistudio:{quote(secrets.database_password, safe='')}@127.0.0.1:{port}/mistudio"


def redis_url(secrets: SecretValues, port: int, database: int) -> str:
    """Return the URL of the embedded store."""
    return f"redis://:{quote(secrets.redis_password, safe='')}@127.0.0.1:{port}/{database}"
