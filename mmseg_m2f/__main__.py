"""`python -m mmseg_m2f COMMAND`, for launchers of several processes."""

from mmseg_m2f.command_line.main import main

if __name__ == "__main__":
    main()
