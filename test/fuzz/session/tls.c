/* Certificates and TLS contexts of the session fuzzer's peers, and the files that smtpwarp is given. */
#include "fuzz.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

SSL_CTX *tls_server, *tls_client;

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "TLS: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(2);
}

static FILE *create(const char *directory, const char *name)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", directory, name);
	f = fopen(path, "w");
	must(f != NULL, path);
	return f;
}

static void add_extension(X509 *cert, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *e;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	must(e && X509_add_ext(cert, e, -1), value);
	X509_EXTENSION_free(e);
}

/* Signed by the issuer; without one, by itself, and an authority. */
static X509 *certificate(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *cert = X509_new();
	X509_NAME *subject;
	char alternative[100];

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), issuer ? 2 : 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -86400);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400 * 365);
	subject = X509_get_subject_name(cert);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
	X509_set_pubkey(cert, key);
	if (issuer) {
		snprintf(alternative, sizeof alternative, "DNS:%s", name);
		add_extension(cert, NID_subject_alt_name, alternative);
	} else {
		add_extension(cert, NID_basic_constraints, "critical,CA:TRUE");
	}
	must(X509_sign(cert, issuer_key ? issuer_key : key, EVP_sha256()) > 0, "X509_sign");
	return cert;
}

static void write_files(const char *directory, X509 *ca, X509 *cert, EVP_PKEY *key)
{
	FILE *f = create(directory, "ca.pem");

	PEM_write_X509(f, ca);
	fclose(f);
	f = create(directory, "cert.pem");
	PEM_write_X509(f, cert);
	PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	f = create(directory, "passwords");
	fputs("127.0.0.1:2502 relay:secret\n127.0.0.1:2503 relay:secret\n127.0.0.1:2505 relay:secret\n", f);
	fclose(f);
	f = create(directory, "policies");
	fputs("d0.example none\nd1.example encrypt\nd2.example secure match=mail.example\nd3.example dane-only\noverride.example verify match=other.example\n", f);
	fclose(f);
	f = create(directory, "routes.0");
	fprintf(f, "d0.example;127.0.0.1:2501;\nd1.example;127.0.0.1:2502;\nd2.example;127.0.0.1:2599, 127.0.0.1:2503;\n"
		   "d3.example;lmtp:unix:%s/lmtp;\n.d0.example;127.0.0.1:2502;\n", directory);
	fclose(f);
	f = create(directory, "routes.1");
	fputs("d0.example;lmtp://127.0.0.1:2504;false\nd1.example;127.0.0.1:2501;none\nd2.example;smtps://127.0.0.1:2505;\n"
	      "*;127.0.0.1:2503;false\n", f);
	fclose(f);
	f = create(directory, "routes.2");
	fputs("d1.example;127.0.0.1:2501;\nd0.example;;;wrong\n", f);
	fclose(f);
}

/* Files for smtpwarp in the directory, and contexts for the peers. */
void tls_prepare(const char *directory)
{
	EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
	X509 *ca = certificate("Fuzz CA", ca_key, NULL, NULL), *cert = certificate("mail.example", key, ca, ca_key);

	write_files(directory, ca, cert, key);
	tls_server = SSL_CTX_new(TLS_server_method());
	tls_client = SSL_CTX_new(TLS_client_method());
	must(SSL_CTX_use_certificate(tls_server, cert) && SSL_CTX_use_PrivateKey(tls_server, key), "SSL_CTX");
	SSL_CTX_set_num_tickets(tls_server, 0);
	SSL_CTX_set_options(tls_server, SSL_OP_NO_TICKET);
	SSL_CTX_set_options(tls_client, SSL_OP_NO_TICKET);
	SSL_CTX_set_session_cache_mode(tls_server, SSL_SESS_CACHE_SERVER); /* for smtpwarp to resume sessions */
	SSL_CTX_sess_set_cache_size(tls_server, 64);
	X509_free(ca);
	X509_free(cert);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
}
