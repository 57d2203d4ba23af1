"""python -m edgenas"""

from edgenas.entry import main

if __name__ == "__main__":
    main()
