"""Makes buckets that are not there yet: `buckets.py NAME ...`; endpoint and keys are those of the AWS environment."""

import sys
from collections.abc import Sequence

import boto3


def make_buckets(names: Sequence[str]) -> list[str]:
    """The names that were made; what is there stays as it is.

    Raises:
        botocore.exceptions.ClientError: the store refuses the key or the name.
    """
    store = boto3.Session().client("s3")
    held = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    missing = [name for name in names if name not in held]
    for name in missing:
        store.create_bucket(Bucket=name)
    return missing


def main(argv: Sequence[str] | None = None) -> int:
    names = list(sys.argv[1:] if argv is None else argv)
    if not names:
        print("buckets.py: wanted names of buckets; got none", file=sys.stderr)
        return 2
    print(f"made: {', '.join(make_buckets(names)) or 'nothing, all are there'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
