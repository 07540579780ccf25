"""The command `onward`, as `python -m appliance` and as the installed script."""

from appliance.command_line.root import main

if __name__ == "__main__":
    main()
