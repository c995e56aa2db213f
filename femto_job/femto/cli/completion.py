"""femto completion: a script that has a shell complete verbs, options, choices and file names.

It is made from the parsers themselves, holds all that there is to complete, and starts nothing when
a key is pressed.
"""

import argparse
import sys

from .options import Parser

ABOUT = {
    "description": "Print a script for your shell that completes the commands of femto.",
    "epilog": 'For good: add to ~/.bashrc  eval "$(femto completion bash)"  or to ~/.zshrc, '
    'behind compinit,  eval "$(femto completion zsh)".',
}
_SCRIPT = """\
_femto() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local verb= options= choices= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -*) ;;
            *) verb=${COMP_WORDS[i]}; break ;;
        esac
    done
    COMPREPLY=()
    case "$verb $before" in
%(choices)s
        *) choices= ;;
    esac
    if [ -n "$choices" ]; then
        COMPREPLY=($(compgen -W "$choices" -- "$word"))
        return
    fi
    case $word in
        -*)
            case $verb in
%(options)s
            esac
            COMPREPLY=($(compgen -W "$options" -- "$word"))
            ;;
        *)
            if [ -z "$verb" ]; then
                COMPREPLY=($(compgen -W "%(verbs)s" -- "$word"))
            elif [ "$verb" = completion ]; then
                COMPREPLY=($(compgen -W "bash zsh" -- "$word"))
            fi
            ;;
    esac
}
complete -o default -o bashdefault -F _femto femto
"""


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=("bash", "zsh"))


def check(parser: Parser, options: argparse.Namespace) -> None:
    """Nothing here depends on something else."""


def run(options: argparse.Namespace) -> int:
    """Print the script; returns the exit status."""
    if options.shell == "zsh":
        sys.stdout.write("autoload -U +X bashcompinit && bashcompinit\n")
    sys.stdout.write(script_of(*options.commands))
    return 0


def script_of(parser: Parser, verbs: dict[str, Parser]) -> str:
    """The script for bash, which zsh takes with its own bashcompinit."""
    choices, options = [], []
    for verb, own in {"": parser, **verbs}.items():
        words = [word for action in own._actions for word in action.option_strings]
        options.append(f'                "{verb}") options="{" ".join(words)}" ;;')
        for action in own._actions:
            if action.choices and action.option_strings and not isinstance(action.choices, range):
                names = "|".join(f'"{verb} {word}"' for word in action.option_strings)
                values = " ".join(map(str, action.choices))
                choices.append(f'        {names}) choices="{values}" ;;')
    return _SCRIPT % {
        "choices": "\n".join(choices),
        "options": "\n".join(options),
        "verbs": " ".join(verbs),
    }
