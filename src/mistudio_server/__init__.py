"""The runtime of MiStudio: API, realtime events, workers and the SAE trainer."""

__version__ = "0.1.0"
