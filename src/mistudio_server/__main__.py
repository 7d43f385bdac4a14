"""``python -m mistudio_server`` is ``mistudio-server``."""

from mistudio_server.cli import main

main()
