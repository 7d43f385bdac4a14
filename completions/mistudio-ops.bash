# Source this file, or put it into ~/.local/share/bash-completion/completions/mistudio-ops.
_mistudio_ops_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _MISTUDIO_OPS_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _mistudio_ops_completion mistudio-ops
