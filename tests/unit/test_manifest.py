"""The manifest parser: what it accepts, what it makes of it, and that no text can break it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labsync.errors import ExitCode, InvalidError, NotFoundError
from labsync.filters import Filter
from labsync.manifest import (
    find_manifest,
    load_manifest,
    parse_manifest,
)
from labsync.manifest.model import Artifact, Manifest
from labsync.manifest.parse import MAX_SIZE

PATH = Path("/lab/labsync.yaml")
HEAD = "version: 1\nproject: lab\n"
COMMIT = "dca509fe793f601edb92606367a655c15ac00fdf"


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


def test_a_long_mapping_and_many_problems_are_read_in_reasonable_work() -> None:
    body = "results:\n" + "".join(f"  r{n}: {{path: p{n % 1500}}}\n" for n in range(3000))
    assert len(issues_of(body)) == 1500


@pytest.mark.fault(79)
def test_the_parser_answers_a_deep_text_without_exhausting_the_stack() -> None:
    assert "nested too deep" in issues("[" * 100_000)[0]
    assert "nested too deep" in issues("{a: " * 5_000)[-1]


def test_loading_reads_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "labsync.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode() + b"results: {r: {path: \xc3\xa9}}\r\n")
    manifest = load_manifest(path)
    assert manifest.path == path
    assert manifest.artifacts[0].path == "é"


@pytest.mark.fault(79)
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


WORDS = st.sampled_from(
    [
        "version: 1\n", "project: lab\n", "models:\n", "  a:\n", "    origin: ", "hf://o/r@main", "\n", "  ",
        "results: {r: {path: x}}\n", "groups: {", "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<: ", "!t ",
        '"', "'", "|\n", "\t", "# x\n", "---\n", "...\n", "%YAML 1.2\n", "\\x", "~", "1e5", "file:",
        "https://h/", "s3://b/", "@", "environment: {name: ", "smoke: {task: python, function: ", "git+file:",
        "points: [[1, ",
    ]
)  # fmt: skip


@pytest.mark.fault(79)
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


@pytest.mark.fault(75)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_no_path_ever_leaves_the_folder(text: str) -> None:
    quoted = "".join(f"\\U{ord(char):08x}" for char in text)
    try:
        (artifact,) = parse(f'results: {{r: {{path: "{quoted}"}}}}\n').artifacts
    except InvalidError:
        return
    assert not artifact.path.startswith("/")
    assert not {"", ".", ".."} & set(artifact.path.split("/"))
