# Put this file into ~/.config/fish/completions/mistudio-ops.fish.
complete --command mistudio-ops --no-files --arguments "(env _MISTUDIO_OPS_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) mistudio-ops)" --condition "env _MISTUDIO_OPS_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) mistudio-ops"
