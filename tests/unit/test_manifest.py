"""The manifest parser: what it accepts, and every way a manifest can be wrong, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labsync.errors import ExitCode, InvalidError, NotFoundError, UsageError
from labsync.filters import Filter
from labsync.manifest import (
    find_manifest,
    load_manifest,
    parse_duration,
    parse_manifest,
    parse_size,
)
from labsync.manifest.model import Artifact, Manifest
from labsync.manifest.parse import MAX_SIZE

PATH = Path("/lab/labsync.yaml")
HEAD = "version: 1\nproject: lab\n"
COMMIT = "dca509fe793f601edb92606367a655c15ac00fdf"
NAME_RULE = "a name is written `a-z 0-9 . _ -` and begins with a letter or digit"
SEGMENT_RULE = "an empty, `.` or `..` segment; paths stay inside the manifest's folder"
SHA256 = "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"


def parse(body: str) -> Manifest:
    return parse_manifest(HEAD + body, PATH)


def one(kind: str, keys: str) -> Artifact:
    (artifact,) = parse(f"{kind}:\n  x: {{{keys}}}\n").artifacts
    return artifact


def issues(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidError) as caught:
        parse_manifest(text, PATH)
    assert caught.value.exit_code == ExitCode.INVALID
    assert caught.value.hint
    return caught.value.issues


def issues_of(body: str) -> tuple[str, ...]:
    return issues(HEAD + body)


def test_a_manifest_of_two_lines_has_an_embedded_mirror_beside_it() -> None:
    manifest = parse("")
    assert manifest.project == "lab"
    assert manifest.mirror.url == "file:///lab/.labsync/mirror"
    assert manifest.session.profile == "auto"
    assert manifest.lock_path == Path("/lab/labsync.lock")


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("s3://my-bucket/lab/", "s3://my-bucket/lab"),
        ("file:///srv/mirror", "file:///srv/mirror"),
        ("file:mirror", "file:///lab/mirror"),
        ("./mirror", "file:///lab/mirror"),
        ("../mirror/", "file:///mirror"),
        ("/srv/mirror", "file:///srv/mirror"),
        ("{url: ./mirror, single_writer: true}", "file:///lab/mirror"),
        ("{single_writer: true}", "file:///lab/.labsync/mirror"),
    ],
)
def test_mirror_urls_are_normalised(written: str, url: str) -> None:
    assert parse(f"mirror: {written}\n").mirror.url == url


def test_the_long_form_of_an_s3_mirror() -> None:
    mirror = parse(
        "mirror: {url: s3://my-bucket/lab, endpoint: 'https://s3.example.org/', region: eu-west-1, "
        "profile: lab, single_writer: true}\n"
    ).mirror
    assert (mirror.endpoint, mirror.region, mirror.profile) == ("https://s3.example.org", "eu-west-1", "lab")
    assert mirror.single_writer


@pytest.mark.parametrize(
    ("keys", "origin", "revision", "path", "is_file"),
    [
        ("origin: hf://org/repo@main", "hf://org/repo", "main", "", False),
        ("origin: hf://gpt2", "hf://gpt2", "", "", False),
        ("origin: hf://org/repo@refs/pr/1", "hf://org/repo", "refs/pr/1", "", False),
        ("origin: hf://datasets/org/repo, path: data/x", "hf://datasets/org/repo", "", "data/x", False),
        ("origin: hf://org/repo, revision: v1.0", "hf://org/repo", "v1.0", "", False),
        ('origin: hf://org/repo, revision: "1234567"', "hf://org/repo", "1234567", "", False),
        (
            f"origin: 'git+https://github.com/a/b@{COMMIT}'",
            "git+https://github.com/a/b", COMMIT, "models/x", False,
        ),
        (
            "origin: 'git+ssh://git@github.com/a/b.git@feature/x'",
            "git+ssh://git@github.com/a/b.git", "feature/x", "models/x", False,
        ),
        ("origin: 'git+file:repos/a@v1'", "git+file:///lab/repos/a", "v1", "models/x", False),
        ("origin: 'git+file:///srv/a'", "git+file:///srv/a", "", "models/x", False),
        ("origin: 'https://h.org/a/b.pth?x=1'", "https://h.org/a/b.pth?x=1", "", "models/x/b.pth", True),
        ("origin: 'https://h.org/a%20b.pth'", "https://h.org/a%20b.pth", "", "models/x/a b.pth", True),
        ("origin: 'https://h.org/b.pth', path: w/sam.pth", "https://h.org/b.pth", "", "w/sam.pth", True),
        ("origin: 'file:data/'", "file:///lab/data/", "", "models/x", False),
        ("origin: 'file:../w.bin'", "file:///w.bin", "", "models/x/w.bin", True),
        ("origin: 'file:///srv/w.bin'", "file:///srv/w.bin", "", "models/x/w.bin", True),
        ("origin: 's3://bucket/a/'", "s3://bucket/a/", "", "models/x", False),
        ("origin: 's3://bucket/a.zip'", "s3://bucket/a.zip", "", "models/x/a.zip", True),
        ("origin: 'gs://bucket/a.zip'", "gs://bucket/a.zip", "", "models/x/a.zip", True),
    ],
)  # fmt: skip
def test_origins_as_written(keys: str, origin: str, revision: str, path: str, is_file: bool) -> None:
    artifact = one("models", keys)
    assert (artifact.origin, artifact.revision) == (origin, revision)
    assert (artifact.path, artifact.is_file) == (path, is_file)


def test_a_relative_file_origin_is_equal_on_every_machine_in_its_written_form() -> None:
    here = one("models", "origin: 'file:data/'")
    there = parse_manifest(f"{HEAD}models:\n  x: {{origin: 'file:data/'}}\n", Path("/else/labsync.yaml"))
    assert here.written == there.artifacts[0].written == "file:data/"
    assert here.origin != there.artifacts[0].origin


def test_only_s3_origins_stay_out_of_the_mirror_by_default() -> None:
    assert not one("datasets", "origin: 's3://bucket/a/'").mirror
    assert one("datasets", "origin: 's3://bucket/a/', mirror: true").mirror
    assert one("datasets", "origin: 'gs://bucket/a/'").mirror
    assert not one("datasets", "origin: hf://datasets/a/b, mirror: false").mirror


def test_all_keys_of_a_made_checkpoint_and_of_a_library() -> None:
    made = one("checkpoints", "path: ./out/, include: ['*.pt'], exclude: ['tmp/'], keep: 3, complete: DONE")
    assert made.is_made
    assert (made.path, made.keep, made.complete) == ("out", 3, "DONE")
    assert made.filter == Filter(("*.pt",), ("tmp/",))
    library = one("libraries", "origin: 'git+file:r', install: true, history: true")
    assert library.install
    assert library.history


def test_all_keys_of_a_smoke_test() -> None:
    smoke = one(
        "models",
        "origin: hf://a/b, smoke: {task: python, function: 'pkg.mod:check', dtype: float16, device: cuda:0, "
        "timeout: 90s, max_new_tokens: 8, max_pixels: 1000, trust_remote_code: " + COMMIT + ", "
        "inputs: {image: a.jpg, points: [[400, 250.5]], video: v.mp4, prompt: Say yes.}}",
    ).smoke
    assert smoke is not None
    assert (smoke.task, smoke.function, smoke.dtype, smoke.device) == (
        "python", "pkg.mod:check", "float16", "cuda:0",
    )  # fmt: skip
    assert (smoke.timeout, smoke.max_new_tokens, smoke.max_pixels) == (90.0, 8, 1000)
    assert smoke.trust_remote_code == COMMIT
    assert smoke.inputs.points == ((400.0, 250.5),)
    assert (smoke.inputs.image, smoke.inputs.video, smoke.inputs.prompt) == ("a.jpg", "v.mp4", "Say yes.")


def test_fallbacks_and_groups_are_resolved_to_full_names() -> None:
    manifest = parse(
        "groups: {g: [big, 'results/*'], all: [checkpoints]}\n"
        "checkpoints:\n"
        "  big: {smoke: {task: segment-anything, fallback: [small]}}\n"
        "  small: {}\n"
        "results: {runs: {path: outputs}}\n"
    )
    smoke = manifest.by_name["checkpoints/big"].smoke
    assert smoke is not None
    assert smoke.fallback == ("checkpoints/small",)
    assert manifest.groups == {
        "g": ("checkpoints/big", "results/runs"),
        "all": ("checkpoints/big", "checkpoints/small"),
    }


def test_environment_defaults() -> None:
    spec = parse("environment: {name: gpu, spec: envs/gpu.yaml, target: {__cuda: '12.4'}}\n").environment
    assert spec is not None
    assert (spec.manager, spec.lock, spec.kernel) == ("conda", "envs/gpu.lock.yaml", "Python (gpu)")
    assert spec.target == (("__cuda", "12.4"),)
    bare = parse("environment: {name: e, manager: venv, inherit: true}\n").environment
    assert bare is not None
    assert bare.inherit
    assert not bare.spec
    assert not bare.lock


def test_sessions_disk_and_device() -> None:
    manifest = parse(
        "session: {limit: 4h, margin: 10m}\ndisk: {reserve: 1GiB, budget: 15GB}\ndevice: cpu\nmodels:\n"
    )
    assert (manifest.session.limit, manifest.session.margin) == (14400.0, 600.0)
    assert (manifest.disk.reserve, manifest.disk.budget) == (2**30, 15 * 10**9)
    assert manifest.device == "cpu"
    assert parse("session: none\n").session.profile == "none"


def test_yaml_1_2_words_are_strings_where_a_string_is_wanted() -> None:
    assert one("results", "path: no").path == "no"
    assert one("results", "path: 0755").path == "0755"


def test_one_repository_twice_needs_two_revisions() -> None:
    two = "models:\n  a: {origin: hf://o/r@v1}\n  b: {origin: hf://o/r@v2}\n"
    assert len(parse(two).artifacts) == 2
    assert issues_of(two.replace("v2", "v1")) == (
        "labsync.yaml:5: models.b.origin: `models/a` is the same repository at the same revision",
    )


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
    parse(
        f"libraries: {{l: {{origin: 'git+ssh://git@github.com/a/b@{COMMIT}'}}}}\n"
        f"checkpoints: {{c: {{origin: 'https://h.org/hf_hub/sk-learn.pth?v=1', sha256: {SHA256}}}}}\n"
    )


def test_a_long_mapping_and_many_problems_are_read_in_reasonable_work() -> None:
    body = "results:\n" + "".join(f"  r{n}: {{path: p{n % 1500}}}\n" for n in range(3000))
    assert len(issues_of(body)) == 1500


def test_the_parser_answers_a_deep_text_without_exhausting_the_stack() -> None:
    assert "nested too deep" in issues("[" * 100_000)[0]
    assert "nested too deep" in issues("{a: " * 5_000)[-1]


def test_loading_reads_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "labsync.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode() + b"results: {r: {path: \xc3\xa9}}\r\n")
    manifest = load_manifest(path)
    assert manifest.path == path
    assert manifest.artifacts[0].path == "é"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (HEAD.encode() + b"# \xff\n", "labsync.yaml:3: is not UTF-8 text"),
        (HEAD.encode("utf-16"), "labsync.yaml:1: is not UTF-8 text"),
        (HEAD.encode() + b"#" * MAX_SIZE, "labsync.yaml:1: is larger than 1 MiB"),
    ],
)
def test_loading_refuses_what_is_not_a_text_of_sane_size(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "labsync.yaml"
    path.write_bytes(data)
    with pytest.raises(InvalidError) as caught:
        load_manifest(path)
    assert caught.value.issues[0].startswith(says)


def test_loading_names_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        load_manifest(tmp_path / "labsync.yaml")
    with pytest.raises(InvalidError, match="is a folder"):
        load_manifest(tmp_path)


def test_the_manifest_is_found_upward(tmp_path: Path) -> None:
    (tmp_path / "labsync.yaml").write_text(HEAD, "utf-8")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_manifest(inner) == tmp_path / "labsync.yaml"
    (tmp_path / "a" / "labsync.yaml").write_text(HEAD, "utf-8")
    assert find_manifest(inner) == tmp_path / "a" / "labsync.yaml"


def test_no_manifest_anywhere_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_manifest(tmp_path)
    assert "labsync init" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("3h12m", 11520), ("1h1m1s", 3661), ("0s", 0)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "m", "1m1h", "-1s", "1.5h", "1 h", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("500MB", 500_000_000), ("15 GB", 15 * 10**9), ("1GiB", 2**30), ("1.5KiB", 1536)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "1gb", "1e3MB", "-1GB", "1,5GB", "٣MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


WORDS = st.sampled_from(
    [
        "version: 1\n", "project: lab\n", "models:\n", "  a:\n", "    origin: ", "hf://o/r@main", "\n", "  ",
        "results: {r: {path: x}}\n", "groups: {", "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<: ", "!t ",
        '"', "'", "|\n", "\t", "# x\n", "---\n", "...\n", "%YAML 1.2\n", "\\x", "~", "1e5", "file:",
        "https://h/", "s3://b/", "@", "environment: {name: ", "smoke: {task: python, function: ", "git+file:",
        "points: [[1, ",
    ]
)  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=5), max_size=25).map("".join))
@example('a: "\\UFFFFFFFF"')
@example("%YAML 1.99999999999999999999\n---\na")
@example("? ? ? a")
def test_any_text_is_a_manifest_or_an_invalid_error(text: str) -> None:
    found = problems(text)
    if found is not None:
        lines = [int(issue.split(":")[1]) for issue in found]
        assert lines
        assert lines == sorted(lines)
        assert all(issue.isprintable() for issue in found)


def problems(text: str) -> tuple[str, ...] | None:
    try:
        parse_manifest(text, PATH)
    except InvalidError as error:
        return error.issues
    return None


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_no_path_ever_leaves_the_folder(text: str) -> None:
    quoted = "".join(f"\\U{ord(char):08x}" for char in text)
    try:
        (artifact,) = parse(f'results: {{r: {{path: "{quoted}"}}}}\n').artifacts
    except InvalidError:
        return
    assert not artifact.path.startswith("/")
    assert not {"", ".", ".."} & set(artifact.path.split("/"))
