"""The inside of smtpwarp, as compilers see it: what test_house.py keeps, and figures for who works on it.

    python3 test/lib/house.py --report

Each .c file is compiled by itself, without optimization, for its symbols (nm), and parsed by clang for its syntax tree. What is
found out about a file is kept in build/house until it, or a header that it includes, changes. All of it is exact but for
pointers: where one to a part goes by way of a variable, the place where the variable gets it counts as the write.
"""
import collections
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

FLAGS = ["-std=c11", "-w", "-I.", '-DSMTPWARP_VERSION="0"', '-DOPTIONS_PLUGINS="/"', *(
    flag for place in ("/usr/include/bearssl", "/usr/local/include/bearssl") if os.path.isdir(place) for flag in ("-isystem", place))]
FUNCTION_LINES = 49
SESSION_FUNCTIONS = 3  # that session.h may declare

# What stands on what, the lowest floor first.
FLOORS = [("smtp.c", "smtp.h", "pure/"), ("io/",), ("tls.c", "tls.h", "hooks.c", "hooks.h"), ("session/",),
          ("loaded.c", "loaded.h", "listener.c", "listener.h", "upgrade.c", "upgrade.h"), ("smtpwarp.c",), ("stat/",)]
STAT = len(FLOORS) - 1  # a program of its own: it knows the two lowest floors only

# What the lowest floor may include of the system's: the language, text, types of addresses, the order of octets.
PURE_HEADERS = set("""arpa/inet.h assert.h ctype.h emmintrin.h endian.h inttypes.h limits.h netinet/in.h stdarg.h stdbool.h
    stddef.h stdint.h stdio.h stdlib.h string.h strings.h sys/socket.h sys/un.h sysexits.h""".split())
# And what it may call of the C library: octets and text in memory, nothing of the world outside. No errno.
PURE_FUNCTIONS = re.compile(r"""(mem|str(?!error|signal|ftime|ptime))\w+ | explicit_bzero | v?sn?printf | (__isoc\d+_)?(sscanf|strto\w+)
    | (is|to)(alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit) | __ctype_\w+_loc | qsort | bsearch | free
    | [hn]to[nh][sl] | inet_(pton|ntop) | abort | __assert_fail | __stack_chk_fail""", re.X)

# Structs whose members only these files write, wherever they are reached from. A pointer to one may go anywhere.
OWNED = {"dialogue": "pure/dialogue.c", "dialogue_transaction": "pure/dialogue.c", "dialogue_mailbox": "pure/dialogue.c",
         "dialogue_decision": "pure/dialogue.c", "dialogue_pending": "pure/dialogue.c", "leg": "session/leg.c",
         "buffer": "session/leg.c", "tls": "tls.c", "hook_run": "hooks.c"}


def floor(path):
    for number, places in enumerate(FLOORS):
        if any(path == place or place.endswith("/") and path.startswith(place) for place in places):
            return number
    return None


# ---- one file: facts ----

def above(name, path):
    """Whether what stands at `name` is nothing that `path` may know."""
    return floor(name) > floor(path) or floor(path) == STAT and 1 < floor(name) < STAT


def digest(path):
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def pointee(kind):
    """What a pointer of this type may be used to write to, or None."""
    target = re.sub(r"\b(const|volatile|restrict|__restrict)$", "", kind.strip()).strip()
    target = re.sub(r" \(\*\)\[.*", " *", target)  # to an array
    if not target.endswith("*") or "(*" in target:
        return None
    target = target[:-1].strip()
    if target.endswith("const") or "*" not in target and re.search(r"\bconst\b", target):
        return None
    return target


def record_of(kind):
    """The tag of a struct or union type, a place for one without a tag; "": it is neither."""
    kind = re.sub(r"\b(const|volatile) ", "", kind or "")
    unnamed = re.search(r"\((?:unnamed|anonymous)[^)]* at (?:\./)?([^)]*)\)", kind)
    named = re.fullmatch(r"(?:struct|union) (\w+)", kind)
    return unnamed[1] if unnamed else named[1] if named else ""


def type_of(node):
    kind = node.get("type", {})
    return kind.get("desugaredQualType") or kind.get("qualType", "")


class Tree:
    """The facts of one file, from clang's syntax tree."""

    def __init__(self, source, text):
        self.file, self.line = "", 0
        self.fields = {}
        self.texts = {}
        self.facts = {"functions": [], "declares": [], "records": {}, "writes": []}
        for node in json.loads(text, object_hook=self.place)["inner"]:
            where = node.get("loc", {})
            where = where.get("expansionLoc", where)
            self.top(node, where.get("file", ""), where.get("line", 0))

    def place(self, node):
        """Locations leave out what is the same in the one before."""
        if "offset" in node:
            if "file" in node:
                self.file = os.path.normpath(node["file"])
            node["file"] = self.file
            self.line = node["line"] = node.get("line", self.line)
        return node

    def top(self, node, file, line):
        ours = not file.startswith("/")
        kind = node["kind"]
        if kind == "RecordDecl":
            self.record(node, file, line, ours)
        if not ours:
            return
        body = kind == "FunctionDecl" and any(part["kind"] == "CompoundStmt" for part in node.get("inner", ()))
        if body or kind == "VarDecl" and node.get("init"):
            self.now = {"name": node["name"], "file": file, "line": line, "static": node.get("storageClass") == "static",
                        "function": body}
            self.refs, self.macros, self.tables = set(), set(), {}
            self.walk(node)
            used = self.macros.union(*(macros for name, macros in self.tables.items() if name in self.refs or not body))
            self.facts["functions"].append({**self.now, "refs": sorted(self.refs), "macros": sorted(used)})
        if kind in ("FunctionDecl", "VarDecl") or kind in ("RecordDecl", "EnumDecl") and node.get("inner"):
            self.facts["declares"].append([file, kind, node.get("name", "")])

    def record(self, node, file, line, ours):
        where = node.get("loc", {})
        where = where.get("expansionLoc", where)
        name = node.get("name") or f"{file}:{line}:{where.get('col')}"
        fields = []
        for part in node.get("inner", ()):
            if part["kind"] == "RecordDecl":
                inner = part["loc"].get("expansionLoc", part["loc"])
                self.record(part, inner.get("file", file), inner.get("line", 0), ours)
            elif part["kind"] == "FieldDecl":
                self.fields[part["id"]] = f"{name}.{part.get('name', '')}"
                fields.append([part.get("name", ""), type_of(part)])
        if ours and fields:
            self.facts["records"][name] = {"file": file, "fields": fields}

    # -- what an expression leads to: lists of STRUCT.MEMBER, from the outermost on --

    def object(self, node):
        """Of an lvalue."""
        kind, inner = node["kind"], node.get("inner", [])
        if kind == "MemberExpr":
            step = self.fields.get(node.get("referencedMemberDecl"), "?." + node.get("name", ""))
            return [way + [step] for way in (self.target if node.get("isArrow") else self.object)(inner[0])]
        if kind == "ArraySubscriptExpr":
            return self.target(inner[0] if pointerish(inner[0]) else inner[1])
        if kind == "UnaryOperator" and node["opcode"] == "*":
            return self.target(inner[0])
        if kind in ("ParenExpr", "ImplicitCastExpr", "CStyleCastExpr"):
            return self.object(inner[0])
        return [[]]

    def target(self, node):
        """Of what a pointer points to."""
        kind, inner = node["kind"], node.get("inner", [])
        if kind in ("ImplicitCastExpr", "CStyleCastExpr"):
            lvalue = node.get("castKind") in ("ArrayToPointerDecay", "LValueToRValue")
            return (self.object if lvalue else self.target)(inner[0])
        if kind == "ParenExpr":
            return self.target(inner[0])
        if kind == "UnaryOperator" and node["opcode"] in ("&", "++", "--"):
            return self.object(inner[0])
        if kind == "ConditionalOperator":
            return self.target(inner[1]) + self.target(inner[2])
        if kind == "BinaryConditionalOperator":
            return [way for part in inner for way in self.target(part)]
        if kind == "BinaryOperator" and node["opcode"] in ("+", "-", ",", "="):
            return self.target(inner[0] if node["opcode"] in "+-" and pointerish(inner[0]) else inner[1])
        return [[]]

    # -- writes --

    def note(self, node, ways, how, whole="", **more):
        where = node["range"]["begin"]
        for way in ways:
            if whole:
                way = way + [whole + ".*"]
            if way:
                self.facts["writes"].append({"file": self.now["file"], "function": self.now["name"], "how": how, "way": way,
                                             "line": where.get("expansionLoc", where).get("line", 0), **more})

    def assigned(self, node, lvalue):
        self.note(node, self.object(lvalue), "assigns", record_of(type_of(lvalue)), type=type_of(lvalue))

    def lent(self, node, how, to=""):
        """A pointer goes somewhere: what it leads to may be written there, unless it is one to const."""
        kind = pointee(type_of(node))
        if kind is None:
            return
        core = node
        while core["kind"] in ("ParenExpr", "CStyleCastExpr") or core["kind"] == "ImplicitCastExpr" and \
                core.get("castKind") in ("BitCast", "NoOp"):
            core = core["inner"][0]
        own = record_of(re.sub(r" ?\*$", "", type_of(core)))
        as_record = record_of(kind)
        self.note(node, self.target(node), how, own if not as_record else "", to=to, record=as_record)

    def called(self, node, callee, arguments):
        name = next((part["referencedDecl"]["name"] for part in descend(callee) if part["kind"] == "DeclRefExpr"), "")
        kind = type_of(callee)
        fixed = len(arguments)
        if "..." in kind and "scanf" not in name:  # what printf(3) is given is read
            fixed = kind[kind.rindex("(") + 1:].count(",")
        for argument in arguments[:fixed]:
            self.lent(argument, "passes", name)

    def walk(self, node):
        kind, inner = node["kind"], [part for part in node.get("inner", ()) if part.get("kind")]
        self.mark(node)
        if kind == "UnaryExprOrTypeTraitExpr":
            return
        if kind == "CompoundAssignOperator" or kind == "BinaryOperator" and node["opcode"] == "=":
            self.assigned(node, inner[0])
            if kind == "BinaryOperator":
                self.lent(inner[1], "keeps")
        elif kind == "UnaryOperator" and node["opcode"] in ("++", "--"):
            self.assigned(node, inner[0])
        elif kind == "CallExpr":
            self.called(node, inner[0], inner[1:])
        elif kind == "VarDecl" and node.get("init"):
            self.lent(inner[-1], "keeps")
        elif kind == "InitListExpr":
            for part in inner:
                self.lent(part, "keeps")
        elif kind == "ReturnStmt" and inner:
            self.lent(inner[0], "returns")
        outside = self.macros
        if kind == "VarDecl":  # what it is made of counts once it is used
            self.macros = self.tables.setdefault(node["name"], set())
        for part in inner:
            self.walk(part)
        self.macros = outside

    def mark(self, node):
        """What the function at hand refers to, and which macros it is made of."""
        if node["kind"] == "DeclRefExpr":
            self.refs.add(node["referencedDecl"]["name"])
        where = node.get("range", {}).get("begin", {}).get("expansionLoc")
        if where and not where["file"].startswith("/"):
            if where["file"] not in self.texts:
                self.texts[where["file"]] = pathlib.Path(where["file"]).read_bytes()
            at = where["offset"]
            self.macros.add(self.texts[where["file"]][at:at + where["tokLen"]].decode())


def pointerish(node):
    return type_of(node).rstrip().endswith(("*", "]", "const", "restrict"))


def descend(node):
    yield node
    for part in node.get("inner", ()):
        yield from descend(part)


def examine(source):
    """The facts of one file, in the tree that is the current directory."""
    made = pathlib.Path("build/house", source).with_suffix("")
    made.parent.mkdir(parents=True, exist_ok=True)
    facts = {"error": "", "defines": [], "needs": [], "functions": [], "declares": [], "records": {}, "writes": []}
    compiled = subprocess.run(["gcc", *FLAGS, "-O0", "-c", "-MMD", "-MF", f"{made}.d", "-o", f"{made}.o", source],
                              capture_output=True, text=True)
    parsed = subprocess.run(["clang", *FLAGS, "-D__SANITIZE_ADDRESS__=1", "-fsyntax-only", "-Xclang", "-ast-dump=json", source],
                            capture_output=True, text=True)
    if compiled.returncode or parsed.returncode:
        facts["error"] = next((line for line in (compiled.stderr + parsed.stderr).split("\n") if "error: " in line), "not compiled")
        needed = []
    else:
        needed = [os.path.normpath(name) for name in pathlib.Path(f"{made}.d").read_text().replace("\\\n", " ").split()[1:]]
        facts.update(Tree(source, parsed.stdout).facts)
        for line in subprocess.run(["nm", "-P", f"{made}.o"], capture_output=True, text=True, check=True).stdout.splitlines():
            name, kind = line.split()[:2]
            if kind in "TDBRVWC":
                facts["defines"].append(name)
            elif kind in "Uwv":
                facts["needs"].append(name)
    facts["made_of"] = {name: digest(name) for name in [os.path.abspath(__file__), *needed]}
    pathlib.Path(f"{made}.json").write_text(json.dumps(facts))


def known(root, source):
    """The facts of one file if they are there and still true."""
    try:
        facts = json.loads((root / "build/house" / source).with_suffix(".json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    fresh = not facts["error"] and all(digest(root / name) == known for name, known in facts["made_of"].items())
    return facts if fresh else None


def gather(root):
    """Facts of all files, by file."""
    (root / "build/house").mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(root)) for place in (".", "session", "io", "pure", "stat") for path in (root / place).glob("*.c"))
    with open(root / "build/house/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stale = [source for source in sources if not known(root, source)]
        share = os.cpu_count() or 1
        jobs = [subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), "--examine", *stale[start::share]], cwd=root)
                for start in range(min(share, len(stale)))]
        if any([job.wait() for job in jobs]):
            raise RuntimeError("a file could not be examined")
        return {source: json.loads((root / "build/house" / source).with_suffix(".json").read_text()) for source in sources}


# ---- all files: rules ----

class House:
    def __init__(self, root, states=None):
        """states: {path of a member from struct session: (file, function that writes it, X-macro of its legal transitions)}"""
        self.root = pathlib.Path(root)
        self.states = states or {}
        self.facts = gather(self.root)
        self.writes = self._unique("writes", ("file", "line", "way", "how", "to"))
        self.functions = self._unique("functions", ("file", "line", "name"))
        self.records = {name: record for facts in self.facts.values() for name, record in facts["records"].items()}
        self.declares = sorted({tuple(entry) for facts in self.facts.values() for entry in facts["declares"]})
        self.static = {(entry["file"], entry["name"]) for entry in self.functions if entry["static"]}
        self.home = {name: source for source, facts in self.facts.items() for name in facts["defines"]}
        self.arrows = collections.defaultdict(lambda: collections.defaultdict(list))
        for source, facts in self.facts.items():
            for name in facts["needs"]:
                if self.home.get(name, source) != source:
                    self.arrows[source][self.home[name]].append(name)

    def _unique(self, key, by):
        """Headers are parsed with every file that includes them."""
        found = {}
        for facts in self.facts.values():
            for entry in facts[key]:
                found.setdefault(tuple(str(entry.get(name)) for name in by), entry)
        return list(found.values())

    def text(self, path):
        try:
            return (self.root / path).read_text()
        except FileNotFoundError:
            return ""

    @functools.cached_property
    def files(self):
        """Our .c and .h files, without hooks and tests."""
        return sorted(str(path.relative_to(self.root)) for place in (".", "session", "io", "pure", "stat")
                      for path in (self.root / place).glob("*.[ch]"))

    # -- folders --

    def compiles(self):
        return [f"{source}: {facts['error']}" for source, facts in self.facts.items() if facts["error"]]

    def includes(self):
        """A file includes only what stands on its own floor or below."""
        found = []
        for path in self.files:
            if floor(path) is None:
                found.append(f"{path} stands on no floor")
                continue
            for bracket, name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)', self.text(path), re.M):
                if bracket == "<":
                    wrong = floor(path) == 0 and name not in PURE_HEADERS
                else:
                    wrong = floor(name) is None or above(name, path) or \
                        floor(path) > 3 and floor(name) == 3 and name != "session/session.h"
                if wrong:
                    found.append(f"{path} includes {name}")
        return found

    def pure(self):
        """The lowest floor calls nothing of the system's."""
        return [f"{source} uses {name}" for source, facts in self.facts.items() if floor(source) == 0
                for name in facts["needs"] if name not in self.home and not PURE_FUNCTIONS.fullmatch(name)]

    def upward(self):
        """Calls go down from floor to floor."""
        return [f"{source} uses {', '.join(names)} of {target}" for source, targets in self.arrows.items()
                for target, names in targets.items() if floor(source) is not None and floor(target) is not None and above(target, source)]

    def circles(self):
        """No files that need each other: one finding for each file of a circle."""
        return [f"{source} is in a circle: " + "; ".join(
                    f"{target} for {', '.join(names)}" for target, names in sorted(self.arrows[source].items()) if target in circle)
                for circle in self.rings() for source in circle]

    def reach(self, source):
        """What must be linked when this file is."""
        seen, todo = set(), [source]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += self.arrows[at] if at in self.arrows else []
        return seen

    def rings(self):
        """Strongly connected files, by what each reaches."""
        reach = {source: self.reach(source) for source in self.facts}
        rings = {frozenset(other for other in reach[source] if source in reach[other]) for source in reach}
        return sorted(sorted(ring) for ring in rings if len(ring) > 1)

    # -- parts --

    @functools.cached_property
    def members(self):
        """{STRUCT.MEMBER: the files that its comment names}, None: it names none. Of structs in session/."""
        found = {}
        for path in self.files:
            if path.startswith("session/") and path.endswith(".h"):
                for tag, body in re.findall(r"^struct (\w+) \{\n(.*?)^\}", self.text(path), re.M | re.S):
                    found |= {f"{tag}.{name}": self.named(comment) for names, comment in members(body) for name in names}
        return found

    def named(self, comment):
        """The files at the beginning of a comment: "gate.c", "gate.c, pure/dialogue.c: what it is"."""
        start = re.match(r"/\*\s*((?:[\w/]+\.c\b(?:, | and )?)+)", comment)
        names = re.findall(r"[\w/]+\.c\b", start[1]) if start else []
        return {name if "/" in name or name in self.facts else f"session/{name}" for name in names} or None

    @functools.cached_property
    def owners(self):
        """As members, with the writers of states."""
        paths = {path: self.state_path(path) for path in self.states}
        return self.members | {".".join(steps[-1]): {self.states[path][0]} for path, steps in paths.items() if steps}

    def unnamed(self):
        """Each member of struct session says who writes it."""
        parts = {member: files for member, files in self.members.items() if member.startswith("session.")}
        return ["there is no struct session"] * (not parts) + \
            [f"{member} names no file that writes it" for member, files in parts.items() if not files] + \
            [f"{member} names {name}, which is not there" for member, files in self.members.items()
             for name in sorted(files or ()) if name not in self.facts]

    def asks(self, write, owners):
        """Whether this hands a pointer to a function of the owner's, or one to a struct that is looked after by itself."""
        local = (write["file"], write.get("to")) in self.static
        return write["how"] != "assigns" and (write["record"] in OWNED or not local and self.home.get(write["to"]) in owners)

    @staticmethod
    def describe(write, step):
        return f"{write['file']}:{write['line']} {write['function']}() {write['how']} {step}" + \
            (f" to {write['to']}()" if write.get("to") else "")

    def foreign(self):
        """A part reads all and writes only its own: what is named deepest on the way counts. Nor does it return its own for
        others to write."""
        found = []
        for write in self.writes:
            owners = next((self.owners[step] for step in reversed(write["way"]) if self.owners.get(step)), None)
            own = owners and write["file"] in owners and (
                write["how"] != "returns" or (write["file"], write["function"]) in self.static)
            if owners and not own and not self.asks(write, owners):
                found.append(self.describe(write, " > ".join(write["way"])))
        return found

    def owned(self):
        """Members of structs that have an owner are written by it."""
        found = []
        for write in self.writes:
            for at, step in enumerate(write["way"]):
                owner = OWNED.get(step.split(".")[0])
                if owner and write["file"] not in (owner, owner[:-1] + "h") and not self.asks(write, {owner}):
                    found.append(self.describe(write, " > ".join(write["way"][at:])))
                    break
        return found

    # -- states --

    def state_path(self, path):
        """[(struct, member), ...] of a path from struct session; None: there is no such member."""
        record, steps = "session", []
        for name in path.split("."):
            kinds = [kind for member, kind in self.records.get(record, {"fields": []})["fields"] if member == name]
            if not kinds:
                return None
            steps.append((record, name))
            record = record_of(re.sub(r" ?\*$", "", kinds[0]))
        return steps

    def state_writers(self, steps):
        whole = {f"{record}.*" for record, _ in steps} | {".".join(steps[-1])}
        return {(write["file"], write["function"]) for write in self.writes if write["way"][-1] in whole}

    def writers(self):
        """Each state is assigned by one function."""
        found = []
        for path, (file, function, _) in self.states.items():
            steps = self.state_path(path)
            if not steps:
                found.append(f"session.{path}: there is no such member")
                continue
            writers = self.state_writers(steps)
            found += [f"session.{path} is written in {other}() of {place}" for place, other in sorted(writers - {(file, function)})]
            if (file, function) not in writers:
                found.append(f"session.{path} is not written in {function}() of {file}")
        return found

    def closure(self, file, name):
        """The functions and tables that this function leads to, and all names that they refer to."""
        by_name = collections.defaultdict(list)
        for entry in self.functions:
            by_name[entry["name"]].append(entry)
        seen, names, todo = [], set(), [(file, name)]
        while todo:
            place, wanted = todo.pop()
            if wanted in names:
                continue
            names.add(wanted)
            here = [entry for entry in by_name[wanted] if entry["file"] == place] or \
                [entry for entry in by_name[wanted] if not entry["static"]]
            for entry in here:
                seen.append(entry)
                todo += [(entry["file"], ref) for ref in entry["refs"]]
        return seen, names

    def transitions(self):
        """What writes a state looks up what is legal, and in the sanitizer build ends the program when it is not."""
        found = []
        for path, (file, function, table) in self.states.items():
            if not table:
                continue
            seen, names = self.closure(file, function)
            if not re.search(rf"^#[ \t]*define {table}\b", self.text("session/state.h"), re.M):
                found.append(f"session.{path}: session/state.h has no {table}")
            elif not any(table in entry["macros"] for entry in seen):
                found.append(f"session.{path}: {function}() of {file} does not look at {table}")
            elif not names & {"abort", "__builtin_trap", "__assert_fail"}:
                found.append(f"session.{path}: {function}() of {file} does not abort in the sanitizer build")
        return found

    def pointers(self):
        """struct session, and what it is made of in session/, have no pointers to functions."""
        found, todo, seen = [], ["session"], set()
        while todo:
            record = todo.pop()
            if record in seen or record not in self.records:
                continue
            seen.add(record)
            for name, kind in self.records[record]["fields"]:
                if "(*" in kind:
                    found.append(f"{record}.{name} is {kind}")
                inner = record_of(re.sub(r" ?(\*|\[.*\])$", "", kind))
                if inner and self.records.get(inner, {"file": ""})["file"].startswith("session/"):
                    todo.append(inner)
        return found

    # -- headers --

    def headers(self):
        """In session/ a header for each file, which declares what that file defines."""
        found = []
        for source in self.facts:
            header = source[:-1] + "h"
            if source.startswith("session/") and header not in self.files:
                found.append(f"there is no {header}")
            elif source.startswith("session/") and f'#include "{header}"' not in self.text(source):
                found.append(f"{source} does not include {header}")
        return found + [f"{file} declares {name}(), which is in {self.home.get(name, 'no file')}" for file, kind, name in self.declares
                        if kind == "FunctionDecl" and re.fullmatch(r"session/(?!state|session)\w+\.h", file) and
                        self.home.get(name, file) != file[:-1] + "c"]

    def types(self):
        """state.h has types and no more; session.h what main needs and no more."""
        found = [f"{file} declares {name}" for file, kind, name in self.declares
                 if file == "session/state.h" and kind in ("FunctionDecl", "VarDecl")]
        found += [f"{file} defines {name}" for file, kind, name in self.declares
                  if file == "session/session.h" and kind in ("RecordDecl", "EnumDecl", "VarDecl")]
        if "session/state.h" not in self.files:
            found.append("there is no session/state.h")
        functions = [name for file, kind, name in self.declares if file == "session/session.h" and kind == "FunctionDecl"]
        if "session_run" not in functions:
            found.append("session/session.h does not declare session_run()")
        return found + [f"session/session.h declares {name}(), and {SESSION_FUNCTIONS - 1} others were enough"
                        for name in functions[SESSION_FUNCTIONS:]]

    # -- lengths --

    @functools.cached_property
    def lengths(self):
        """[(lines, file, name)] of all functions, hooks and tests as well: from the name to the brace that closes."""
        found = []
        for path in self.files + sorted(str(path.relative_to(self.root)) for place in ("hooks", "test/unit", "test/fuzz", "test/lib")
                                        for path in (self.root / place).glob("*.[ch]")):
            head = start = None
            for number, line in enumerate(self.text(path).split("\n"), 1):
                name = re.match(r"[a-z_][^;=#{]*?\b(\w+)\(", line)
                if name:
                    head, start = name[1], number
                elif line.startswith("}") and head:
                    found.append((number - start + 1, path, head))
                    head = None
                elif line.endswith(";") and not line.startswith(("\t", " ", "{")):
                    head = None
        return sorted(found, reverse=True)

    def long(self):
        """Tests may go on at length."""
        return [f"{path}: {name}() has {lines} lines" for lines, path, name in self.lengths
                if lines > FUNCTION_LINES and not path.startswith("test/")]

    RULES = {"compiles": compiles, "includes": includes, "pure": pure, "upward": upward, "circles": circles, "unnamed": unnamed,
             "foreign": foreign, "owned": owned, "writers": writers, "transitions": transitions, "pointers": pointers,
             "headers": headers, "types": types, "long": long}

    def findings(self, rule):
        return self.RULES[rule](self)


def members(body):
    """([name, ...], comment) of each declaration of a struct; the comment is what follows it."""
    body = re.sub(r"^#.*", "", body, flags=re.M)
    found, depth, text = [], 0, ""
    for token in re.findall(r"/\*.*?\*/|//[^\n]*|\n|[^/\n;{}]+|.", body, re.S):
        if token.startswith(("/*", "//")):
            if found and not text.strip():
                found[-1][1] += token
        elif token == ";" and depth == 0:
            found.append([declared(text), ""])
            text = ""
        else:
            depth += (token == "{") - (token == "}")
            text += token
    return found


def declared(text):
    """The names that a declaration without its semicolon declares."""
    pointer = re.search(r"\(\*(\w+)", text)
    if pointer:
        return [pointer[1]]
    text = re.sub(r"\{.*\}", " ", text, flags=re.S)
    text = re.sub(r"\[[^]]*\]|:\s*\w+", " ", text)
    return [re.findall(r"\w+", part)[-1] for part in text.split(",") if re.findall(r"\w+", part)]


# ---- figures ----

def report(house):
    for rule in house.RULES:
        found = house.findings(rule)
        print(f"== {rule}: {len(found)}")
        for line in found:
            print(f"   {line}")
    code = [path for path in house.files if path.endswith(".c")]
    print(f"== {len(code)} .c files of {sum(house.text(path).count(chr(10)) for path in code)} lines, "
          f"{len(house.files) - len(code)} headers of {sum(house.text(path).count(chr(10)) for path in set(house.files) - set(code))}")
    print("== files to link with each, and its lines")
    for source in code:
        print(f"   {len(house.reach(source)):3} {house.text(source).count(chr(10)):5} {source}")
    print("== who writes the members of structs of session/, at how many places; and who asks their owners to")
    several = 0
    for member, owners in house.members.items():
        tables = {True: collections.Counter(), False: collections.Counter()}
        for write in house.writes:
            if member in write["way"]:
                tables[house.asks(write, owners or ())][write["file"].removeprefix("session/")] += 1
        several += member.startswith("session.") and len(tables[False]) > 1
        writes, asks = (", ".join(f"{file} {count}" for file, count in tables[asks].most_common()) for asks in (False, True))
        print(f"   {member}: {writes or '-'}" + (f"; asked by {asks}" if asks else ""))
    print(f"   more than one file writes {several} of the {sum(name.startswith('session.') for name in house.members)} members of session")
    print("== who writes what is an enum, in a struct of session/ or dialogue.h")
    states = collections.defaultdict(set)
    for write in house.writes:
        record = write["way"][-1].split(".")[0]
        if write.get("type", "").startswith("enum ") and \
                house.records.get(record, {"file": ""})["file"].startswith(("session/", "pure/dialogue")):
            states[write["way"][-1]].add(f"{write['file'].removeprefix('session/')} {write['function']}()")
    for state, writers in sorted(states.items()):
        print(f"   {state}: {', '.join(sorted(writers))}")
    print("== the longest functions")
    for lines, path, name in house.lengths[:12]:
        print(f"   {lines} {path} {name}()")
    print("== names of static functions that stand in two files of session/")
    static = collections.defaultdict(set)
    for entry in house.functions:
        if entry["function"] and entry["static"] and entry["file"].startswith("session/"):
            static[entry["name"]].add(entry["file"])
    for name, places in sorted(static.items()):
        if len(places) > 1:
            print(f"   {name}: {', '.join(sorted(places))}")


def main():
    if sys.argv[1:2] == ["--examine"]:
        for source in sys.argv[2:]:
            examine(source)
    elif sys.argv[1:] == ["--report"]:
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
        from test_house import STATES
        report(House(pathlib.Path(__file__).resolve().parent.parent.parent, STATES))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
