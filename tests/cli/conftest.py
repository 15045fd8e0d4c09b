"""The command line in this process."""

import pytest


@pytest.fixture
def rcv(capsys):
    """Run `rcv ARGUMENTS` in this process; returns (exit status, standard output, standard error)."""
    from rcv.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return exit.value.code or 0, out, err

    return run
