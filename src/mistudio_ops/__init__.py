"""The operations CLI of MiStudio: it deploys, checks and looks after the runtime."""

__version__ = "0.1.0"
