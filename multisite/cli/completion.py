"""``multisite completion``: the script that makes a shell complete commands, options and site names."""

from __future__ import annotations

import click

EPILOG = """\b
Examples:
  multisite completion bash > /etc/bash_completion.d/multisite
  multisite completion zsh > "${fpath[1]}/_multisite"
  multisite completion fish > ~/.config/fish/completions/multisite.fish
"""


@click.command(epilog=EPILOG, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(script(ctx.find_root().command, {}, "multisite", "_MULTISITE_COMPLETE").source())
