"""testssl.sh, which knows the weaknesses of TLS by name, looks at what clients get. DESIGN 5; PROTOCOL 64, 65."""
import json
import subprocess

import pytest

import certificates

# Nothing outside of this host is asked: neither the DNS nor (--phone-out) an authority.
COMMAND = ["testssl", "--quiet", "--warnings", "batch", "--color", "0", "--nodns", "none", "--ip", "127.0.0.1",
           "--connect-timeout", "5", "--openssl-timeout", "5",
           "--protocols", "--standard", "--fs", "--server-defaults", "--vulnerable"]
HARMLESS = {
    ("service", "DEBUG"): "what speaks inside of implicit TLS is not HTTP, of which testssl knows more to look into",
    ("engine_problem", "WARN"): "of the OpenSSL that testssl uses, which has no GOST",
    ("cert_revocation", "HIGH"): "of the test's certificate: its authority publishes no list of revoked ones",
    ("cipherlist_AVERAGE", "LOW"): "AES-CBC with SHA-2, last in our order, for clients without AEAD",
    ("LUCKY13", "LOW"): "the same: BearSSL checks their padding and MAC in constant time, which cannot be seen from outside",
}


@pytest.mark.parametrize("kind, how", [("long-lived", "may"), ("rsa-long-lived", "implicit")])
def test_64_65_no_weakness_is_found(warp, certs, mail_server, tmp_path, kind, how):
    """Both kinds of keys, both ways in: neither depends on the other. What must be found is: an empty report is none."""
    made = warp(*certs.options(kind), "--client-tls", how, upstream=mail_server("PIPELINING")).listen()
    report = tmp_path / "report.json"
    starttls = [] if how == "implicit" else ["--starttls", "smtp"]
    done = subprocess.run([*COMMAND, *starttls, "--add-ca", certs.ca, "--jsonfile", report, f"{certificates.HOST}:2525"],
                          capture_output=True, text=True, timeout=1500, check=False)     # thousands of processes
    findings = {finding["id"]: finding for finding in json.loads(report.read_text())}
    bad = {name: finding["finding"] for name, finding in findings.items()
           if finding["severity"] not in ("OK", "INFO") and (name, finding["severity"]) not in HARMLESS}
    assert not bad, f"{bad}\n{done.stdout}"
    assert {name for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3")
            if findings[name]["finding"].startswith("offered")} == {"TLS1_2"}
    ciphers = findings["PFS_ciphers"]["finding"].split()
    assert len(ciphers) == 5 and all(("ECDSA" if kind == "long-lived" else "RSA") in cipher for cipher in ciphers)
    assert {findings[name]["severity"] for name in ("heartbleed", "CCS", "secure_renego", "secure_client_renego",
                                                    "fallback_SCSV", "cert_chain_of_trust", "cert_trust")} == {"OK"}
    assert findings["sessionresumption_ID"]["finding"] == "not supported" and made.listener.poll() is None
