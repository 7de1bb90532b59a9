"""What other processes do with a store: wait for the word, create an object, say whether they did."""

import json
import sys

from thinwire.stores import open_store


def main() -> None:
    address, options = json.loads(sys.argv[1])
    store = open_store(address, options)
    store.create(f"ready-{sys.argv[2]}", b"")  # all that is loaded late is loaded
    print("ready", flush=True)
    for line in sys.stdin:
        print(int(store.create(line.strip(), sys.argv[2].encode())), flush=True)


if __name__ == "__main__":
    main()
