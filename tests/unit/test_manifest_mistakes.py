"""Every way a manifest can be wrong, each named at its line; and secrets, which are never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsync.errors import ExitCode, InvalidError
from labsync.manifest import parse_manifest

PATH = Path("/lab/labsync.yaml")
HEAD = "version: 1\nproject: lab\n"
COMMIT = "dca509fe793f601edb92606367a655c15ac00fdf"
SHA256 = "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
NAME_RULE = "a name is written `a-z 0-9 . _ -` and begins with a letter or digit"
SEGMENT_RULE = "an empty, `.` or `..` segment; paths stay inside the manifest's folder"


def issues(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidError) as caught:
        parse_manifest(text, PATH)
    assert caught.value.exit_code == ExitCode.INVALID
    assert caught.value.hint
    return caught.value.issues


def issues_of(body: str) -> tuple[str, ...]:
    return issues(HEAD + body)


@pytest.mark.fault(79)
def test_all_problems_come_at_once_in_line_order_with_file_line_and_key() -> None:
    found = issues(
        "version: 1\n"
        "projct: lab\n"
        "models:\n"
        "  sam:\n"
        "    orign: hf://a/b\n"
        "    keep: 3\n"
        "  Bad Name: {origin: hf://a/b}\n"
        "datasets: [1]\n"
        "results:\n"
        "  runs: {path: ../outside}\n"
    )
    assert found == (
        "labsync.yaml:1: `project` is missing, as in `project: my-lab`",
        "labsync.yaml:2: projct: unknown key, did you mean `project`?",
        "labsync.yaml:5: models.sam.orign: unknown key, did you mean `origin`?",
        "labsync.yaml:6: models.sam.keep: `keep` belongs to checkpoints without an `origin`",
        f"labsync.yaml:7: models.Bad Name: {NAME_RULE}",
        "labsync.yaml:8: datasets: must be a mapping of keys, not a list",
        f"labsync.yaml:10: results.runs.path: the path `../outside` has {SEGMENT_RULE}",
    )


@pytest.mark.fault(79)
@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("project: other", 3, "project: duplicate key, already in line 2"),
        ("results:\n  a: {}\n  a: {}", 5, "results.a: duplicate key"),
        ("disk: &d {}\nx: *d", 3, "anchors (`&d`)"),
        ("disk: &d {}\nx: *d", 4, "aliases (`*d`)"),
        ("disk: {<<: {reserve: 1GiB}}", 3, "merge keys"),
        ("project2: !!python/object:os.system x", 3, "tags"),
        ("disk: {? [a] : b}", 3, "a key must be a word"),
        ("---\nversion: 1", 3, "one YAML document"),
        ("disk: {reserve: 5}", 3, "must be a size"),
        ("disk: {reserve: 5 furlongs}", 3, "must be a size"),
        ("session: forever", 3, "is not one of"),
        ("session: studio-lab-gpus", 3, "did you mean `studio-lab-gpu`?"),
        ("session: {limit: 4h, margin: 5h}", 3, "longer than the margin"),
        ("session: {margin: 5h}", 3, "`limit` is missing"),
        ("session: {limit: 90}", 3, "must be a duration"),
        ("device: tpu", 3, "is not `auto`, `cpu`"),
        ("mirror: my-mirror", 3, "is not `s3://bucket/prefix`"),
        ("mirror: s3://B", 3, "names no bucket"),
        ("mirror: s3://bucket/a/../b", 3, "`..` segment"),
        ("mirror: file://host/path", 3, "names a host"),
        ("mirror: .", 3, "is not `s3://bucket/prefix`"),
        ("mirror: ./", 3, "not a folder of the mirror's own"),
        ("mirror: {url: ./m, region: x}", 3, "`region` belongs to a mirror in `s3://`"),
        ("mirror: {url: 's3://bucket', endpoint: host}", 3, "is not `https://host`"),
        ("mirror: {url: ./m, single_writer: yes}", 3, "must be `true` or `false`, not `yes`"),
        ("mirror: ./outputs/m\nresults: {r: {path: outputs}}", 4, "overlaps the mirror's folder"),
        ("groups: {g: [nothing]}", 3, "`nothing` names nothing"),
        ("groups: {g: [h], h: [r]}\nresults: {r: {}}", 3, "is a group; groups hold artifacts"),
        ("groups: {models: [r]}\nresults: {r: {}}", 3, "is the name of a kind already"),
        ("groups: {r: [r]}\nresults: {r: {}}", 3, "is the name of an artifact already"),
        ("results: {r: {path: outputs}, s: {path: outputs/}}", 3, "is also the path of `results/r`"),
        ("results: {r: {path: outputs}, s: {path: outputs/s}}", 3, "lies in the path `outputs`"),
        ("results: {r: {path: outputs/r}, s: {path: outputs}}", 3, "holds the path `outputs/r`"),
        ("results: {r: {path: Outputs}, s: {path: outputs}}", 3, "is also the path"),
        ('results: {r: {path: "e\\u0301"}, s: {path: é}}', 3, "is also the path"),
        ("results: {r: {path: .labsync/x}}", 3, "overlaps labsync's own"),
        ("results: {r: {path: labsync.yaml}}", 3, "overlaps labsync's own"),
        ("results: {r: {path: /etc}}", 3, "is absolute"),
        ("results: {r: {path: 'C:\\\\x'}}", 3, "is not a relative path with `/`"),
        ('results: {r: {path: "a\\u0007"}}', 3, "control character"),
        ('results: {r: {path: "a\\ud800"}}', 3, "control character"),
        ("results: {r: {origin: hf://a/b}}", 3, "results are made here"),
        ("results: {r: {layout: packed}}", 3, "`layout` belongs to artifacts with an `origin`"),
        ("results: {r: }", 3, "must be a mapping of keys, not nothing"),
        ("models: {m: {include: [a]}}", 3, "`origin` is missing"),
        ("datasets: {m: {}}", 3, "`origin` is missing"),
        ("libraries: {m: {}}", 3, "`origin` is missing"),
        ("models: {m: {origin: hf://a/b, install: true}}", 3, "`install` belongs to libraries"),
        ("datasets: {m: {origin: hf://a/b, smoke: {}}}", 3, "`smoke` belongs to models and checkpoints"),
        ("checkpoints: {m: {origin: 'https://h/a', keep: 1}}", 3, "belongs to checkpoints without an"),
        ("checkpoints: {m: {keep: 0}}", 3, "a whole number of at least 1"),
        ("checkpoints: {m: {keep: '3'}}", 3, "a whole number of at least 1"),
        ("checkpoints: {m: {complete: a/b}}", 3, "without `/`"),
        ("models: {m: {origin: hf://a/b/c}}", 3, "names a file"),
        ("models: {m: {origin: 'hf:a/b'}}", 3, "is not `hf://org/repo`"),
        ("models: {m: {origin: hf://a/b@}}", 3, "nothing behind `@`"),
        ("models: {m: {origin: org/repo}}", 3, "is not an origin"),
        ("models: {m: {origin: 'git+ext:sh'}}", 3, "unknown form `git+ext:`, did you mean `git+"),
        ("models: {m: {origin: 'git+ssh://-oProxyCommand=x/a'}}", 3, "is not `git+ssh://host/path`"),
        ("models: {m: {origin: 'git+https://h/a@--upload-pack=x'}}", 3, "is not a branch"),
        ("models: {m: {origin: 'git+file://host/a'}}", 3, "names a host"),
        ("models: {m: {origin: 'https://h.org/a/'}}", 3, "names no file"),
        ("models: {m: {origin: 'https://h.org/a%2Fb'}}", 3, "has a `/` in its name"),
        ("models: {m: {origin: 's3://bucket'}}", 3, "a folder ends in `/`"),
        ("models: {m: {origin: 'zip://a::https://h/b.zip'}}", 3, "is not `zip://…`"),
        ("models: {m: {origin: 'https://h.org/a b'}}", 3, "has a space"),
        ("models: {m: {origin: 'file:~/a'}}", 3, "not expanded"),
        ("models: {m: {origin: 'file:models/m/', path: models/m}}", 3, "overlap"),
        ("models: {m: {origin: hf://a/b@x, revision: y}}", 3, "in one place only"),
        ("models: {m: {origin: 'https://h/a', revision: y}}", 3, "origins that have revisions"),
        ("models: {m: {origin: hf://a/b, revision: 1234567}}", 3, 'quote it: "1234567"'),
        ("models: {m: {origin: hf://a/b, revision: 0123456}}", 3, 'quote it: `revision: "0123456"`'),
        ("models: {m: {origin: hf://a/b, revision: 12e4567}}", 3, 'quote it: "12e4567"'),
        ("models: {m: {origin: hf://a/b, revision: 'a..b'}}", 3, "is not a branch"),
        ("models: {m: {origin: hf://a/b, sha256: '12'}}", 3, "belongs to an origin that is one file"),
        ("models: {m: {origin: 'https://h/a', sha256: '12'}}", 3, "must be 64 hex digits"),
        ("models: {m: {origin: 'https://h/a', include: ['*']}}", 3, "does not fit"),
        ("models: {m: {origin: 'https://h/a', path: x/}}", 3, "names the file here"),
        ("models: {m: {origin: hf://a/b, include: '*.json'}}", 3, "must be a list of strings"),
        ("models: {m: {origin: hf://a/b, include: [1]}}", 3, "must be a string, quote it"),
        ("models: {m: {origin: hf://a/b, include: ['[z-a]']}}", 3, "is not a pattern"),
        ("models: {m: {origin: hf://a/b, layout: zip}}", 3, "is not one of `plain`, `packed`"),
        ("libraries: {m: {origin: hf://a/b, history: true}}", 3, "belongs to libraries from `git+…`"),
        ("models: {m: {origin: hf://a/b, smoke: {}}}", 3, "`task` is missing"),
        ("models: {m: {origin: hf://a/b, smoke: {task: caption}}}", 3, "is not one of `segment-anything`"),
        ("models: {m: {origin: hf://a/b, smoke: {task: python}}}", 3, "needs `function: module:function`"),
        ("checkpoints: {m: {smoke: {task: python, function: x}}}", 3, "is not `module:function`"),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, function: 'a:b'}}}", 3,
            "belongs to the task `python`",
        ),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, trust_remote_code: true}}}", 3,
            "trust_remote_code: must be a string",
        ),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, trust_remote_code: abc}}}", 3,
            "40 hex digits",
        ),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, inputs: {points: [[1]]}}}}", 3,
            "must be 1 to 64 points",
        ),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, inputs: {points: [[.nan, 1]]}}}}", 3,
            "must be 1 to 64 points",
        ),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, inputs: {image: /etc/passwd}}}}", 3,
            "is absolute",
        ),
        (
            "checkpoints: {m: {smoke: {task: segment-anything, fallback: [n]}}}\nresults: {n: {}}", 3,
            "is no model or checkpoint",
        ),
        ("checkpoints: {m: {smoke: {task: segment-anything, fallback: [m]}}}", 3, "its own fallback"),
        ("environment: {spec: e.yaml}", 3, "`name` is missing"),
        ("environment: {name: base, spec: e.yaml}", 3, "platform's own environment"),
        ("environment: {name: default, spec: e.yaml}", 3, "platform's own environment"),
        ("environment: {name: studiolab-x, spec: e.yaml}", 3, "platform's own environment"),
        ("environment: {name: x}", 3, "`spec` is missing"),
        ("environment: {name: x, spec: e.yaml, inherit: true}", 3, "belongs to `manager: venv`"),
        ("environment: {name: x, spec: ../e.yaml}", 3, "`..` segment"),
        ("environment: {name: x, spec: e.yaml, target: {__cuda: 12.4}}", 3, 'quote it: "12.4"'),
        ("environment: {name: x, spec: e.yaml, manager: pip}", 3, "is not one of `conda`, `venv`"),
        (f"x: {'[' * 40}{']' * 40}", 3, "nested too deep"),
        ("x: {a: b", 4, "is not valid YAML"),
        ('x: "\\UFFFFFFFF"', 3, "is not valid YAML"),
        ("x: 'a\x01'", 1, "is not valid YAML"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_at_its_line(body: str, line: int, says: str) -> None:
    found = [issue for issue in issues_of(body + "\n") if says in issue]
    assert found, issues_of(body + "\n")
    if "\x01" not in body:
        assert any(issue.startswith(f"labsync.yaml:{line}: ") for issue in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "labsync.yaml:1: is empty; `labsync init` writes an example"),
        ("# only a comment\n", "labsync.yaml:1: is empty; `labsync init` writes an example"),
        ("~\n", "labsync.yaml:1: is empty; `labsync init` writes an example"),
        ("- a\n", "labsync.yaml:1: must be a mapping of keys, beginning with `version: 1`"),
        ("hello\n", "labsync.yaml:1: must be a mapping of keys, beginning with `version: 1`"),
        ("project: lab\n", "labsync.yaml:1: `version: 1` is missing"),
        (
            "version: '1'\nproject: lab\n",
            "labsync.yaml:1: version: must be a whole number of at least 1, not `1`",
        ),
        (
            "version: 2\nproject: lab\nnew_key: 1\n",
            "labsync.yaml:1: version: is newer than this labsync knows: install a newer labsync",
        ),
    ],
)
def test_what_is_no_manifest_has_one_problem(text: str, says: str) -> None:
    assert issues(text) == (says,)


SECRETS = {
    "AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "AWS secret key": "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE" + "KEY",
    "Hugging Face token": "hf_" + "aB3" * 11,
    "GitHub token": "ghp_" + "x" * 36,
    "user name and password": "https://me:hunter2x" + "@h.org/a",
    "token in a URL": "https://" + "0123456789abcdef" + "@h.org/a",
    "signed URL": "https://h.org/a?X-Amz-Signature=" + "0a1b2c3d" * 8,
}


@pytest.mark.fault(80)
@pytest.mark.parametrize("what", SECRETS)
@pytest.mark.parametrize(
    "place",
    ["# {}\n", "mirror: {{profile: '{}'}}\n", "models: {{m: {{origin: '{}'}}}}\n", "'{}': 1\n"],
    ids=["comment", "value", "origin", "key"],
)
def test_a_secret_is_refused_wherever_it_stands_and_never_repeated(what: str, place: str) -> None:
    secret = SECRETS[what]
    with pytest.raises(InvalidError) as caught:
        parse_manifest(HEAD + place.format(secret), PATH)
    error = caught.value
    assert any("labsync.yaml:3: looks like a" in issue and what in issue for issue in error.issues)
    said = " ".join((error.what, error.hint, error.safe, *error.issues))
    assert secret.rpartition("=")[2].strip().removeprefix("https://").partition("@")[0] not in said


def test_a_secret_behind_yaml_escapes_is_found() -> None:
    assert any("AWS access key" in issue for issue in issues_of('device: "\\x41KIAIOSFODNN7EXAMPLE"\n'))


def test_ordinary_urls_and_ids_are_no_secrets() -> None:
    parse_manifest(
        HEAD + f"libraries: {{l: {{origin: 'git+ssh://git@github.com/a/b@{COMMIT}'}}}}\n"
        f"checkpoints: {{c: {{origin: 'https://h.org/hf_hub/sk-learn.pth?v=1', sha256: {SHA256}}}}}\n",
        PATH,
    )
