"""A Prometheus that scrapes one address each second.

    with Prometheus(tmp_path, "127.0.0.1:9125", namespace=ns) as server:
        server.wait_scraped()
        server.ask("smtpwarp_backoff_state >= 2")
"""
import json
import socket
import subprocess
import urllib.parse
import urllib.request
from contextlib import nullcontext

from waiting import wait_until

CONFIGURATION = """\
global: {{scrape_interval: 1s}}
rule_files: {rules}
scrape_configs: [{{job_name: smtpwarp, static_configs: [{{targets: ['{target}']}}]}}]
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


class Prometheus:
    """rules: files of rules."""

    def __init__(self, directory, target, rules=(), namespace=None):
        self.where = namespace or nullcontext()
        (directory / "prometheus.yml").write_text(CONFIGURATION.format(rules=json.dumps([str(path) for path in rules]), target=target))
        with self.where:
            port = free_port()
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                 f"--web.listen-address=127.0.0.1:{port}"], stderr=open(directory / "prometheus.log", "w"))
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def api(self, path):
        with self.where:
            answer = json.loads(get(f"{self.url}/{path}"))
        assert answer["status"] == "success", path
        return answer["data"]

    def ask(self, expression):
        return self.api("query?" + urllib.parse.urlencode({"query": expression}))["result"]

    def wait_scraped(self, times):
        """Until it has tried so often; each try was good."""
        def scraped():
            try:
                return any(int(result["value"][1]) >= times for result in self.ask("count_over_time(up{job='smtpwarp'}[1m])"))
            except OSError:
                return False
        wait_until(scraped)
        assert [(target["health"], target["lastError"]) for target in self.api("targets")["activeTargets"]] == [("up", "")]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
