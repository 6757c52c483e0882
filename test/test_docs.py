"""The documents against the program: what is written is there, what is there is written."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

TOP = pathlib.Path(__file__).parent.parent
BINARY = os.path.abspath(os.environ.get("SMTPWARP", TOP / "smtpwarp"))
PAGES = {path.name: path.read_text() for path in sorted((TOP / "man").iterdir())}
MANUAL, LOG, ROUTES = PAGES["smtpwarp.8"], PAGES["smtpwarp-log.5"], PAGES["smtpwarp-routes.5"]
README = (TOP / "README.md").read_text()
HACKING = (TOP / "HACKING.md").read_text()
C_FILES = sorted([*TOP.glob("*.c"), *TOP.glob("session/*.c"), *TOP.glob("io/*.c"), *TOP.glob("pure/*.c")])
RECORDS = "".join((TOP / name).read_text() for name in ("io/event.c", "session/record.c", "smtpwarp.c", "listener.c"))
STAT_FILES = sorted(TOP.glob("stat/*.c"))
STAT_OPTIONS = set(re.findall(r"--([a-z][a-z-]*)", subprocess.run([f"{BINARY}-stat", "--help"], capture_output=True, text=True,
                                                                     check=True).stdout))
SOURCES = "\n".join(path.read_text() for path in C_FILES)
NEEDS_MANDOC = pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
SETUP_OPTIONS = set(re.findall(r"--([a-z]+)", (TOP / "units/smtpwarp-setup").read_text().partition("usage() {")[2].partition("\n}")[0]))
OTHER_PROGRAMS = {"kill-whom", "signal", "jitless", "now", "system", "uid-owner", "syn", "reject-with", "dport", "to-ports",
                  "network", "read-only", "cap-drop", "stop-timeout", "volume", "detach", "grep", "create"}    # --now is systemctl's, and so on


def run(*arguments, **variables):
    return subprocess.run([BINARY, *arguments], env={"PATH": "/usr/bin:/bin", **variables}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20)


def make_options():
    """Options as --help has them: name -> (value, default), each None where there is none."""
    line = re.compile(r"^  --([a-z-]+)(?:, -h)?(?: (\S+(?: \S+)*))? {2,}.*?(?: \(([^() ]+)\))?$", re.M)
    return {name: (value or None, default or None) for name, value, default in line.findall(run("--help").stdout)}


def manual_options():
    """The same, as the manual has them."""
    item = re.compile(r"^\.It Fl Fl ([a-z-]+)(?: , Fl h)?(?: Ar ([^\n]+))?\n(.*?)(?=^\.(?:It|El)\b)", re.M | re.S)
    found = {}
    for name, value, text in item.findall(section("OPTIONS")):
        default = re.search(r"^Default: (\S+)\.$", text, re.M)
        assert name not in found, f"--{name} is there twice"
        found[name] = (value or None, default and default[1])
    return found


def section(name, page=MANUAL):
    return page.partition(f".Sh {name}\n")[2].partition("\n.Sh ")[0]


def rendered():
    text = subprocess.run(["mandoc", "-Tascii", "-O", "width=1000", TOP / "man/smtpwarp.8"], capture_output=True, text=True,
                          check=True).stdout
    return re.sub(".\b", "", text)


def code(markdown):
    """The lines of indented blocks and, at the place where they are, of fenced ones."""
    fenced = re.sub(r"^```sh\n(.*?)^```$", lambda block: re.sub(r"(?m)^", "    ", block[1]), markdown, flags=re.M | re.S)
    return [line[4:] for line in fenced.splitlines() if line.startswith("    ")]


# Options

def test_manual_has_every_option_and_no_other():
    assert set(manual_options()) == set(make_options())


def test_manual_has_the_groups_of_options():
    """The same options under the same titles, in the same order."""
    shown = re.findall(r"^([A-Z][\w ]+):\n((?:  .*\n)+)", run("--help").stdout, re.M)
    written = re.split(r"^\.Ss (.*)$", section("OPTIONS"), flags=re.M)[1:]
    assert [(title, re.findall(r"^  --([a-z-]+)", text, re.M)) for title, text in shown] == [
        (title, re.findall(r"^\.It Fl Fl ([a-z-]+)", text, re.M)) for title, text in zip(written[::2], written[1::2])]


def test_manual_has_the_values_and_defaults_of_options():
    assert manual_options() == make_options()


@pytest.mark.parametrize("text", [README, HACKING, *PAGES.values()], ids=["README", "HACKING", *PAGES])
def test_every_option_that_is_named_exists(text):
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text)) | set(re.findall(r"\bFl Fl ([a-z][a-z-]*)", text))
    assert named - OTHER_PROGRAMS - STAT_OPTIONS - SETUP_OPTIONS - {"name", "some-name"} <= set(make_options())


def test_manual_has_every_option_of_smtpwarp_stat():
    page = PAGES["smtpwarp-stat.8"]
    assert set(re.findall(r"\bFl Fl ([a-z][a-z-]*)", page.partition(".Sh EXAMPLES")[0])) >= STAT_OPTIONS
    assert STAT_OPTIONS | set(make_options()) >= set(re.findall(r"\bFl Fl ([a-z][a-z-]*)", page))


def test_manual_has_every_option_of_smtpwarp_setup():
    page = PAGES["smtpwarp-setup.8"]
    assert set(re.findall(r"\bFl Fl ([a-z]+)", page)) == SETUP_OPTIONS != set()
    usage = (TOP / "units/smtpwarp-setup").read_text().partition("usage() {")[2]
    assert re.findall(r"^\.It Cm (\w+)$", page, re.M) == re.findall(r"\bsmtpwarp-setup (\w+)", usage.partition("\n}")[0])


def test_readme_has_the_defaults_of_limits():
    options = make_options()
    rows = re.findall(r"^\|[^|]*\| `--([a-z-]+)` \| (\d+) \|", README, re.M)
    assert len(rows) >= 5
    assert [(name, value) for name, value in rows if options[name][1] != value] == []


# Variables

def test_every_variable_that_is_named_belongs_to_an_option():
    text = README + HACKING + MANUAL + LOG + ROUTES + "".join(path.read_text() for path in (TOP / "units").iterdir())
    known = {"SMTPWARP_" + name.upper().replace("-", "_") for name in make_options()} | {"SMTPWARP_SOME_NAME"}
    known |= set(re.findall(r'"(SMTPWARP_[A-Z_]+)"', (TOP / "io/log.c").read_text()))       # fields of the journal
    named = set(re.findall(r"\bSMTPWARP_[A-Z_]+\b", text))
    assert "SMTPWARP_SOME_NAME" in named and named <= known


def test_every_option_is_a_variable():
    """A value that is no good is complained of, by the variable's name or, for a file or user, the option's."""
    bad = {"upstream": "x/y", "tls-ca": "/nonexistent", "hooks": "/nonexistent", "hostname": "a/b",
           "valid-recipients": "("}
    for name in set(make_options()) - {"help", "version", "tls-name", "plugins-dir"}:
        variable = "SMTPWARP_" + name.upper().replace("-", "_")
        value = bad.get(name, "no-such-value")
        result = run(*["--check"] * (name != "check"), **{variable: value})
        assert result.returncode in (64, 78), variable
        assert f"{variable}={value}:" in result.stderr or f"--{name} {value}:" in result.stderr
    for level in "verify", "verify-if-offered":
        result = run("--check", SMTPWARP_TLS=level)
        assert result.returncode == 78 and f"--tls {level} needs a name" in result.stderr
    assert run("--check", SMTPWARP_TLS="verify", SMTPWARP_TLS_NAME="mx.example").returncode == 0


def test_command_line_wins_over_the_variable():
    assert run("--check", SMTPWARP_TLS="nonsense").returncode == 64
    assert run("--check", "--tls", "none", SMTPWARP_TLS="nonsense").returncode == 0


def test_environment_has_switches_lists_and_empty_variables():
    """As ENVIRONMENT says."""
    for word in ("yes", "true", "1", "no", "false", "0"):
        assert word in section("ENVIRONMENT") and run("--check", SMTPWARP_VERBOSE=word).returncode == 0
    assert run("--check", SMTPWARP_LISTEN="127.0.0.1:1, [::1]:2 *:3").returncode == 0
    assert run("--check", SMTPWARP_TLS="").returncode == 0


def test_exit_codes_are_in_the_manual():
    names = {"EX_OK": 0, "EX_USAGE": 64, "EX_OSERR": 71, "EX_CONFIG": 78, "EX_TEMPFAIL": 75, "EX_SOFTWARE": 70}
    used = {names[name] for name in re.findall(r"\bEX_[A-Z]+\b", SOURCES)}
    assert used == {int(code) for code in re.findall(r"^\.It (\d+)$", section("EXIT STATUS"), re.M)}


# The log

def written_fields():
    """Names that record.c gives to members: the string right behind the JSON object's name."""
    return set(re.findall(r'\b(?!begin_record\b)\w+\(&?j, "([a-z_]+)"', RECORDS))


def named_fields():
    items = re.findall(r"^\.(?:It )?Va (.*)$", LOG, re.M)
    return {name for item in items for name in re.findall(r"[a-z_]+", item)}


def test_every_field_of_the_log_is_in_the_manual():
    """But for those that only hooks get, which smtpwarp-hooks(7) has."""
    assert len(written_fields()) > 40
    assert written_fields() - named_fields() == {"message"}


def test_manual_names_no_other_fields():
    assert named_fields() - written_fields() == set()


def test_every_event_is_in_the_manual():
    events = set(re.findall(r'\b(?:common|begin_record)\(&j, (?:s, )?"([a-z]+)"', RECORDS))
    assert events == set(re.findall(r"^\.Ss ([a-z]+)$", section("EVENTS", LOG), re.M))


def test_every_direction_is_in_the_manual():
    marks = set(re.findall(r'"(->|<-|>\||<\||\|>|\|<|--)"', SOURCES))
    assert marks == set(re.findall(r"^\.It Li (\S\S)$", section("EVENTS", LOG), re.M))


# Replies

@NEEDS_MANDOC
def test_every_reply_of_its_own_is_in_the_manual():
    replies = set(re.findall(r'"(\d{3} \d\.\d+\.\d+)\b', SOURCES))
    failures = re.findall(r'(?:server_failed|tell_failure)\(s, "([\d.]+)"', SOURCES)
    assert failures
    replies |= {f"{code} {enhanced}" for enhanced in failures for code in (421, 451)}
    assert len(replies) > 20
    text = rendered()
    assert [reply for reply in sorted(replies) if reply not in text] == []


@NEEDS_MANDOC
def test_every_keyword_of_ehlo_is_in_the_manual():
    table = re.search(r"keywords\[\] = \{\n(.*?)\n\};", (TOP / "smtp.c").read_text(), re.S)[1]
    keywords = {word for word in re.findall(r'\{ "([A-Z0-9-]+)"', table)}
    assert len(keywords) > 15
    assert keywords - set(re.findall(r"[A-Z0-9-]+", rendered())) == set()


# The documents themselves

@NEEDS_MANDOC
@pytest.mark.parametrize("name", PAGES)
def test_manual_is_clean_mdoc(name):
    lint = subprocess.run(["mandoc", "-Tlint", "-W", "warning", TOP / "man" / name], capture_output=True, text=True)
    assert (lint.stdout, lint.stderr, lint.returncode) == ("", "", 0)


@pytest.mark.parametrize("name, sections", [
    ("smtpwarp.8", "NAME, SYNOPSIS, DESCRIPTION, STARTING, OPTIONS, DESTINATION, TLS, SESSION, SIGNALS, CONTAINERS, ENVIRONMENT, FILES, EXIT STATUS,"
                   " EXAMPLES, DIAGNOSTICS, SEE ALSO, STANDARDS, CAVEATS, SECURITY CONSIDERATIONS"),
    ("smtpwarp-log.5", "NAME, DESCRIPTION, FIELDS OF EVERY RECORD, EVENTS, EXAMPLES, DIAGNOSTICS, SEE ALSO, STANDARDS,"
                       " SECURITY CONSIDERATIONS"),
    ("smtpwarp-routes.5", "NAME, DESCRIPTION, FILES, DIAGNOSTICS, SEE ALSO"),
    ("smtpwarp-setup.8", "NAME, SYNOPSIS, DESCRIPTION, FILES, EXIT STATUS, SEE ALSO, CAVEATS"),
    ("smtpwarp-stat.8", "NAME, SYNOPSIS, DESCRIPTION, AN MX SLOWS DOWN: WHAT YOU SEE, EXIT STATUS, EXAMPLES, SEE ALSO")])
def test_manual_has_its_sections(name, sections):
    assert re.findall(r"^\.Sh (.*)$", PAGES[name], re.M) == sections.split(", ")


@pytest.mark.parametrize("name", PAGES)
def test_manuals_lead_to_each_other(name):
    """Each sees all others, and names no page of ours that is not there."""
    pages = {tuple(other.split(".")) for other in PAGES}
    linked = set(re.findall(r"^\.Xr (smtpwarp\S*) (\d)", section("SEE ALSO", PAGES[name]), re.M))
    assert linked == pages - {tuple(name.split("."))}
    assert set(re.findall(r"^\.Xr (smtpwarp\S*) (\d)", PAGES[name], re.M)) <= pages
    assert set(re.findall(r"\b(smtpwarp[\w-]*)\((\d)\)", README + HACKING + (TOP / "MIGRATING.md").read_text())) <= pages


def test_sections_that_are_referred_to_exist():
    """.Sx within a page."""
    for name, page in PAGES.items():
        heads = set(re.findall(r"^\.S[hs] (.*)$", page, re.M))
        named = set(re.findall(r"\bSx ([A-Za-z -]+?)(?: [.,;:()]|$)", page, re.M))
        assert named <= heads, name


def test_log_has_the_example_of_a_query(tmp_path):
    """What it shows for jq(1) finds the records that it says."""
    command = re.search(r"^\.Dl (jq .*)$", LOG, re.M)[1].replace("\\(dq", '"')
    sample = (TOP / "hooks/sample/log.jsonl").read_text()
    rejected = [line.replace('"accepted"', '"rejected"') for line in sample.splitlines() if '"event":"message"' in line]
    (tmp_path / "log").write_text(sample + "".join(line + "\n" for line in rejected))
    shown = subprocess.run(["sh", "-c", command.replace("/var/log/smtpwarp/log", str(tmp_path / "log"))], capture_output=True,
                           text=True, check=True).stdout
    assert [json.loads(line)["result"] for line in shown.splitlines()] == ["rejected"]


def test_routes_of_the_manual_pass_the_check(tmp_path):
    """The page's example and that of units/."""
    example = re.search(r"^\.Bd -literal -offset indent\n(pattern;.*?)\.Ed$", ROUTES, re.M | re.S)[1].replace("\\&", "")
    for text in example, (TOP / "units/routes.example").read_text():
        (tmp_path / "routes").write_text(text)
        result = run("--check", "--listen", "127.0.0.1:1", "--routes", str(tmp_path / "routes"))
        assert (result.returncode, result.stderr) == (0, "")


def test_readme_leads_with_the_two_commands():
    assert [line.partition("#")[0].strip() for line in code(README)[:2]] == ["make demo", "make test"]
    assert README.index("make demo") < README.index("\n## ")


def test_readme_says_first_what_it_is_then_shows_it():
    """A sentence, two commands, a picture of four lines, a line of the log, four commands to install it and see a log, before anything else."""
    first = README.partition("\n## ")[0]
    assert first.splitlines()[2].startswith("smtpwarp is ") and len(first.splitlines()) <= 44
    lines = code(first)[2:]
    assert re.match(r"\| .*firewall.*smtpwarp", lines[1]) and lines[4].startswith("{")
    end = next(i for i, line in enumerate(lines) if line.endswith("}"))
    assert json.loads("".join(lines[4:end + 1]))["event"] == "message"
    commands = [line.partition("  ")[0] for line in lines[end + 1:]]
    assert len(commands) == 4 and commands[1:3] == ["make install", "smtpwarp-setup on"]


def test_commands_of_readme_are_make_targets():
    makefile = (TOP / "Makefile").read_text()
    text = (README + HACKING).replace("$(uname -r)", "6.1")
    lines = [line for line in code(text) if re.match(r"make\b", line)] + re.findall(r"`(make [^`]+)`", text)
    commands = [shlex.split(command)[1:] for line in lines for command in line.partition("#")[0].split("&&") if "make" in command]
    words = {word for command in commands for word in command}
    assert {"demo", "test", "bench", "fuzz", "asan", "hooks", "install", "CC=gcc"} <= words
    for word in words:
        name = word.partition("=")[0]
        if "build/test/unit_" in word:
            assert (TOP / "test/unit" / f"{word.rpartition('unit_')[2]}.c").exists(), word
        else:
            assert re.search(rf"^{name} *=|\$\({name}\)" if "=" in word else rf"^{name}:", makefile, re.M), f"make {word}"


@pytest.mark.parametrize("text", [README, MANUAL], ids=["README.md", "man/smtpwarp.8"])
def test_files_that_are_named_exist(text):
    named = set(re.findall(r"\bunits/([\w@.-]+\w)", text)) | set(re.findall(r"`((?:nftables|iptables)-[\w.-]+)`", text))
    assert named and [name for name in named if not (TOP / "units" / name).exists()] == []


def test_map_has_every_box_and_every_source_file():
    """And nothing else: HACKING.md, whose first table has the boxes, its second the files of folders."""
    boxes, files = [re.findall(r"^\| (`[^|]+) \|", table, re.M) for table in re.split(r"Where to find what", HACKING)]
    boxes = {name for cell in boxes for name in re.findall(r"`([^`]+)`", cell)}
    files = [name.strip("`") for name in files]
    assert boxes == {path.name for path in C_FILES if path.parent == TOP} | {
        "session/", "io/", "pure/", "stat/", "hooks/", "units/", "rules/", "initramfs/", "containers/", "debian/", "test/"}
    assert sorted(files) == sorted(str(path.relative_to(TOP)) for path in C_FILES + STAT_FILES if path.parent != TOP)


def test_files_that_the_map_names_exist():
    named = set(re.findall(r"`((?:man|test|hooks|pure|io|session|lib|units)/[\w./-]+)`", HACKING))
    named = {name for name in named if "NAME" not in name}
    assert len(named) > 30
    assert [name for name in sorted(named) if not (TOP / name).exists() and not (TOP / "test" / name).exists()] == []


def examples(page):
    """Command lines of a manual that start smtpwarp, in displays of one line or of many."""
    shown = re.findall(r"^\.Dl (.*)$", page, re.M)
    shown += "".join(re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", page, re.M)).replace("\\e\n", "").splitlines()
    return [line for line in shown if re.match(r"smtpwarp .*--(listen|check)\b", line)]


@pytest.mark.parametrize("text", [code(README.replace(" \\\n       ", "")), examples(MANUAL)], ids=["README.md", "man/smtpwarp.8"])
def test_examples_of_smtpwarp_pass_its_check(text, certs, tmp_path):
    """Command lines that start it, without a warning; but for --user, whose name may not be there, and for the name server, which may not
    validate here; and with files and folders that are."""
    lines = [line for line in text if line.startswith("smtpwarp ")]
    cert, key = certs.pair("good")
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(pathlib.Path(key).read_bytes())
    files = {"fullchain.pem": cert, "privkey.pem": tmp_path / "key", "smtpwarp.conf": TOP / "units/smtpwarp.conf"}
    assert len(lines) >= 2
    for line in lines:
        line = line.replace("--user smtpwarp", "").replace("file:/var/log/smtpwarp", f"file:{tmp_path}").removesuffix(" &")
        words = shlex.split(line)[1:]
        words = [str(files[os.path.basename(word)]) if word.startswith("/etc/") else word for word in words]
        result = run("--check", *words)
        assert result.returncode == 0, line
        assert re.sub("smtpwarp: warning: DANE: .*\n", "", result.stderr) == "", line


def test_manuals_but_one_start_nothing():
    """Else their lines would have to pass the check, too."""
    assert [name for name, page in PAGES.items() if examples(page)] == ["smtpwarp.8"]


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
@pytest.mark.parametrize("address, verdict", [("Bob@OLD.example", "reject 550 5.1.2 That domain is no more\n"),
                                              ("bob@new.example", "")])
def test_hook_of_readme_decides_as_it_says(address, verdict):
    lines = code(README)
    begin = lines.index("#!/bin/sh")
    script = "\n".join(lines[begin:begin + 5])
    sample = json.loads((TOP / "hooks/sample/rcpt.json").read_text())
    sample["rcpt"]["address"] = address
    done = subprocess.run(["sh", "-c", script], input=json.dumps(sample), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (verdict, "")


def test_nftables_rule_is_the_one_of_units():
    """What README and manual show is in units/nftables-output.nft, but for blanks and comments."""
    def rule(text):
        found = re.search(r"^[ \t]*(table inet smtpwarp_output \{.*?\n[ \t]*\}\n[ \t]*\})", text, re.M | re.S)[1]
        return [line.strip() for line in found.splitlines() if not line.strip().startswith("#")]
    assert rule(README) == rule(MANUAL) == rule((TOP / "units" / "nftables-output.nft").read_text())


def test_license():
    text = (TOP / "LICENSE").read_text()
    assert text.startswith("ISC License\n") and "Copyright (c) 2026 the smtpwarp authors" in text
