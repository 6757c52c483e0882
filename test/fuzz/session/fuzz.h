/* What the parts of the session fuzzer share. See main.c. */
#ifndef FUZZ_H
#define FUZZ_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SERVERS_MAX 24	/* connections to servers of a session */
#define ASKED_MAX 160	/* connections to hooks of a session */
#define MESSAGES_MAX 12
#define RCPTS_MAX 12
#define PENDING_MAX 300
#define PROGRAMS 16	/* that are hooks, in programs.c */
#define HOOK_EVENTS 7	/* connect ehlo mail rcpt data close log, as in hooks directories */

struct buf {
	unsigned char *p;
	size_t n, cap;
};

void buf_add(struct buf *b, const void *p, size_t n);
void buf_text(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_drop(struct buf *b, size_t n);
void buf_free(struct buf *b);
unsigned buf_count(const struct buf *b, const char *text);
/* Octets of the first line with its CR LF; 0: it is not whole. */
size_t buf_line(const struct buf *b);

/* ---- chance: one stream of numbers for each seed ---- */

void chance_seed(uint64_t seed);
uint32_t below(uint32_t n);		 /* 0 to n - 1 */
bool percent(uint32_t n);
bool permille(uint32_t n);

/* ---- a connection, with TLS or not ---- */

struct link {
	int fd; /* -1: none */
	SSL *ssl;
	BIO *from, *to;
	struct buf in, out, fresh; /* fresh: what came since the last note in the transcript */
	bool eof, tls_done, tls_failed, notified;
	int passed; /* a descriptor that came with the octets; 0: none */
};

void link_open(struct link *l, int fd);
/* Reads all there is and write what can be. Returns whether anything moved. */
bool link_pump(struct link *l);
void link_send(struct link *l, const void *p, size_t n);
/* These octets and the end of the connection in one packet, so that they are seen together. false: not in this one. */
bool link_last(struct link *l, const void *p, size_t n);
void link_raw(struct link *l, const void *p, size_t n); /* past TLS */
void link_tls(struct link *l, SSL_CTX *ctx, bool server);
bool link_ready(const struct link *l); /* octets may be sent */
/* Says no more. Inside of TLS that takes two steps: its own word comes first, for together one would not know which is seen first.
 * Returns whether it is done. */
bool link_half_close(struct link *l);
void link_close(struct link *l, bool reset);

/* ---- what a seed chooses before the session begins ---- */

enum client_tls { CT_NONE, CT_MAY, CT_REQUIRE, CT_IMPLICIT, CT_PASSTHROUGH };

struct plan {
	const char *argv[64];
	int args;
	char text[8192]; /* of arguments */
	size_t text_len;
	bool unix_client, late, upstream, routes, received, override, accept_proxy;
	int send_proxy; /* 0, 1, 2 */
	bool lmtp_client; /* it may say LHLO */
	enum client_tls client_tls;
	unsigned hooks; /* a bit for each event */
	bool two_hooks, exec_hook;
	bool policies, encrypts; /* encrypts: --tls demands TLS */
	bool impatient;	/* hooks have little time, and some take longer */
	bool failure_accepts;
	int program;	/* that a hook is; -1: it says exec_verdict */
	int client_wild, server_wild, hook_wild; /* 0 well behaved, 1 refusals, 2 all that can be */
	int messages;
	const char *exec_verdict;
};

void plan_make(struct plan *p);

/* ---- messages ---- */

struct message {
	char sender[64];
	struct { char address[64]; int code; } rcpt[RCPTS_MAX];
	int rcpts, mail_code;
	bool over, ended, bdat, binary, failed, bare, discarded, tangled;
	bool edited;	/* in a way that is not followed here */
	bool doomed;	/* a hook refuses it, or has failed */
	bool replaced, removed; /* by hooks; removed: X-Old */
	unsigned added;		/* X-Fuzz */
	struct buf content;	/* as it was meant: dots unstuffed */
	struct buf replacement;
	size_t chunk_at;
	uint64_t end_at;	/* when so many octets are out, it has been sent whole */
	int final[RCPTS_MAX], finals; /* replies to its end */
};

/* As a server got one. */
struct delivery {
	int message;		/* index; -1: whose it is cannot be told */
	int server;
	char rcpt[RCPTS_MAX][64];
	int codes[RCPTS_MAX];	/* of RCPT */
	int rcpts, accepted;
	int final[RCPTS_MAX], finals;
	bool complete, utf8, tunnel; /* tunnel: it went past smtpwarp */
	struct buf content;
};

#define DELIVERIES_MAX 100

/* ---- the client ---- */

/* Behind those from W_HELLO on nothing is said before their reply. */
enum what { W_GREETING, W_MAIL, W_RCPT, W_CONTENT, W_BDAT, W_OTHER, W_HELLO, W_DATA, W_AUTH, W_STARTTLS, W_QUIT };

struct pending {
	enum what what;
	int message, rcpt;
	int replies; /* got so far, of several */
	bool last;   /* of BDAT: the last chunk */
};

struct client {
	struct link link;
	struct buf unsent;
	uint64_t queued; /* octets given to unsent so far */
	struct pending pending[PENDING_MAX];
	int pendings, current, auth_step;
	int taken; /* recipients accepted since the last MAIL that was: a refused one leaves the transaction before it open */
	bool greeted, hello, lmtp, quit, closing, tls, offers_chunking, offers_auth, offers_tls, authenticated, reset_due, half_closing;
};

void client_begin(int fd);
void client_take(void);		/* parse what has come */
bool client_can_send(void);
void client_send(void);		/* a segment of what is queued */
bool client_can_speak(void);
void client_speak(void);	/* queue a group of commands */
bool client_waits(void);	/* replies are due */

/* ---- servers ---- */

enum kind { K_SMTP, K_LMTP, K_SMTPS, K_UNIX };

struct server {
	struct link link;
	enum kind kind;
	int number, port;
	bool greeted, pipelining, starttls, auth, chunking, xclient, xforward, lmtp, authenticated, mute;
	bool in_data, swallow, closing, early, helo_only, tls_next, got_proxy, left;
	uint64_t chunk_left;
	bool chunk_last, in_chunk;
	int auth_step, owed; /* replies to a message that are still due, LMTP */
	int delivery;	     /* index of what is under way; -1: none */
	bool mail;
	struct buf reply;    /* what is left of a reply of which a part is out */
	int reply_final;     /* index in final[] that is answered when it is out, else -1 */
	int reply_code, reply_delivery;
};

const char *address_digits(const char *address); /* s0@... r0.1@..., or as hooks have rewritten them */
void server_accept(int fd, enum kind kind, int port);
bool server_can_act(const struct server *s);
void server_act(struct server *s);
void server_fault(struct server *s);
void server_look(struct server *s); /* checks on what has come */

/* ---- hooks that are played here ---- */

struct asked {
	struct link link;
	int event;
	bool answered, composed, mute, deaf;
	struct buf verdict;	/* what is left of it */
	int message;		/* that it is about; -1: none */
	bool vain, doomed;	/* vain: its edits do not count; doomed: nor does the message go on */
	bool replaces, removes, discards;
	unsigned adds;
	struct buf replacement;
};

void hooks_accept(int fd, int event);
bool hook_pump(struct asked *a);
bool hook_can_answer(const struct asked *a);
void hook_answer(struct asked *a);
void hooks_finish(void); /* when smtpwarp has ended: looks at what log hooks got */
bool program_dooms(void); /* any message that comes so far */
void hooks_prepare(const char *directory);
const char *hooks_directory(unsigned events, bool two, bool exec);
int hook_main(void);
bool program_fails(int number);

/* ---- edits ---- */

const struct buf *message_now(const struct message *m); /* without fields that were added or removed */
void message_replaced(struct message *m, const void *text, size_t n);
/* A copy without the fields that hooks add and remove, and how many of these there were. */
struct buf without_edits(const struct buf *b, unsigned *added, unsigned *old);
bool same_with_edits(const struct message *m, const struct buf *got);
void check_passed(const struct message *m, int fd, int number);

/* ---- one session ---- */

struct session {
	uint64_t seed;
	struct plan plan;
	struct client client;
	struct server servers[SERVERS_MAX];
	int server_count;
	struct asked asked[ASKED_MAX];
	int asked_count;
	struct message messages[MESSAGES_MAX];
	int message_count;
	struct delivery deliveries[DELIVERIES_MAX];
	int delivery_count;
	bool exempt; /* a hook has said what TLS is to be */
	bool tunnel; /* TLS between client and server, past smtpwarp */
	bool confused; /* a server has said what it was not asked: which reply belongs to what cannot be known */
	bool any_tls, again; /* again: something was sent while what had come was looked at */
	pid_t pid;
	int stat_fd;
	bool exited;
	int status;
	struct buf transcript, faults, log, errors;
	unsigned steps;
};

extern struct session fuzz; /* the one that runs */
extern const char *workplace; /* directory of this worker's files */
extern SSL_CTX *tls_server, *tls_client;
extern bool verbose;

void world_enter(const char *directory, int job);
/* Run a seed with this program. Transcript and faults are in `fuzz`. */
void world_run(const char *program, uint64_t seed);
void tls_prepare(const char *directory);

/* ---- transcript and checks ---- */

void note(const char *who, const void *p, size_t n);
void notef(const char *who, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note_log(void);
void check_session(void);
bool json_is_valid(const unsigned char *p, size_t n);

#endif
