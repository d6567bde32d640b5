"""A part of a world that runs the script it is given: python -m script_part SCRIPT"""

import sys

if __name__ == "__main__":
    exec(sys.argv[1])
