"""The options of programs that say how much of the noise is taken away."""


def parse(parser, argv):
    """Parse a command line that also takes ``--attenuation_limit`` and ``--dry``.

    What comes of both is ``dry``: a share, or None.
    """
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument(
        "--attenuation_limit",
        type=float,
        metavar="DB",
        help="take no more than so much of the noise away, such as 12: what remains "
        "covers faults, and soft speech is not lost (default: what the model says; "
        "the one that comes along leaves nearly clean recordings as they are)",
    )
    how_much.add_argument(
        "--dry",
        type=float,
        metavar="SHARE",
        help="the same as a share of the recording that stays in it; 0: none",
    )
    options = parser.parse_args(argv)
    options.dry = share_of(options, parser)
    return options


def share_of(options, parser):
    """The share of a recording that shall stay in it, or None: what the model says."""
    limit, dry = options.attenuation_limit, options.dry
    if limit is not None:
        if not limit >= 0:
            parser.error(f"--attenuation_limit must be 0 dB or more, not {limit:g}")
        return 10 ** (-limit / 20)
    if dry is not None and not 0 <= dry <= 1:
        parser.error(f"--dry must lie between 0 and 1, not {dry:g}")
    return dry
