/* What is made of an upstream's chain: by trusted CAs, and by TLSA records (RFC 7672). The chains are real ones,
 * the handshake is left out. */
#include "test/lib/chains.h"
#include "test/lib/unit.h"

#include "../../tls.c"

#include "pure/base64.h"

static struct dane_set set;
static unsigned char chain_of[CHAIN_MAX][4096];
static size_t len_of[CHAIN_MAX], certificates;
static const char *names[TLS_NAMES];
static size_t name_count;

/* ---- what a server shows ---- */

static size_t decode(const char *text, unsigned char out[4096])
{
	const unsigned char *at = (const unsigned char *)text;
	struct pem p;

	assert_true(pem_next(&at, at + strlen(text), &p));
	return base64_decode(p.body, p.body_len, out, 4096);
}

static void show(const char *leaf, const char *second, const char *third)
{
	const char *const all[] = { leaf, second, third };

	for (certificates = 0; certificates < COUNT(all) && all[certificates]; certificates++)
		len_of[certificates] = decode(all[certificates], chain_of[certificates]);
}

static void expect_names(const char *first, const char *second)
{
	names[0] = first;
	names[1] = second;
	name_count = second ? 2 : first ? 1 : 0;
}

/* ---- TLSA records ---- */

/* Add a record, "3 1 1" and so on, about a certificate. */
static void add(const char *words, const char *pem)
{
	unsigned char der[4096], digest[64];
	struct certificate c;
	unsigned usage, selector, matching;
	const struct certificate_span *part;
	struct dns_tlsa r;

	assert_int_equal(sscanf(words, "%u %u %u", &usage, &selector, &matching), 3);
	assert_true(certificate_read(&c, der, decode(pem, der)));
	part = selector ? &c.key : &c.der;
	(matching == DANE_SHA512 ? sha512 : sha256)(part, digest);
	r = (struct dns_tlsa){ (unsigned char)usage, (unsigned char)selector, (unsigned char)matching, digest, matching == DANE_SHA512 ? 64 : 32 };
	if (matching == DANE_FULL)
		r = (struct dns_tlsa){ (unsigned char)usage, (unsigned char)selector, DANE_FULL, part->bytes, part->len };
	assert_true(dane_add(&set, 0, &r));
}

static void one(const char *words, const char *pem)
{
	memset(&set, 0, sizeof set);
	add(words, pem);
}

/* ---- the judgement ---- */

/* What a handshake comes to: "ee", "ta", "ca", or the reason against it; behind it, whether it goes on at a level that does not verify. */
static const char *judge_at(enum tls_level level, const struct dane_set *tlsa)
{
	const br_x509_class **x = &chain.vtable;
	unsigned result;

	towards_upstream.handshake_done = true;
	prepare_chain(&(struct tls_demand){ .level = level, .names = names, .count = name_count, .tlsa = tlsa });
	(*x)->start_chain(x, "sni.example");
	for (size_t i = 0; i < certificates; i++) {
		(*x)->start_cert(x, (uint32_t)len_of[i]);
		(*x)->append(x, chain_of[i], len_of[i]);
		(*x)->end_cert(x);
	}
	result = (*x)->end_chain(x);
	if (!tls_level_verifies(level))
		assert_true(result == 0 || result == UNUSABLE);
	else
		assert_int_equal(result, chain.verdict);
	if (!result) {
		unsigned usages = 0;

		assert_non_null((*x)->get_pkey(x, &usages));
		assert_true(usages & BR_KEYTYPE_SIGN);
	}
	return chain.verdict ? reason_text((int)chain.verdict) : !chain.tlsa ? "ca" : chain.by_leaf ? "ee" : "ta";
}

static const char *judge(void)
{
	const char *verdict = judge_at(TLS_VERIFY, &set);

	assert_string_equal(judge_at(TLS_MAY, &set), verdict);
	return verdict;
}

#define NO_MATCH "no TLSA record matches the certificate, nor a CA of its chain"
#define WRONG_NAME "certificate is for another name"
#define NOT_TRUSTED "certificate is not signed by a trusted CA"

/* ---- tests ---- */

/* RFC 7672 3.1.1: neither names nor dates count, nor who has signed it. */
static void server_itself(void **state)
{
	static const char *const words[] = { "3 0 0", "3 0 1", "3 0 2", "3 1 0", "3 1 1", "3 1 2" },
				 *const shown[] = { CHAIN_LEAF, CHAIN_EXPIRED, CHAIN_SELF };

	(void)state;
	for (size_t i = 0; i < COUNT(words); i++)
		for (size_t j = 0; j < COUNT(shown); j++)
			for (unsigned named = 0; named < 2; named++) {
				one(words[i], shown[j]);
				show(shown[j], NULL, NULL);
				expect_names(named ? "another.example" : NULL, NULL);
				expect_text(words[i], judge(), "ee");
				assert_int_equal(tls_fault(&towards_upstream), TLS_FAULTLESS);
				show(CHAIN_FORGED, shown[j], NULL);
				expect_text(words[i], judge(), NO_MATCH);
				assert_int_equal(tls_fault(&towards_upstream), TLS_UNMATCHED);
			}
	one("3 1 1", CHAIN_LEAF);
	show(CHAIN_EXPIRED, CHAIN_MIDDLE, CHAIN_ROOT); /* with the same key */
	expect_text("key", judge(), "ee");
	one("3 0 1", CHAIN_LEAF);
	expect_text("certificate", judge(), NO_MATCH);
}

/* RFC 7672 3.1.2: names and dates count. */
static void by_a_ca(void **state)
{
	static const char *const words[] = { "2 0 0", "2 0 1", "2 0 2", "2 1 0", "2 1 1", "2 1 2" }, *const cas[] = { CHAIN_MIDDLE, CHAIN_ROOT };

	(void)state;
	for (size_t i = 0; i < COUNT(words); i++)
		for (size_t j = 0; j < COUNT(cas); j++) {
			one(words[i], cas[j]);
			expect_names("example.org", "MAIL.example.org");
			show(CHAIN_LEAF, CHAIN_MIDDLE, CHAIN_ROOT);
			expect_text(words[i], judge(), "ta");
			show(CHAIN_LEAF, CHAIN_ROOT, CHAIN_MIDDLE);
			expect_text("another order", judge(), "ta");
			show(CHAIN_EXPIRED, CHAIN_MIDDLE, CHAIN_ROOT);
			expect_text("expired", judge(), "certificate is expired or not yet valid");
			assert_int_equal(tls_fault(&towards_upstream), TLS_EXPIRED);
			show(CHAIN_SELF, CHAIN_MIDDLE, CHAIN_ROOT);
			expect_text("self-signed", judge(), NO_MATCH);
			show(CHAIN_LEAF, CHAIN_MIDDLE, CHAIN_ROOT);
			expect_names(".example.org", NULL);
			expect_text("pattern", judge(), "ta");
			expect_names("example.org", "other.example.org");
			expect_text("another name", judge(), WRONG_NAME);
			assert_int_equal(tls_fault(&towards_upstream), TLS_MISNAMED);
			expect_names(NULL, NULL);
			expect_text("no name", judge(), WRONG_NAME);
		}
}

/* The name of a CA is no proof, nor is its certificate beside one that it has not signed. */
static void forged(void **state)
{
	(void)state;
	one("2 1 1", CHAIN_MIDDLE);
	expect_names("mail.example.org", NULL);
	show(CHAIN_FORGED, CHAIN_MIDDLE, CHAIN_ROOT);
	assert_true(strcmp(judge(), "ta") != 0);
	one("2 0 0", CHAIN_MIDDLE);
	assert_true(strcmp(judge(), "ta") != 0);
	one("2 1 1", CHAIN_LEAF); /* the server's own certificate is no CA */
	show(CHAIN_LEAF, CHAIN_MIDDLE, NULL);
	expect_text("no CA", judge(), NO_MATCH);
	show(CHAIN_LEAF, CHAIN_LEAF, NULL);
	assert_true(strcmp(judge(), "ta") != 0);
	one("2 1 1", CHAIN_SELF);
	show(CHAIN_SELF, NULL, NULL);
	expect_text("self-signed", judge(), NO_MATCH);
	one("3 1 1", CHAIN_MIDDLE); /* and a CA is not the server */
	show(CHAIN_LEAF, CHAIN_MIDDLE, NULL);
	expect_text("no server", judge(), NO_MATCH);
}

/* A CA that the server does not send: its digest or key is not enough, RFC 7671 5.2.2. */
static void ca_not_sent(void **state)
{
	static const char *const words[] = { "2 0 1", "2 0 2", "2 1 0", "2 1 1", "2 1 2" };

	(void)state;
	expect_names("mail.example.org", NULL);
	for (size_t i = 0; i < COUNT(words); i++) {
		one(words[i], CHAIN_ROOT);
		show(CHAIN_LEAF, CHAIN_MIDDLE, NULL);
		expect_text(words[i], judge(), NO_MATCH);
		one(words[i], CHAIN_MIDDLE);
		show(CHAIN_LEAF, NULL, NULL);
		expect_text(words[i], judge(), NO_MATCH);
	}
	one("2 0 0", CHAIN_ROOT);
	show(CHAIN_LEAF, CHAIN_MIDDLE, NULL);
	expect_text("root", judge(), "ta");
	show(CHAIN_LEAF, NULL, NULL);
	expect_text("without the one between", judge(), NO_MATCH);
	one("2 0 0", CHAIN_MIDDLE);
	expect_text("the one between", judge(), "ta");
	show(CHAIN_SELF, NULL, NULL);
	expect_text("another", judge(), NO_MATCH);
}

static void several_records(void **state)
{
	(void)state;
	expect_names("mail.example.org", NULL);
	show(CHAIN_LEAF, CHAIN_MIDDLE, CHAIN_ROOT);
	one("3 1 1", CHAIN_SELF);
	add("3 1 1", CHAIN_LEAF); /* a key is being replaced */
	expect_text("the second", judge(), "ee");
	one("2 1 1", CHAIN_SELF);
	add("2 1 1", CHAIN_ROOT);
	expect_text("the second CA", judge(), "ta");
	one("3 1 1", CHAIN_SELF);
	add("2 1 1", CHAIN_MIDDLE);
	expect_text("a CA beside a wrong key", judge(), "ta");
	one("3 1 2", CHAIN_SELF);
	add("3 1 1", CHAIN_LEAF); /* RFC 7671 9 */
	expect_text("a weaker digest", judge(), NO_MATCH);
	one("3 1 1", CHAIN_SELF);
	add("3 1 2", CHAIN_LEAF);
	expect_text("the stronger digest", judge(), "ee");
	memset(&set, 0, sizeof set);
	expect_text("none", judge(), NO_MATCH);
}

/* Keys that BearSSL does not know: only a certificate that is the right one may be told apart from a wrong one. */
static void unusable_keys(void **state)
{
	static const char *const odd[] = { CHAIN_ED25519, CHAIN_RSA5120 };
	static const char why[] = "the certificate's key cannot be used: RSA of more than 4096 bits, or neither RSA nor ECDSA";

	(void)state;
	expect_names("mail.example.org", NULL);
	for (size_t i = 0; i < COUNT(odd); i++) {
		show(odd[i], CHAIN_MIDDLE, CHAIN_ROOT);
		one("3 1 1", odd[i]);
		expect_text("named", judge(), why);
		assert_int_equal(tls_fault(&towards_upstream), TLS_OURS);
		one("3 1 1", CHAIN_LEAF);
		expect_text("another's", judge(), NO_MATCH);
		assert_int_equal(tls_fault(&towards_upstream), TLS_UNMATCHED);
		one("2 1 1", CHAIN_MIDDLE);
		judge();
		assert_int_equal(tls_fault(&towards_upstream), TLS_OTHERWISE);
		expect_text("by CAs", judge_at(TLS_VERIFY, NULL), why);
		assert_int_equal(tls_fault(&towards_upstream), TLS_OURS);
	}
}

/* Each reason for a failure, as the engine has it, and one that is none of them. */
static void each_fault(void **state)
{
	static const struct {
		enum tls_fault fault;
		int codes[48];
	} rows[] = {
		{ TLS_UNMATCHED, { UNMATCHED } },
		{ TLS_MISNAMED, { BR_ERR_X509_BAD_SERVER_NAME } },
		{ TLS_UNTRUSTED, { BR_ERR_X509_NOT_TRUSTED } },
		{ TLS_EXPIRED, { BR_ERR_X509_EXPIRED } },
		{ TLS_OURS, { BR_ERR_NO_RANDOM, BR_ERR_X509_CRITICAL_EXTENSION, BR_ERR_X509_TIME_UNKNOWN, UNUSABLE,
			TRUST_CONSTRAINED, 256 + 42, 256 + 43, 256 + 44, 256 + 45, 256 + 46, 256 + 48, 256 + 49, 256 + 70, 256 + 71 } },
		{ TLS_OTHERWISE, { BR_ERR_BAD_PARAM, BR_ERR_UNSUPPORTED_VERSION, BR_ERR_BAD_VERSION, BR_ERR_TOO_LARGE, BR_ERR_BAD_MAC,
			BR_ERR_UNKNOWN_TYPE, BR_ERR_UNEXPECTED, BR_ERR_BAD_CCS, BR_ERR_BAD_ALERT, BR_ERR_BAD_HANDSHAKE,
			BR_ERR_BAD_CIPHER_SUITE, BR_ERR_BAD_COMPRESSION, BR_ERR_BAD_FINISHED, BR_ERR_INVALID_ALGORITHM,
			BR_ERR_BAD_SIGNATURE, BR_ERR_WRONG_KEY_USAGE, BR_ERR_X509_BAD_SIGNATURE, BR_ERR_X509_UNSUPPORTED,
			BR_ERR_X509_WEAK_PUBLIC_KEY, BR_ERR_X509_NOT_CA, BR_ERR_X509_FORBIDDEN_KEY_USAGE, BR_ERR_X509_WRONG_KEY_TYPE,
			BR_ERR_X509_EMPTY_CHAIN, BR_ERR_X509_INVALID_VALUE, BR_ERR_X509_TRUNCATED, BR_ERR_X509_BAD_TAG_CLASS,
			BR_ERR_X509_BAD_TAG_VALUE, BR_ERR_X509_UNEXPECTED, BR_ERR_X509_BAD_TIME, BR_ERR_X509_LIMIT_EXCEEDED, 256 + 40, 256 + 80,
			256 + 112, 512 + 40, 512 + 70 } },
	};
	size_t seen = 0;

	(void)state;
	chain.tlsa = &set; /* no CAs are trusted here, which is another matter */
	for (size_t i = 0; i < COUNT(rows); i++)
		for (const int *code = rows[i].codes; *code; code++, seen++) {
			towards_upstream.engine.common.err = *code;
			if (tls_fault(&towards_upstream) != rows[i].fault)
				fail_msg("%d: fault %d, not %d", *code, tls_fault(&towards_upstream), rows[i].fault);
		}
	assert_int_equal(seen, COUNT(reasons));
	towards_upstream.engine.common.err = BR_ERR_RECV_FATAL_ALERT + 20;
	assert_int_equal(tls_fault(&towards_upstream), TLS_OTHERWISE);
	unsigned_ = true; /* by the process that keeps our key */
	assert_int_equal(tls_fault(&towards_upstream), TLS_OURS);
	towards_upstream.engine.common.err = BR_ERR_OK;
	unsigned_ = false;
}

/* A handshake that was broken off: the certificate that it has shown has nothing to do with that. */
static void broken_off(void **state)
{
	(void)state;
	show(CHAIN_SELF, NULL, NULL);
	one("3 1 1", CHAIN_LEAF);
	expect_text("another's", judge(), NO_MATCH);
	towards_upstream.handshake_done = false;
	assert_int_equal(tls_fault(&towards_upstream), TLS_OTHERWISE);
}

/* There was nothing to check it against. */
static void no_name_at_all(void **state)
{
	(void)state;
	chain.verdict = 0;
	chain.count = 0;
	chain.tlsa = NULL;
	towards_upstream.handshake_done = true;
	assert_int_equal(tls_fault(&towards_upstream), TLS_OURS);
}

/* CAs that are trusted do not count beside TLSA records, and the other way round; several names, and patterns, count for both. */
static void trusted_cas(void **state)
{
	char path[] = "/tmp/unit_tls.XXXXXX";
	const char *why;
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(write(fd, CHAIN_ROOT, sizeof CHAIN_ROOT - 1), sizeof CHAIN_ROOT - 1);
	close(fd);
	show(CHAIN_LEAF, CHAIN_MIDDLE, NULL);
	expect_names("mail.example.org", NULL);
	expect_text("not loaded", judge_at(TLS_VERIFY, NULL), NOT_TRUSTED);
	assert_int_equal(tls_fault(&towards_upstream), TLS_OURS);
	expect_names("other.example", NULL);
	expect_text("not loaded, and for another name", judge_at(TLS_VERIFY, NULL), WRONG_NAME);
	expect_names("mail.example.org", NULL);
	assert_int_equal(tls_load_anchors(path, &why), 0);
	unlink(path);
	expect_text("loaded", judge_at(TLS_VERIFY, NULL), "ca");
	show(CHAIN_SELF, NULL, NULL);
	expect_names(NULL, NULL);
	expect_text("not signed by them", judge_at(TLS_VERIFY, NULL), NOT_TRUSTED);
	assert_int_equal(tls_fault(&towards_upstream), TLS_UNTRUSTED);
	show(CHAIN_LEAF, CHAIN_MIDDLE, NULL);
	expect_names("other.example", "*.example.org");
	expect_text("several names", judge_at(TLS_VERIFY, NULL), "ca");
	expect_names("other.example", ".example");
	expect_text("none of the names", judge_at(TLS_VERIFY, NULL), WRONG_NAME);
	expect_names("mail.example.org", NULL);
	one("3 1 1", CHAIN_SELF);
	expect_text("trusted, but not named", judge(), NO_MATCH);
	show(CHAIN_FORGED, CHAIN_MIDDLE, NULL);
	assert_true(strcmp(judge_at(TLS_VERIFY, NULL), "ca") != 0);
}

/* Whatever a server shows: it is not verified, and nothing breaks. */
static void hostile_chains(void **state)
{
	(void)state;
	expect_names("mail.example.org", NULL);
	one("2 1 1", CHAIN_MIDDLE);
	add("2 0 0", CHAIN_ROOT);
	show(NULL, NULL, NULL);
	expect_text("nothing", judge_at(TLS_VERIFY, &set), "no certificate");
	show(CHAIN_LEAF, CHAIN_MIDDLE, CHAIN_ROOT);
	len_of[0]--;
	assert_true(strcmp(judge_at(TLS_VERIFY, &set), "ta") != 0);
	show(CHAIN_LEAF, CHAIN_MIDDLE, CHAIN_ROOT);
	len_of[2]--;
	expect_text("the root is cut", judge(), "ta");
	len_of[1]--;
	expect_text("the others are cut", judge(), NO_MATCH);
	show(CHAIN_FORGED, NULL, NULL);
	for (certificates = 1; certificates < CHAIN_MAX; certificates++)
		len_of[certificates] = decode(CHAIN_MIDDLE, chain_of[certificates]);
	assert_true(strcmp(judge(), "ta") != 0);
	show(CHAIN_LEAF, NULL, NULL);
	one("3 1 1", CHAIN_LEAF);
	for (certificates = 1; certificates < CHAIN_MAX; certificates++)
		memset(chain_of[certificates], 0x30, len_of[certificates] = 4000);
	expect_text("too long, but it is the one", judge(), "ee");
	one("3 1 1", CHAIN_SELF);
	expect_text("too long", judge(), "certificate chain is too long");
}

/* ---- whose session is resumed ---- */

#define SERVER(host, at_port) &(union net_address){ .v4 = { .sin_family = AF_INET, .sin_addr = { host }, .sin_port = at_port } }

static const char *const first_name[] = { "a.example", "b.example" }, *const other_name[] = { "c.example", "b.example" };

static bool resumes(const struct tls_demand *demand)
{
	const char *why;
	struct tls *t = tls_start(demand, &why);

	assert_non_null(t);
	return tls_resumes(t);
}

/* As if the handshake had ended well, with a session that may be resumed. */
static void complete(void)
{
	towards_upstream.handshake_done = true;
	towards_upstream.engine.common.session.session_id_len = 32;
	towards_upstream.engine.common.session.version = BR_TLS12;
}

static void only_of_the_same_server_and_demand(void **state)
{
	static const struct dane_set none;
	const struct tls_demand demand = { TLS_VERIFY, "a.example", first_name, 1, NULL, SERVER(1, 25) }, others[] = {
		{ TLS_MAY, "a.example", first_name, 1, NULL, SERVER(1, 25) },
		{ TLS_VERIFY, "b.example", first_name, 1, NULL, SERVER(1, 25) },
		{ TLS_VERIFY, NULL, first_name, 1, NULL, SERVER(1, 25) },
		{ TLS_VERIFY, "a.example", other_name, 1, NULL, SERVER(1, 25) },
		{ TLS_VERIFY, "a.example", first_name, 2, NULL, SERVER(1, 25) },
		{ TLS_VERIFY, "a.example", first_name, 1, &none, SERVER(1, 25) },
		{ TLS_VERIFY, "a.example", first_name, 1, NULL, SERVER(2, 25) },
		{ TLS_VERIFY, "a.example", first_name, 1, NULL, SERVER(1, 26) },
		{ TLS_VERIFY, "a.example", first_name, 1, NULL, NULL },
	};

	(void)state;
	tls_wipe();
	assert_false(resumes(&demand));
	for (size_t i = 0; i < COUNT(others); i++) {
		complete();
		assert_false(resumes(&others[i]));
		assert_true(resumes(&demand));
	}
	complete();
	tls_wipe();
	assert_false(resumes(&demand));
}

static void not_if_it_has_failed(void **state)
{
	const struct tls_demand demand = { TLS_MAY, NULL, NULL, 0, NULL, SERVER(1, 25) };

	(void)state;
	tls_wipe();
	for (unsigned i = 0; i < 2; i++) {
		assert_false(resumes(&demand));
		complete();
		assert_true(resumes(&demand)); /* and is never done */
	}
	assert_false(resumes(&demand));
	complete();
	towards_upstream.engine.common.err = BR_ERR_BAD_MAC;
	assert_false(resumes(&demand));
	complete();
	towards_upstream.engine.common.session.session_id_len = 0;
	assert_false(resumes(&demand));
}

static void never_by_tlsa_or_unix_socket(void **state)
{
	static const struct dane_set none;
	const struct tls_demand by_tlsa = { TLS_VERIFY, NULL, NULL, 0, &none, SERVER(1, 25) },
				local = { TLS_MAY, NULL, NULL, 0, NULL, &(union net_address){ .sa = { .sa_family = AF_UNIX } } };

	(void)state;
	tls_wipe();
	for (unsigned i = 0; i < 3; i++) {
		assert_false(resumes(&by_tlsa));
		complete();
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_false(resumes(&local));
		complete();
	}
}

/* The fifth takes the place of the first. */
static void of_four(void **state)
{
	struct tls_demand demand = { .level = TLS_MAY };

	(void)state;
	tls_wipe();
	for (in_addr_t host = 1; host <= 5; host++) {
		demand.server = SERVER(host, 25);
		assert_false(resumes(&demand));
		complete();
	}
	for (in_addr_t host = 5; host >= 1; host--) {
		demand.server = SERVER(host, 25);
		assert_int_equal(resumes(&demand), host > 1);
		complete();
	}
}

/* What is known of the certificate is what the first handshake has shown, until another is shown. */
static void facts_of_a_resumed_session(void **state)
{
	static const char *const mail[] = { "mail.example" };
	const struct tls_demand demand = { TLS_MAY, "mail.example", mail, 1, NULL, SERVER(1, 25) };
	unsigned char first[TLS_FINGERPRINT], again[TLS_FINGERPRINT];
	struct tls_facts facts;
	const char *reason;

	(void)state;
	tls_wipe();
	assert_false(resumes(&demand));
	show(CHAIN_SELF, NULL, NULL);
	expect_names("mail.example", NULL);
	reason = judge_at(TLS_MAY, NULL);
	complete();
	assert_true(tls_fingerprint(&towards_upstream, first));
	assert_true(resumes(&demand));
	complete();
	show(CHAIN_LEAF, NULL, NULL);
	chain.certificates = 0; /* of another server's */
	tls_facts(&towards_upstream, &facts);
	assert_true(facts.resumed);
	expect_text("reason", facts.reason, reason);
	assert_true(tls_fingerprint(&towards_upstream, again));
	assert_memory_equal(first, again, sizeof first);
	judge_at(TLS_MAY, NULL);
	tls_facts(&towards_upstream, &facts);
	assert_false(facts.resumed);
	assert_true(tls_fingerprint(&towards_upstream, again));
	assert_true(memcmp(first, again, sizeof first) != 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(server_itself), cmocka_unit_test(by_a_ca), cmocka_unit_test(forged),
		cmocka_unit_test(ca_not_sent), cmocka_unit_test(several_records), cmocka_unit_test(unusable_keys),
		cmocka_unit_test(each_fault), cmocka_unit_test(broken_off), cmocka_unit_test(no_name_at_all),
		cmocka_unit_test(hostile_chains), cmocka_unit_test(trusted_cas), cmocka_unit_test(only_of_the_same_server_and_demand),
		cmocka_unit_test(not_if_it_has_failed), cmocka_unit_test(never_by_tlsa_or_unix_socket), cmocka_unit_test(of_four),
		cmocka_unit_test(facts_of_a_resumed_session) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
