"""``python -m firearrow`` is the ``firearrow`` command."""

from firearrow.cli.main import main

if __name__ == "__main__":
    main()
