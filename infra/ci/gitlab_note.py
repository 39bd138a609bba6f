"""Writes a file as the one note of ours on a merge request: `gitlab_note.py comment.md`, in a job of GitLab CI.

Needs GITLAB_NOTE_TOKEN, a project access token of the role Reporter with the scope `api`, beside GitLab's own
variables. On GitHub the runner's `gh` does this.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PAGE, _MOST_PAGES = 100, 50
_TIMEOUT_SECONDS = 30.0


def post_note(body: str, environment: dict[str, str]) -> str:
    """Makes the note, or changes the one that begins with the same line and is of the same user.

    Returns:
        "made" or "changed".

    Raises:
        KeyError: a variable is missing.
        urllib.error.URLError: GitLab does not answer, or refuses the token.
    """
    api, token = environment["CI_API_V4_URL"], environment["GITLAB_NOTE_TOKEN"]
    request = f"{api}/projects/{environment['CI_PROJECT_ID']}/merge_requests/{environment['CI_MERGE_REQUEST_IID']}"
    us = _call("GET", f"{api}/user", token)["id"]
    marker = body.splitlines()[0]
    for page in range(1, _MOST_PAGES + 1):
        notes = _call("GET", f"{request}/notes?per_page={_PAGE}&page={page}", token)
        for note in notes:
            if note["author"]["id"] == us and note["body"].startswith(marker):
                _call("PUT", f"{request}/notes/{note['id']}", token, {"body": body})
                return "changed"
        if len(notes) < _PAGE:
            break
    _call("POST", f"{request}/notes", token, {"body": body})
    return "made"


def _call(method: str, url: str, token: str, values: dict[str, str] | None = None) -> Any:
    data = None if values is None else json.dumps(values).encode()
    headers = {"PRIVATE-TOKEN": token, "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def main(argv: Sequence[str] | None = None) -> int:
    paths = list(sys.argv[1:] if argv is None else argv)
    if len(paths) != 1:
        print(f"gitlab_note.py: wanted one file of Markdown; got {len(paths)}", file=sys.stderr)
        return 2
    try:
        done = post_note(Path(paths[0]).read_text(), dict(os.environ))
    except KeyError as error:
        print(f"gitlab_note.py: the variable {error.args[0]} is not set", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"gitlab_note.py: no note: {error}", file=sys.stderr)
        return 2 if isinstance(error, FileNotFoundError) else 6
    print(f"gitlab_note.py: {done}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
