"""``python -m mistudio_ops`` is ``mistudio-ops``."""

from mistudio_ops.cli.app import main

main()
