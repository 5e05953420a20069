# Types a line and a tab into an interactive zsh of its own, with ./completion.zsh; prints "FOUND WORD" for each candidate.
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1=''; stty -echo cols 200 rows 100; autoload -U compinit; compinit -u -D"
zpty -w z "source ./completion.zsh; setopt no_auto_menu; unsetopt always_last_prompt; LISTMAX=1000"
# What would be offered is written to a file as well.
zpty -w z 'compadd() { local -a found_; builtin compadd -O found_ "$@"; (( $#found_ )) && print -l -- "FOUND "${^found_} >> found; builtin compadd "$@" }'
zpty -w z 'complete_and_say() { zle complete-word; print FINI""SHED }; zle -N complete_and_say; bindkey "^I" complete_and_say'
zpty -w z 'print REA""DY'
zpty -r -m z junk '*READY*'
: > found
zpty -w -n z "$1"$'\t'
zpty -r -m z junk '*FINISHED*'
cat found
zpty -d z
