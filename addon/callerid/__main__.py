"""``python -m callerid``."""

from callerid.cli.main import main

if __name__ == "__main__":
    main(prog_name="callerid")
