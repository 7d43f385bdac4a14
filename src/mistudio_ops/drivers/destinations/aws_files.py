"""Credentials for S3: the AWS_* variables, and the files that every S3 client reads in ~/.aws."""

from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from pathlib import Path

from mistudio_ops.errors import UsageError


@dataclass(frozen=True, slots=True, repr=False)
class SharedSettings:
    """What the files say for one profile."""

    profile: Mapping[str, str] = field(default_factory=dict)

    @property
    def region(self) -> str | None:
        """The profile's region."""
        return self.profile.get("region")

    def credentials(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the key to sign with: from variables, else from the files, else nothing (a machine's own role)."""
        if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
            return _named(
                environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], environ.get("AWS_SESSION_TOKEN")
            )
        key, secret = self.profile.get("aws_access_key_id"), self.profile.get("aws_secret_access_key")
        return _named(key, secret, self.profile.get("aws_session_token")) if key and secret else {}


def shared_settings(environ: Mapping[str, str]) -> SharedSettings:
    """Return the settings of the profile that AWS_PROFILE names, or of ``default``.

    Raises:
        UsageError: a file cannot be read, or AWS_PROFILE names a profile that is in none.
    """
    home = Path(environ.get("HOME") or Path.home())
    name = environ.get("AWS_PROFILE") or "default"
    credentials = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    config = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config")
    sections = [_section(config, name if name == "default" else f"profile {name}"), _section(credentials, name)]
    if environ.get("AWS_PROFILE") and not any(sections):
        raise UsageError(
            f"AWS_PROFILE is {name}, and neither {credentials} nor {config} has that profile",
            hint=f"add [{name}] with aws_access_key_id and aws_secret_access_key, or unset AWS_PROFILE",
        )
    return SharedSettings(sections[0] | sections[1])


def _section(path: Path, name: str) -> dict[str, str]:
    parser = ConfigParser(interpolation=None, default_section="no default section")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise UsageError(f"{path} cannot be read: {type(error).__name__}", hint=f"ls -l {path}") from error
    return dict(parser[name]) if parser.has_section(name) else {}


def _named(key: str, secret: str, token: str | None) -> dict[str, str]:
    names = {"access_key_id": key, "secret_access_key": secret}
    return names | {"session_token": token} if token else names
