"""The command line `interp-jax`: thin, and quick to say what is wrong. Bad input is one line and exit code 2."""

from collections.abc import Sequence
import sys


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command.

    Args:
      args: the words of the command line, `sys.argv[1:]` if None.

    Raises:
      SystemExit: with code 2 for bad input, after one line on stderr that says what, where and the remedy.
    """
    import tyro

    from interp_jax.cli.quickstart import quickstart
    from interp_jax.cli.sites import sites

    words = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"quickstart": quickstart, "sites": sites},
            prog="interp-jax",
            description="Interpret a language model in JAX: name activations, learn features, steer with them.",
            args=words,
        )
    except (ValueError, OSError, FloatingPointError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"interp-jax: error: {reason}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interp-jax: interrupted", file=sys.stderr)
        sys.exit(130)
