"""The rules that ship, rules/replies.rules: each is the one that matches its sample in replies.samples."""
import collections
import pathlib
import re
import subprocess

import pytest

import building

TOP = pathlib.Path(__file__).resolve().parent.parent
RULES, SAMPLES = TOP / "rules/replies.rules", TOP / "test/replies.samples"
SHIPPED = RULES.read_text().splitlines()


def fields(lines):
    """(number, fields) of each line that holds some, from 1 on."""
    return [(number, re.split("\t+", line)) for number, line in enumerate(lines, 1) if line and line[0] != "#"]


@pytest.fixture(scope="module")
def classify():
    """classify([(stage, reply), ...], rules): the class, scope and rule's line of each; lines of a reply have LF between."""
    program = building.program("classify")

    def run(replies, rules=RULES):
        text = "".join(f"{stage}\t" + reply.replace("\n", "\\n") + "\n" for stage, reply in replies)
        done = subprocess.run([program, rules], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [(kind, scope, int(line)) for kind, scope, line in map(str.split, done.stdout.splitlines())]
    return run


def test_each_rule_has_its_sample(classify):
    rules, samples = fields(SHIPPED), [sample for _, sample in fields(SAMPLES.read_text().splitlines())]
    assert [rule[1:3] for _, rule in rules] == [sample[:2] for sample in samples]
    found = classify([("rcpt" if stage == "*" else stage.partition(",")[0], reply) for stage, _, reply in samples])
    for (number, rule), sample, (kind, scope, line) in zip(rules, samples, found):
        assert line == number, f"{sample[2]!r}: {SHIPPED[line - 1] if line else 'no rule'}, not {rule[2]}"
        assert kind == rule[3] and (len(rule) == 4 or rule[4] == f"scope={scope}")


def test_each_rule_changes_something(classify, tmp_path):
    """Without it another class or scope would come of its sample, or it stands for one that a later rule says less exactly."""
    rules, samples = fields(SHIPPED), [sample for _, sample in fields(SAMPLES.read_text().splitlines())]
    same = 0
    (tmp_path / "none").write_text("")
    bare = classify([("rcpt" if stage == "*" else stage.partition(",")[0], reply) for stage, _, reply in samples], tmp_path / "none")
    for (_, rule), (kind, scope, _) in zip(rules, bare):
        same += kind == rule[3] and (len(rule) == 4 or rule[4] == f"scope={scope}")
    print(f"{len(rules)} rules, {same} of which say what the codes of their samples say")
    assert same < len(rules) / 5


def test_groups_name_their_page():
    heads = [line for line, after in zip(SHIPPED[4:], SHIPPED[5:]) if line.startswith("# ") and after[:1] == "*"]
    assert len(heads) > 15 and all(re.search(r"https?://|manuals|pages|servers|words|\(8\)", head) for head in heads)
    assert len(set(heads)) == len(heads)


def test_lines_of_a_reply_are_one(classify):
    gmail = ("421-4.7.28 [192.0.2.1 15] Our system has detected an unusual rate of\n4.7.28 unsolicited mail originating from your IP address. "
             "To protect our\n4.7.28 users from spam, mail has been temporarily rate limited.")
    (kind, scope, line), = classify([("dot", gmail)])
    assert (kind, scope) == ("throttle", "ip") and "ip address" in SHIPPED[line - 1]


def test_ordinary_replies_have_the_class_of_their_code(classify):
    """What must not count as evidence against the address."""
    replies = {"550 5.1.1 <user@example.com>: Recipient address rejected": "unknown-user", "550 5.7.1 Rejected by policy": "policy",
               "451 4.3.0 Temporary lookup failure": "system", "452 4.2.2 Over the limit of this user": "mailbox-full",
               "554 5.6.1 Body type not supported": "other", "550 5.1.1 postmaster@spamhaus.example: User unknown": "unknown-user"}
    found = classify([("rcpt", reply) for reply in replies])
    wrong = {reply: kind for (reply, wanted), (kind, _, _) in zip(replies.items(), found) if kind != wanted}
    assert not wrong


def test_evidence_is_of_the_address(classify):
    """throttle, blocklist and reputation of other scope say so in the rule."""
    kinds = collections.Counter((rule[3], rule[4] if len(rule) > 4 else "") for _, rule in fields(SHIPPED))
    assert kinds["throttle", ""] > 20 and kinds["throttle", "scope=user"] >= 3 and kinds["reputation", "scope=domain"] >= 3


# ---- kumo2rules ----

def test_kumo2rules(classify, tmp_path):
    done = subprocess.run([TOP / "rules/kumo2rules", TOP / "test/kumo.toml"], capture_output=True, text=True, check=True)
    assert [rule for _, rule in fields(done.stdout.splitlines())] == [
        ["*", "*", "550 5.1.1*nobody", "unknown-user"], ["*", "*", '55#*no one "here"', "unknown-user"],
        ["*", "*", "*quota (all) of it", "mailbox-full"], ["*", "*", r"*full of \# mail", "mailbox-full"],
        ["example", "*", "*[TS0#] slow", "throttle"],
        ["*", "*", "*421 too*many", "throttle"], ["*", "*", r"*451 later\*", "throttle"]]
    assert re.findall(r"not converted: (.*)", done.stdout) == ["^550 what", "^550.+(one|other)", r"^5\.5\.0.+listed", "^250 never", "ab+c"]
    (tmp_path / "rules").write_text(done.stdout)
    found = classify([("rcpt", "550-5.1.1 there is\n5.1.1 nobody"), ("dot", "452 full \t of # mail")], tmp_path / "rules")
    assert [kind for kind, _, _ in found] == ["unknown-user", "mailbox-full"]
