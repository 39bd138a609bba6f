"""Verdicts for CI: read back with the parsers that read them, and with hostile text."""

from xml.etree import ElementTree

from stylejobs.report.verdict import render_junit, render_summary
from stylejobs.report.wording import NOTHING

GATES = [
    {"name": "edge_cosine at least 0.45", "state": "passed", "words": "edge_cosine 0.6 (0.5 to 0.7), wanted ..."},
    {"name": "style above reinhard", "state": "failed", "words": 'style <0.1> & "so" | x\nnext\x00'},
    {"name": "clipped at most 1.25 of baseline", "state": "not asked", "words": "there is no baseline"},
]
VERDICT = {
    "model": {"uri": "models:/m|x/3"},
    "baseline": None,
    "passed": False,
    "gates": GATES,
    "measures": {
        "reinhard": {"style": [0.05, 0.01, 0.09]},
        "candidate": {"style": [0.123456, 0.1, 0.2], "fid": [None, None, None]},
    },
}


def test_junit_has_a_case_for_each_gate():
    suite = ElementTree.fromstring(render_junit(VERDICT).encode())
    assert suite.tag == "testsuite" and suite.get("name") == "models:/m|x/3"
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == [gate["name"] for gate in GATES]
    message = cases["style above reinhard"].find("failure").get("message")
    assert message == 'style <0.1> & "so" | x next\N{REPLACEMENT CHARACTER}'
    assert [child.tag for child in cases["edge_cosine at least 0.45"]] == ["system-out"]
    assert cases["clipped at most 1.25 of baseline"].find("skipped") is not None


def test_the_summary_has_tables_that_no_text_can_break():
    lines = render_summary(VERDICT).splitlines()
    assert lines[0] == r"## models:/m\|x/3" and lines[2] == "**refused**, 1 failed, without a baseline"
    tables = [line for line in lines if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables[:5]} == {4}
    assert r'&lt;0.1> &amp; "so" \| x next' in tables[3]
    assert tables[5] == "| measure | candidate | reinhard |"
    no_number = f"| fid | {NOTHING} ({NOTHING} to {NOTHING}) | {NOTHING} |"
    assert tables[7:] == ["| style | 0.1235 (0.1 to 0.2) | 0.05 |", no_number]


def test_the_summary_says_what_it_was_compared_with():
    verdict = {**VERDICT, "gates": GATES[:1], "passed": True, "baseline": {"uri": "models:/m/2"}, "measures": {}}
    assert render_summary(verdict).splitlines()[2:] == [
        "**passed**, beside models:/m/2",
        "",
        "| gate | | what came |",
        "|---|---|---|",
        f"| edge_cosine at least 0.45 | ok | {GATES[0]['words']} |",
    ]
    assert "measured, without gates" in render_summary({**verdict, "gates": [], "passed": None})
