"""The command line `interp-jax`. Bad input is told in one line on stderr, with exit code 2.

A command is a function in a file of its own, whose arguments are the options and whose docstring is the help.
"""

from collections.abc import Sequence
import os
import sys


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command.

    Args:
      args: the words of the command line, `sys.argv[1:]` if None.

    Raises:
      SystemExit: with code 2 for bad input, after one line on stderr that says what, where and the remedy.
    """
    import tyro

    from interp_jax.cli import programs
    from interp_jax.cli.attention import attention
    from interp_jax.cli.dashboard import dashboard
    from interp_jax.cli.explain import explain
    from interp_jax.cli.export import export
    from interp_jax.cli.graph import graph
    from interp_jax.cli.patch import patch
    from interp_jax.cli.quickstart import quickstart
    from interp_jax.cli.records import records
    from interp_jax.cli.sites import sites
    from interp_jax.cli.steer import steer
    from interp_jax.cli.train_dictionary import from_file, train_dictionary
    from interp_jax.cli.why import why

    programs.keep()
    words = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        if words[0] == "train-dictionary" and "--config" in words[:-1]:
            at = words.index("--config")  # which options there are depends on the file: its keys
            from_file(words[at + 1], words[1:at] + words[at + 2 :])
            return
        tyro.extras.subcommand_cli_from_dict(
            {
                "quickstart": quickstart,
                "sites": sites,
                "attention": attention,
                "patch": patch,
                "steer": steer,
                "graph": graph,
                "dashboard": dashboard,
                "why": why,
                "records": records,
                "explain": explain,
                "export": export,
                "train-dictionary": train_dictionary,
            },
            prog="interp-jax",
            description="Interpret a language model in JAX: name activations, learn features, steer with them.",
            args=words,
        )
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError, FloatingPointError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"interp-jax: error: {reason}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interp-jax: interrupted", file=sys.stderr)
        sys.exit(130)
