"""The command `femto`, and `python -m femto`, which is the same."""

import sys

from .cli import (
    completion,
    compress,
    decompress,
    execute,
    features,
    info,
    thumbnail,
    train,
    truncate,
    verify,
)
from .cli.options import Parser

VERBS = {
    "compress": (compress, "a folder of pictures becomes a folder of archives"),
    "decompress": (decompress, "archives become pictures again"),
    "info": (info, "what is in archives, without decoding them"),
    "verify": (verify, "whether archives are what they were"),
    "truncate": (truncate, "a shorter archive of the same picture"),
    "thumbnail": (thumbnail, "a small picture of an archive, from its first layers"),
    "features": (features, "features of a folder of archives, for machine learning"),
    "train": (train, "learn a basis from pictures of one's own"),
    "completion": (completion, "completion of these commands by your shell"),
}


def command_line() -> tuple[Parser, dict[str, Parser]]:
    """The parser of `femto`, and those of its verbs."""
    parser = Parser("femto", description="Archives of pictures as text.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    parsers = {}
    for name, (verb, text) in VERBS.items():
        parsers[name] = verbs.add_parser(name, help=text, **verb.ABOUT)
        verb.add_arguments(parsers[name])
    return parser, parsers


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser, parsers = command_line()
    options = parser.parse_args(arguments)
    verb, own = VERBS[options.verb][0], parsers[options.verb]
    options.prog = own.prog
    if verb is completion:  # parsers cannot be handed to processes
        options.commands = (parser, parsers)
    verb.check(own, options)
    return execute(verb.run, options)


if __name__ == "__main__":
    sys.exit(main())
